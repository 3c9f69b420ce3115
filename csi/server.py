"""The gRPC server on the CSI socket."""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from cachefetch.errors import ConfigError, Precondition
from cachefetch.logs import fields
from csi import waiters
from csi.interceptors import chain
from csi.pb import csi_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.metrics import Metrics

_log = logging.getLogger(__name__)

WORKERS = waiters.LIMIT + 112
"""Threads that serve RPCs: one for every call that may wait, and 112 for those that do not, so that no call takes
longer because others wait. Threads are made when a call finds none idle; a quiet driver has a handful. Measured with
Python 3.11: 43 MiB resident when idle, 64 MiB with 500 calls waiting (43 KiB each), and in both cases 0.6 ms for a
Probe at the median."""

SOCKET_PATH_MAX = 107
"""Bytes: `sun_path` of unix(7) has 108 with the final NUL."""


def parse_endpoint(endpoint: str) -> Path:
    """The socket path of `unix:///path/csi.sock` or `unix:/path/csi.sock`.

    Raises:
        ConfigError: another scheme, a relative path, one that does not end in `.sock` (CSI specification, "Supervised
            Lifecycle Management"), or one too long for a socket.
    """
    scheme, _, path = endpoint.partition(":")
    path = path.removeprefix("//")
    if scheme != "unix" or not path.startswith("/") or not path.endswith(".sock"):
        raise ConfigError(
            f"--endpoint: {endpoint!r} is not a socket to serve on: use an absolute path that ends in .sock, "
            "for example unix:///csi/csi.sock"
        )
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise ConfigError(
            f"--endpoint: the path of {endpoint!r} has more than {SOCKET_PATH_MAX} bytes: use a shorter directory"
        )
    return Path(path)


class Server:
    """Serves CSI services on one unix socket.

    Clients may send any `:authority`; Go clients send `localhost`.
    """

    def __init__(
        self,
        path: Path,
        metrics: Metrics,
        *,
        identity: csi_pb2_grpc.IdentityServicer,
        node: csi_pb2_grpc.NodeServicer | None = None,
        controller: csi_pb2_grpc.ControllerServicer | None = None,
        group_controller: csi_pb2_grpc.GroupControllerServicer | None = None,
    ) -> None:
        """Prepare to serve the given services at `path`; nothing is visible before `start`."""
        self._path = path
        self._pool = _Pool()
        self._server = grpc.server(self._pool, interceptors=chain(metrics))
        csi_pb2_grpc.add_IdentityServicer_to_server(identity, self._server)
        if node:
            csi_pb2_grpc.add_NodeServicer_to_server(node, self._server)
        if controller:
            csi_pb2_grpc.add_ControllerServicer_to_server(controller, self._server)
        if group_controller:
            csi_pb2_grpc.add_GroupControllerServicer_to_server(group_controller, self._server)

    def start(self) -> None:
        """Make the socket and serve. A socket that a dead process left behind is replaced.

        The socket's mode becomes 0600 before the first call is served. Until then the umask keeps others out:
        connecting needs write permission (unix(7)).

        Raises:
            Precondition: something else is at the path, or somebody serves there.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _clear(self._path)
            self._server.add_insecure_port(f"unix:{self._path}")
            self._path.chmod(0o600)
        except (OSError, RuntimeError) as error:  # RuntimeError: gRPC could not bind
            raise Precondition(
                f"--endpoint: cannot make the socket {self._path}: {error}; use a writable directory"
            ) from error
        self._server.start()

    def stop(self, grace: float) -> bool:
        """Refuse new calls, take the socket away (gRPC does), give running calls `grace` seconds.

        Returns whether all calls finished. Those that did not keep their threads, which Python waits for at exit.
        """
        deadline = time.monotonic() + grace
        self._server.stop(grace).wait()
        unfinished = self._pool.drain(max(0.0, deadline - time.monotonic()))
        if unfinished:
            _log.warning("calls_unfinished", extra=fields(calls=unfinished, grace=grace))
        return not unfinished

    def wait(self) -> None:
        """Wait until `stop` was called, in another thread, and all calls are answered."""
        self._server.wait_for_termination()


class _Pool(futures.ThreadPoolExecutor):
    """A thread pool that knows what runs: gRPC itself forgets a cancelled call whose handler still works."""

    def __init__(self) -> None:
        super().__init__(WORKERS, thread_name_prefix="rpc")
        self._running: set[futures.Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def drain(self, seconds: float) -> int:
        """Wait up to `seconds` for everything that runs; returns how much still does."""
        return len(futures.wait(list(self._running), seconds).not_done)


def _clear(path: Path) -> None:
    """Remove the socket that a dead process left at `path`, and nothing else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Precondition(f"--endpoint: {path} is there and not a socket: move it away, or use another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:  # bound once, listened on no more (connect(2))
            path.unlink()
            return
        except BlockingIOError:  # somebody listens and is busy
            pass
    raise Precondition(f"--endpoint: another process serves on {path}: stop it, or use another path")
