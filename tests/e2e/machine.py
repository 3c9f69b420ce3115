"""A machine of its own for a cluster: Linux namespaces that end with the test run, however it ends.

The processes of the cluster live in mount, process, network, IPC and UTS namespaces (namespaces(7)) below one init,
which ends when its standard input is closed: by `Machine.stop`, or by the kernel when the test run was killed. With the
init the kernel kills every other process of the namespace (pid_namespaces(7)), and with the last one go all mounts and
network interfaces. What remains are files and control groups, which `stop` removes, or the start of the next machine.

Inside, /var/lib, /var/log and /run are the machine's own, so everything runs at its usual place, and the network has no
way out: what listens there can only be reached from there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

_BASE = Path("/var/tmp")
"""Holds the directory of each machine; on a disk, for there are stores in it."""
_PREFIX = "goldlink-e2e-"
"""Of what a machine leaves; the process that owns it and its name follow."""
ADDRESS = "10.89.0.1"
"""The machine's address in its own network."""
SERVICE_ADDRESS = "10.96.0.1"
"""Where pods expect the API server. It is the machine's, too, so that no proxy is needed."""
HOSTNAME = "node-1"

_CGROUPS = Path("/sys/fs/cgroup")
_SPACES = ("--mount", "--pid", "--net", "--ipc", "--uts")
_INIT = "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
"""Process 1: lets the kernel reap what is orphaned (SIGCHLD ignored: wait(2), NOTES), and ends with its input."""
_SETUP = """set -eu
# The mounts of other tests were cloned, too; they must end when those tests end them.
awk '$5 ~ "^(/tmp|/var/tmp)/" {print $5}' /proc/self/mountinfo | tac | xargs -r umount -l
mount --make-rshared /
mount --bind "$1/lib" /var/lib
mount --bind "$1/log" /var/log
mount -t tmpfs tmpfs /run
cat /proc/sys/kernel/random/uuid >/run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
hostname "$2"
ip link set lo up
ip address add "$3/32" dev lo
ip link add node0 type veth peer name uplink
ip address add "$4/24" dev node0
ip link set node0 up
ip link set uplink up
ip route add default dev node0
sysctl -qw net.ipv4.ip_forward=1
"""
"""A default route, because Kubernetes takes its address from there; it leads nowhere. A veth pair, because not every
kernel has dummy interfaces and pods need veth anyway. A boot id of each boot, which kubelet sees; containers have a
/proc of their own, with that of the host."""


class Machine:
    """A machine that runs from `start` to `stop`."""

    def __init__(self, name: str, owner: int | None = None) -> None:
        """Name the machine, for its owner, this process if no other is given, may have several."""
        self._id = f"{_PREFIX}{owner or os.getpid()}-{name}"
        self.directory = _BASE / self._id
        """Seen from outside and inside; `lib` below it is the machine's /var/lib, `log` its /var/log."""
        self.cgroup = f"/{self._id}"
        """Everything in control groups belongs below this one, in every hierarchy."""
        self._unshare: subprocess.Popen[bytes] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Boot; also removes what machines of test runs that were killed have left."""
        clean_up()
        for name in ("lib", "log", "etc"):
            (self.directory / name).mkdir(parents=True)
        self.boot()

    def boot(self) -> None:
        """Start with the files that are there: at first, or again after `cut_power`."""
        for hierarchy in _hierarchies():
            (hierarchy / self._id).mkdir()
        command = ["unshare", *_SPACES, "--mount-proc", "--fork", "--kill-child", sys.executable, "-S", "-c", _INIT]
        self._unshare = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._unshare.stdout
        assert self._unshare.stdout.readline(), "the namespaces could not be made: this needs root"
        self.run(["sh", "-c", _SETUP, "setup", self.directory, HOSTNAME, SERVICE_ADDRESS, ADDRESS])

    def cut_power(self) -> None:
        """Every process, mount and network interface is gone at once; files stay, except for those in /run."""
        if self._unshare:
            self._unshare.communicate()
            for process in self._processes:
                process.wait()
        self._processes.clear()
        _remove_cgroups(self._id)

    def stop(self) -> None:
        """Pull the plug, and remove every trace."""
        self.cut_power()
        _remove(self._id)

    @property
    def init(self) -> int:
        """The process 1 of the machine, as this process sees it."""
        assert self._unshare, "the machine is not running"
        return children(self._unshare.pid)[0]

    @property
    def root(self) -> Path:
        """The machine's files as its own processes see them, with its mounts."""
        return Path(f"/proc/{self.init}/root")

    def entering(self, command: Sequence[str | Path]) -> Sequence[str | Path]:
        """The command line that runs `command` in the machine."""
        return ["nsenter", "--target", str(self.init), *_SPACES, "--", *command]

    def run(self, command: Sequence[str | Path], *, stdin: str | None = None, timeout: float = 60) -> str:
        """Run a command to its end; what it printed.

        Raises:
            CommandFailed: it failed; the text has what it said.
        """
        result = self.attempt(command, stdin=stdin, timeout=timeout)
        if result.returncode:
            raise CommandFailed(f"{' '.join(map(str, command))}: {result.stdout}{result.stderr}")
        return result.stdout

    def attempt(
        self, command: Sequence[str | Path], *, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that may fail."""
        return subprocess.run(
            self.entering(command), input=stdin, capture_output=True, text=True, check=False, timeout=timeout
        )

    def spawn(self, command: Sequence[str | Path], log: IO[bytes]) -> int:
        """Start a process that goes on until it is killed or the machine stops; its pid."""
        process = subprocess.Popen(self.entering(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)
        end = time.monotonic() + 60
        while not (found := children(process.pid)):
            assert process.poll() is None, f"{command[0]} ended at once: see {log.name}"
            assert time.monotonic() < end, f"{command[0]} did not start"
            time.sleep(0.005)
        return found[0]

    def processes(self, words: str) -> list[int]:
        """The pids, as this process sees them, of processes in pods that have these words on their command line."""
        return [pid for pid in _pids() if self.cgroup in _about(pid, "cgroup") and words in _about(pid, "cmdline")]

    def kill(self, words: str) -> None:
        """Kill the processes in pods that have these words on their command line, as a crash would.

        Raises:
            AssertionError: there are none.
        """
        pids = self.processes(words)
        assert pids, f"nothing runs {words!r}"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


class CommandFailed(AssertionError):
    """A command in the machine failed."""


def children(pid: int) -> list[int]:
    """The child processes of `pid`; none when it has ended. A process that ends meanwhile may be missing."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def clean_up() -> None:
    """Remove what machines have left whose owners are gone."""
    left = {path.name for place in (_BASE, *_hierarchies()) for path in place.glob(f"{_PREFIX}*")}
    for name in left:
        owner = name.removeprefix(_PREFIX).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            _remove(name)


def _remove(name: str) -> None:
    """The files and the control groups of a machine that has stopped."""
    _remove_cgroups(name)
    if (_BASE / name).exists():
        shutil.rmtree(_BASE / name)


def _remove_cgroups(name: str) -> None:
    for hierarchy in _hierarchies():
        for directory, _, _ in os.walk(hierarchy / name, topdown=False):
            _remove_cgroup(Path(directory))


def _remove_cgroup(group: Path) -> None:
    """Processes that were killed leave their group a moment later."""
    end = time.monotonic() + 60
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _hierarchies() -> list[Path]:
    """The roots of control groups: one for each controller with version 1, a single one with version 2."""
    if (_CGROUPS / "cgroup.procs").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if not path.is_symlink() and (path / "cgroup.procs").exists()]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _about(pid: int, what: str) -> str:
    """A file of /proc/PID, with spaces for NULs; empty when the process has ended."""
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
