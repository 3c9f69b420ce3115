"""Registers the driver with kubelet, which looks for sockets in its plugin directory.

Kubelet watches that directory, asks each new socket who it is, asks the CSI socket for the node's id, and enters the
driver into the node's CSINode object; when the socket goes, it takes the entry away (Kubernetes,
pkg/kubelet/pluginmanager). Three things it does not do, so they are done here again and again, by comparing what is
with what should be:

- ask again after it has refused the driver, for example because the API server was away;
- notice that a driver has died: the socket that it left is replaced by rename, which kubelet takes for a new one;
- keep the directory: when it was emptied, the socket is made anew.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

from cachefetch.errors import ConfigError, Precondition
from cachefetch.logs import fields
from cachefetch.sockets import SOCKET_PATH_MAX
from csi.pb import pluginregistration_pb2, pluginregistration_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = logging.getLogger(__name__)

LOOK = 2.0
"""Seconds between two looks at the directory."""
_VERSIONS = ("1.0.0",)
"""The registration's, not that of the CSI specification: kubelet takes any 1.x (pkg/volume/csi, validateVersions)."""
_RETRY_MIN, _RETRY_MAX = 1.0, 60.0  # seconds from a refusal to the next try
_RANDOM = 4  # bytes that make the name of a socket in the making unique
_HANDLERS = 2  # kubelet asks one thing after the other


class Registration:
    """The driver's entry in a kubelet's plugin directory, from `start` to `stop`."""

    def __init__(
        self, directory: Path, *, driver_name: str, csi_socket: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare the entry; nothing is visible before `start`.

        Args:
            directory: kubelet's plugin directory, as this process sees it.
            driver_name: as GetPluginInfo tells it.
            csi_socket: the CSI socket's path as kubelet sees it.
            clock: seconds that never go back.

        Raises:
            ConfigError: the path of the registration socket would be too long.
        """
        self.socket = directory / f"{driver_name}-reg.sock"
        """Where kubelet finds the driver."""
        if len(os.fsencode(self.socket)) + 2 + 2 * _RANDOM > SOCKET_PATH_MAX:
            raise ConfigError(
                f"--plugin-registration-dir: {str(directory)!r} is too long for sockets: use a shorter one"
            )
        self._info = pluginregistration_pb2.PluginInfo(
            type="CSIPlugin", name=driver_name, endpoint=str(csi_socket), supported_versions=_VERSIONS
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._stopped = False
        self._server: grpc.Server | None = None
        self._mine: tuple[int, int] | None = None
        self._retry_at: float | None = None
        self._delay = _RETRY_MIN

    def start(self) -> None:
        """Announce the driver; the CSI socket must be served by now.

        Raises:
            Precondition: the directory is not there, or not writable.
        """
        try:
            self._clear()
            self._announce()
        except (OSError, RuntimeError) as error:  # RuntimeError: gRPC could not bind
            raise Precondition(
                f"--plugin-registration-dir: cannot make {self.socket}: {error}; mount kubelet's plugins_registry there"
            ) from error

    def look(self) -> None:
        """Announce the driver again if kubelet does not know it: its socket is gone, or kubelet has refused it.

        A socket that another driver put there meanwhile, the one that replaces this one, is left alone.

        Raises:
            OSError: not possible now; the next look tries again.
        """
        with self._lock:
            there = _identity(self.socket)
            refused = self._retry_at is not None and self._clock() >= self._retry_at
            if not self._stopped and (there is None or (there == self._mine and refused)):
                _log.info("registering", extra=fields(reason="kubelet refused" if there else "the socket is gone"))
                self._announce()

    def stop(self) -> None:
        """Take the entry away, unless it is another driver's by now."""
        with self._lock:
            self._stopped = True
            if self._mine is not None and _identity(self.socket) == self._mine:
                self.socket.unlink(missing_ok=True)
            if self._server:
                self._server.stop(None).wait()

    def _announce(self) -> None:
        """Put a new socket in the place, in one step.

        It is bound at a name that kubelet ignores (it starts with a dot) and that gRPC removes when the server stops:
        so gRPC never removes the place itself, which may be another driver's by then.
        """
        name = f".{self.socket.name}.{secrets.token_hex(_RANDOM)}"
        bound = self.socket.with_name(name)
        server = grpc.server(ThreadPoolExecutor(_HANDLERS, thread_name_prefix="registration"))
        pluginregistration_pb2_grpc.add_RegistrationServicer_to_server(_Servicer(self._info, self._told), server)
        self._retry_at = None
        try:
            server.add_insecure_port(f"unix:{bound}")
            bound.chmod(0o600)
            server.start()
            self._mine = _identity(bound)
            bound.rename(self.socket)
        except BaseException:
            server.stop(None)
            bound.unlink(missing_ok=True)
            raise
        if self._server:
            self._server.stop(None)
        self._server = server

    def _told(self, status: pluginregistration_pb2.RegistrationStatus) -> None:
        if status.plugin_registered:
            self._delay = _RETRY_MIN
            _log.info("registered", extra=fields(driver=self._info.name, endpoint=self._info.endpoint))
            return
        self._retry_at = self._clock() + self._delay
        _log.warning("registration_refused", extra=fields(error=status.error, retry=f"{self._delay:g}s"))
        self._delay = min(_RETRY_MAX, self._delay * 2)

    def _clear(self) -> None:
        """Remove sockets in the making of drivers that were killed meanwhile."""
        prefix = f".{self.socket.name}."
        for entry in self.socket.parent.iterdir():
            if entry.name.startswith(prefix):
                entry.unlink(missing_ok=True)


class _Servicer(pluginregistration_pb2_grpc.RegistrationServicer):
    def __init__(
        self,
        info: pluginregistration_pb2.PluginInfo,
        told: Callable[[pluginregistration_pb2.RegistrationStatus], None],
    ) -> None:
        self._info = info
        self._told = told

    def GetInfo(  # noqa: N802 - the name in the protocol
        self,
        request: pluginregistration_pb2.InfoRequest,  # noqa: ARG002 - has no fields
        context: grpc.ServicerContext,  # noqa: ARG002 - given by gRPC
    ) -> pluginregistration_pb2.PluginInfo:
        """Who registers here, and where it serves."""
        return self._info

    def NotifyRegistrationStatus(  # noqa: N802 - the name in the protocol
        self,
        request: pluginregistration_pb2.RegistrationStatus,
        context: grpc.ServicerContext,  # noqa: ARG002 - given by gRPC
    ) -> pluginregistration_pb2.RegistrationStatusResponse:
        """What came of it."""
        self._told(request)
        return pluginregistration_pb2.RegistrationStatusResponse()


def _identity(path: Path) -> tuple[int, int] | None:
    """What a file is recognised by; None when there is none. Inode numbers are used again, so its birth counts too.

    A socket's modification time is that of its birth: nothing is ever written to it.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
