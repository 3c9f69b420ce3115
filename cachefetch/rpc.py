"""What every gRPC server of goldlink is made of: a unix socket, threads that are counted, codes for what is raised."""

from __future__ import annotations

import errno
import logging
import stat
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from cachefetch.errors import GoldlinkError, Precondition
from cachefetch.logs import fields
from cachefetch.sockets import served

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

TEXT_MAX = 2000
"""Bytes of an error's text. It travels percent-encoded, up to three times as long, in a header, and clients refuse more
than 8 KiB of those (gRPC, default of GRPC_ARG_MAX_METADATA_SIZE)."""


class Outcome(NamedTuple):
    """What a caller gets for an RPC."""

    code: grpc.StatusCode
    text: str


OK = Outcome(grpc.StatusCode.OK, "")


def outcome(error: Exception, method: str) -> Outcome:
    """The answer for what `method` raised: the only place that turns exceptions into gRPC codes."""
    if isinstance(error, GoldlinkError):
        return Outcome(grpc.StatusCode[error.code.name], _clip(str(error) or type(error).__name__))
    if isinstance(error, NotImplementedError):  # what the generated base class of a servicer raises
        return Outcome(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not offered: see the capabilities of this driver")
    if isinstance(error, OSError):
        where = f" at {error.filename!r}" if error.filename is not None else ""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            text = f"no space left{where}: free some, or raise the quota"
            return Outcome(grpc.StatusCode.RESOURCE_EXHAUSTED, _clip(text))
        text = f"{method} failed with {error.strerror or type(error).__name__}{where}: see the log"
        return Outcome(grpc.StatusCode.INTERNAL, _clip(text))
    # The text of an unexpected exception may hold anything, a secret too; the log has the traceback.
    return Outcome(grpc.StatusCode.INTERNAL, f"{method} failed with {type(error).__name__}: see the log")


class SocketServer:
    """Serves gRPC on one unix socket, to those who may connect: its owner, which is root.

    gRPC for Python does not tell a servicer who its peer is, so the socket's mode decides: connecting needs write
    permission (unix(7)).
    """

    def __init__(
        self, path: Path, workers: int, interceptors: Sequence[grpc.ServerInterceptor] = (), *, option: str
    ) -> None:
        """Prepare to serve at `path` with up to `workers` threads; nothing is visible before `start`.

        `option` is what an administrator sets the path with; errors start with it.
        """
        self._path = path
        self._option = option
        self._pool = _Pool(workers)
        self.grpc = grpc.server(self._pool, interceptors=list(interceptors))
        """Takes the services before `start`."""

    def start(self) -> None:
        """Make the socket and serve. A socket that a dead process left behind is replaced.

        The socket's mode becomes 0600 before the first call is served. Until then the umask keeps others out.

        Raises:
            Precondition: something else is at the path, or somebody serves there.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._clear()
            self.grpc.add_insecure_port(f"unix:{self._path}")
            self._path.chmod(0o600)
        except (OSError, RuntimeError) as error:  # RuntimeError: gRPC could not bind
            raise Precondition(
                f"{self._option}: cannot make the socket {self._path}: {error}; use a writable directory"
            ) from error
        self.grpc.start()

    def stop(self, grace: float) -> bool:
        """Refuse new calls, take the socket away (gRPC does), give running calls `grace` seconds.

        Returns whether all calls finished. Those that did not keep their threads, which Python waits for at exit.
        """
        deadline = time.monotonic() + grace
        self.grpc.stop(grace).wait()
        unfinished = self._pool.drain(max(0.0, deadline - time.monotonic()))
        if unfinished:
            _log.warning("calls_unfinished", extra=fields(calls=unfinished, grace=grace))
        return not unfinished

    def wait(self) -> None:
        """Wait until `stop` was called, in another thread, and all calls are answered."""
        self.grpc.wait_for_termination()

    def _clear(self) -> None:
        """Remove the socket that a dead process left, and nothing else."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise Precondition(
                f"{self._option}: {self._path} is there and not a socket: move it away, or use another path"
            )
        if served(self._path):
            raise Precondition(f"{self._option}: another process serves on {self._path}: stop it, or use another path")
        self._path.unlink()


class _Pool(futures.ThreadPoolExecutor):
    """A thread pool that knows what runs: gRPC itself forgets a cancelled call whose handler still works."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, thread_name_prefix="rpc")
        self._running: set[futures.Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def drain(self, seconds: float) -> int:
        """Wait up to `seconds` for everything that runs; returns how much still does."""
        return len(futures.wait(list(self._running), seconds).not_done)


def _clip(text: str) -> str:
    """`text` as UTF-8 of at most `TEXT_MAX` bytes; its middle goes first, for the remedy stands at the end."""
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) > TEXT_MAX:
        raw = raw[: TEXT_MAX // 2] + b"..." + raw[3 - TEXT_MAX // 2 :]
    return raw.decode("utf-8", "ignore")
