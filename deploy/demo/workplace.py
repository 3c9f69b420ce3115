"""The demo's own small node: a directory, the driver as a process, and what kubelet does on a real one.

Whatever happens, leaving the context ends the driver, unmounts what is mounted below the directory and removes it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from cachefetch.errors import ConfigError
from cachefetch.store import Store
from csi import mountinfo, syscalls
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.server import SOCKET_PATH_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import IO, Self

CACHE = "packages"
NAMESPACE = "demo"
POOL = 4
"""Link trees that the driver keeps ready."""
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the demo: Ctrl-C, kill, and a terminal that is closed."""
_START = 60.0  # seconds until the driver must answer, and have its link trees
_RPC = 110.0  # seconds; kubelet gives an RPC two minutes
_STOP = 10.0  # seconds; the driver's promise for SIGTERM
_COMMAND = 300.0  # seconds
_KUBELET = "csi.storage.k8s.io/"
_CONFIG = """\
caches:
  - name: {cache}
    source: {{type: directory, path: {source}}}
    refresh: {{manual: true}}
    access: {{namespaces: [{namespace}]}}
    pool: {pool}
"""


class Broken(Exception):
    """A part of the demo did not work at all; the text says which and how it ended."""


@dataclass(frozen=True)
class Volume:
    """The inline volume `packages` of one pod."""

    pod: str
    namespace: str
    uid: str
    target: Path

    @property
    def id(self) -> str:
        """As kubelet makes it (pkg/volume/csi/csi_mounter.go, makeVolumeHandle)."""
        return f"csi-{hashlib.sha256(f'{self.uid}{CACHE}'.encode()).hexdigest()}"


class Workplace:
    """Made in a new directory below `parent`, on a real disk.

    Raises:
        ConfigError: the directory cannot be used; says what to name instead.
    """

    def __init__(self, parent: Path) -> None:
        try:
            self.root = Path(tempfile.mkdtemp(prefix="goldlink-demo-", dir=parent)).resolve()
        except OSError as error:
            raise ConfigError(
                f"--dir: {parent} cannot be used ({error.strerror}): name a writable directory"
            ) from error
        self.source = self.root / "source"
        self.state = self.root / "state"
        self.config = self.root / "caches.yaml"
        self.log = self.root / "driver.log"
        self.socket = self.root / "csi.sock"
        self.store = Store(self.state)
        self.driver: subprocess.Popen[str] | None = None
        self._children: list[subprocess.Popen[str]] = []
        self._channel: grpc.Channel | None = None

    def __enter__(self) -> Self:
        """Write the configuration.

        Raises:
            ConfigError: the directory's path is too long for a socket.
        """
        if len(os.fsencode(self.socket)) > SOCKET_PATH_MAX:
            self.root.rmdir()
            raise ConfigError(f"--dir: {self.root.parent} is too long for a socket below it: name a shorter one")
        self.config.write_text(_CONFIG.format(cache=CACHE, source=self.source, namespace=NAMESPACE, pool=POOL))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave nothing. A second Ctrl-C must not interrupt this."""
        for number in INTERRUPTIONS:
            signal.signal(number, signal.SIG_IGN)
        for child in self._children:
            _end(child)
        self._close()
        self.remove()

    def remove(self) -> None:
        """Unmount what is left and remove the directory; fine when it is gone."""
        while mounts := mountinfo.below(self.root):  # read anew each time: one unmount may take others along
            syscalls.umount(mounts[0].point, syscalls.MNT_DETACH)
        if self.root.exists():
            shutil.rmtree(self.root)

    # Commands

    def _spawn(self, arguments: Sequence[str], output: int | IO[str]) -> subprocess.Popen[str]:
        """Start a process of which `__exit__` knows, also when a signal comes in this very moment."""
        with _uninterrupted():
            child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                cwd=self.root,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # it would write into what the demo copies
                start_new_session=True,  # Ctrl-C is for the demo, which then ends them all
            )
            self._children.append(child)
        return child

    def run(self, *arguments: str) -> str:
        """Run a command; returns what it printed on stdout.

        Raises:
            Broken: it failed.
        """
        child = self._spawn(arguments, subprocess.PIPE)
        output, complaint = child.communicate(timeout=_COMMAND)
        if child.returncode != 0:
            said = complaint.strip() or output.strip()
            raise Broken(f"'{shlex.join(arguments)}' ended with {child.returncode}: {said}")
        return output

    def cachefetch(self, *words: str) -> str:
        """Run `cachefetch` with the demo's store; returns what it printed.

        Raises:
            Broken: it failed.
        """
        where = ("--state-dir", str(self.state), "--config", str(self.config))
        return self.run(sys.executable, "-m", "cachefetch", *words, *where)

    # The driver

    def start(self) -> str:
        """Start the driver and wait until it answers; returns its name and version.

        Raises:
            Broken: it ended, or does not answer.
        """
        arguments = [sys.executable, "-m", "csi", "node", "--endpoint", f"unix://{self.socket}"]
        arguments += ["--state-dir", str(self.state), "--config", str(self.config), "--node-id", "demo-node"]
        with self.log.open("a") as log:
            self.driver = self._spawn(arguments, log)
        self._channel = grpc.insecure_channel(
            f"unix://{self.socket}",
            options=[("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)],
        )
        identity = csi_pb2_grpc.IdentityStub(self._channel)
        self._wait(identity, self.driver)
        info = identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest(), timeout=_RPC)
        return f"{info.name} {info.vendor_version}"

    def _wait(self, identity: csi_pb2_grpc.IdentityStub, driver: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + _START
        while True:
            try:
                identity.Probe(csi_pb2.ProbeRequest(), timeout=1, wait_for_ready=True)
            except grpc.RpcError as error:
                if driver.poll() is not None or time.monotonic() > deadline:
                    raise Broken(f"the driver does not answer (exit status {driver.poll()})") from error
            else:
                return

    def wait_for_pool(self) -> int:
        """Wait until the driver has made all link trees of the current version; returns how many there are."""
        place = self.state / "pool" / CACHE / self.current()
        deadline = time.monotonic() + _START
        while True:
            names = [entry.name for entry in place.iterdir()] if place.is_dir() else []
            ready = [name for name in names if not name.startswith(".")]  # the others are being made
            if len(ready) == len(names) == POOL or time.monotonic() > deadline:
                return len(ready)
            time.sleep(0.05)

    def kill(self) -> None:
        """End the driver as a crash does: no clean-up of its own."""
        assert self.driver is not None
        _end(self.driver)
        self._close()

    def stop(self) -> int | None:
        """Ask the driver to end, as kubelet does; returns its exit status, None when it did not end in time."""
        assert self.driver is not None
        self.driver.terminate()
        try:
            return self.driver.wait(_STOP)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self._close()

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    # What kubelet does

    def volume(self, pod: str, namespace: str = NAMESPACE) -> Volume:
        """A new pod with the volume; makes the directory that kubelet makes."""
        uid = str(uuid.uuid4())
        home = self.root / "pods" / uid / "volumes" / "kubernetes.io~csi" / CACHE
        home.mkdir(mode=0o750, parents=True)
        return Volume(pod, namespace, uid, home / "mount")

    def publish(self, volume: Volume) -> float:
        """NodePublishVolume as kubelet calls it for an inline volume; returns the seconds it took.

        Raises:
            grpc.RpcError: the driver refuses.
        """
        capability = csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(),
            access_mode=csi_pb2.VolumeCapability.AccessMode(
                mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
            ),
        )
        request = csi_pb2.NodePublishVolumeRequest(
            volume_id=volume.id,
            target_path=str(volume.target),
            volume_capability=capability,
            readonly=True,
            volume_context={
                "cache": CACHE,
                f"{_KUBELET}pod.name": volume.pod,
                f"{_KUBELET}pod.namespace": volume.namespace,
                f"{_KUBELET}pod.uid": volume.uid,
                f"{_KUBELET}serviceAccount.name": "default",
                f"{_KUBELET}ephemeral": "true",
            },
        )
        started = time.perf_counter()
        self._node().NodePublishVolume(request, timeout=_RPC)
        return time.perf_counter() - started

    def unpublish(self, volume: Volume) -> float:
        """NodeUnpublishVolume; returns the seconds it took.

        Raises:
            grpc.RpcError: the driver refuses.
        """
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume.id, target_path=str(volume.target))
        started = time.perf_counter()
        self._node().NodeUnpublishVolume(request, timeout=_RPC)
        return time.perf_counter() - started

    def _node(self) -> csi_pb2_grpc.NodeStub:
        assert self._channel is not None
        return csi_pb2_grpc.NodeStub(self._channel)

    def golden(self, version: str) -> Path:
        """The golden tree of a version."""
        return self.store.tree(CACHE, version)

    def current(self) -> str:
        """The version that new volumes get.

        Raises:
            Broken: there is none.
        """
        current = self.store.current(CACHE)
        if current is None:
            raise Broken(f"cache {CACHE!r} has no version after its refresh")
        return current


def _end(child: subprocess.Popen[str]) -> None:
    """Kill the process with all that it started, unless it was waited for: then its id may be another's."""
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put an interruption off until the end. The handlers are Python's, so a process that is started has none."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda now, _frame: came.append(now)) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)
