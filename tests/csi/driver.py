"""The real driver in a process of its own, with a real store: `python -m csi node`."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachefetch.store import Store
from csi import mountinfo, syscalls
from csi.mount import KernelMounter
from csi.targets import Targets
from tests.csi.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachefetch.records import VolumeRecord

_ROOT = Path(__file__).parents[2]
_WORD = re.compile(r'([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]+)(?: |$)')
CONFIG = """
caches:
  - {name: deps, pool: 0, source: {type: directory, path: /srv}}
  - {name: model, source: {type: directory, path: /srv}}
  - {name: vault, source: {type: directory, path: /srv}, access: {namespaces: [bank], serviceAccounts: [ci/builder]}}
"""
PRIVATE = CONFIG.replace("name: deps, ", "name: deps, private: overlay, ")
LIMITED = CONFIG.replace("name: deps, ", "name: deps, private: overlay, privateMaxBytes: 32Mi, ")
POOL = 3
POOLED = CONFIG.replace("pool: 0", f"pool: {POOL}")


def until(met: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until `met` is true; a driver that never gets there is a failure."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def parse_line(line: str) -> dict[str, str]:
    """The words of a log line; fails on anything that is not logfmt."""
    words, position = {}, 0
    while position < len(line):
        match = _WORD.match(line, position)
        assert match, line
        words[match[1]] = json.loads(match[2]) if match[2].startswith('"') else match[2]
        position = match.end()
    return words


def listing(tree: Path) -> dict[str, tuple[int, int]]:
    """Every path below with its mode, and its inode where a link tree shares it."""
    found = {}
    for path in tree.rglob("*"):
        status = path.lstat()
        found[str(path.relative_to(tree))] = (status.st_mode, 0 if stat.S_ISDIR(status.st_mode) else status.st_ino)
    return found


class Driver:
    """A driver that tests start, stop, kill and start again, on one state directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "csi.sock"
        self.state = root / "state"
        self.config = root / "caches.yaml"
        self.config.write_text(CONFIG)
        self.store = Store.open(self.state)
        self.targets = root / "pods"
        self.targets.mkdir()
        self.asks: dict[str, Any] = {}
        """What every `publish` asks for, unless told otherwise."""
        self.process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        assert self._client, "the driver was not started"
        return self._client

    @property
    def log_file(self) -> Path:
        return self.root / "driver.log"

    def command(self, *more: str) -> list[str]:
        """The arguments of `python -m csi`."""
        return [
            "node", "--endpoint", f"unix://{self.socket}", "--state-dir", str(self.state), "--config", str(self.config),
            "--node-id", "node-1", *more,
        ]  # fmt: skip

    def start(self, *more: str, python: Sequence[str] = ("-m", "csi")) -> Client:
        """Start it and wait until it serves; returns its client."""
        process = self.launch(*more, python=python)
        until(lambda: self.listens() or process.poll() is not None)
        assert process.poll() is None, self.log_file.read_text()
        self._client = Client(self.socket)
        return self._client

    def listens(self) -> bool:
        """Whether somebody serves on the socket; a stale one refuses."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def launch(self, *more: str, python: Sequence[str] = ("-m", "csi")) -> subprocess.Popen[bytes]:
        """Start it and wait for nothing."""
        assert self.process is None or self.process.poll() is not None
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *python, *self.command(*more)], stderr=log, cwd=_ROOT)
        return self.process

    def run(self, *more: str) -> tuple[int, str]:
        """Start a driver that should end by itself; returns its exit code and what it wrote to stderr."""
        command = [sys.executable, "-m", "csi", *self.command(*more)]
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, cwd=_ROOT, timeout=30)
        return done.returncode, done.stderr

    def end(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to the process, wait for its end; returns the exit code."""
        if self._client:
            self._client.close()
            self._client = None
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self.process = None
        return code

    def restart(self, *more: str) -> Client:
        """Kill it with SIGKILL, then start again."""
        self.end()
        return self.start(*more)

    def target(self, volume_id: str) -> Path:
        """A target path as kubelet makes one: the parent exists, the path itself does not."""
        parent = self.targets / volume_id
        parent.mkdir(exist_ok=True)
        return parent / "mount"

    def publish(self, volume_id: str, **given: Any) -> Path:
        """Publish at a target of the volume's own; returns it."""
        target = self.target(volume_id)
        self.client.publish(volume_id, target, **{**self.asks, **given})
        return target

    def events(self, name: str) -> list[dict[str, str]]:
        """The log lines of one event; every line must parse."""
        lines = [parse_line(line) for line in self.log_file.read_text().splitlines()]
        return [line for line in lines if line.get("event") == name]

    def get(self, path: str) -> str:
        """What the driver answers on --metrics-address."""
        port = self.events("measuring")[-1]["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        (line,) = [line for line in self.get("/metrics").splitlines() if line.startswith(f"{name} ")]
        return float(line.removeprefix(f"{name} "))

    def mounts(self) -> list[Path]:
        """Where something is mounted below the targets, once for each mount."""
        return [mount.point for mount in mountinfo.below(self.targets)]

    def ready(self) -> list[Path]:
        """The link trees that are ready in the pool of the cache `deps`."""
        return [place for place in self.state.glob("pool/deps/*/*") if not place.name.startswith(".")]

    def source(self, record: VolumeRecord) -> Path:
        """What must be mounted at the target of the volume: its own link tree, or the golden one."""
        own = self.store.records.place(record.id) / "tree"
        return (own if record.slot else self.store.tree(record.cache, record.version)) / record.path

    def check(self) -> None:
        """What always holds while no call runs: each mount is one recorded volume's, whole, and read-only if shared."""
        mounts = self.mounts()
        assert len(set(mounts)) == len(mounts), "a target with two mounts"
        volumes = {Path(record.target): record for record in self.store.records.all()}
        for point in mounts:
            record = volumes[point]
            shown = record.identity if record.access == "private" else self.source(record)
            assert Targets(KernelMounter(self.root / "unused")).shows(point, shown)
            assert self.store.has(record.cache, record.version)
            golden = self.store.tree(record.cache, record.version) / record.path
            assert listing(self.source(record)) == listing(golden)
        assert mountinfo.below(self.state) == []

    def close(self) -> None:
        """Unpublish what is published, by the driver if it runs, and end it; nothing may be left mounted."""
        try:
            if self.process and self.process.poll() is None and self._client:
                for record in list(self.store.records.all()):
                    self.client.unpublish(record.id, record.target)
                assert self.mounts() == []
        finally:
            self.end()
            for mount in mountinfo.below(self.root):
                syscalls.umount(mount.point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
