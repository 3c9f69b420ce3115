"""The long file work of a driver, done by a child process that gives way to everybody.

Making or deleting a tree of 100,000 files keeps a thread busy for a second. In the driver's own process every one of
those system calls would take part in the struggle for Python's global lock that short calls then lose; and a thread
of low priority that holds the lock would stop all others. So a child does it, at the lowest CPU and I/O priority, and
ends.

    python -m cachefetch.background PARENT link SOURCE DEST     prints its report as JSON
    python -m cachefetch.background PARENT empty TRASH
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch.errors import GoldlinkError
from cachefetch.linktree import LinkReport, link_tree
from cachefetch.model import LinkMode
from cachefetch.trash import empty

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # system call numbers; glibc has no wrapper (ioprio_set(2))
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LOWEST = 19
_POLL = 0.02


class BackgroundFailed(GoldlinkError):
    """The child did not finish its work; what it left half-made is for the caller to discard."""


class BackgroundStopped(BackgroundFailed):
    """The driver stops, so the child was ended; the next start begins anew."""


class Background:
    """Runs children one at a time for each caller, and ends them when the driver stops."""

    def __init__(self, stopping: threading.Event) -> None:
        """Children are ended once `stopping` is set."""
        self._stopping = stopping

    def link(self, source: Path, dest: Path) -> LinkReport:
        """As `linktree.link_tree`.

        Raises:
            BackgroundFailed: it failed.
            BackgroundStopped: the driver stops.
        """
        return decode_report(self._run("link", source, dest))

    def empty(self, trash: Path) -> None:
        """As `trash.empty`.

        Raises:
            BackgroundFailed: it failed.
            BackgroundStopped: the driver stops.
        """
        self._run("empty", trash)

    def _run(self, *words: str | Path) -> str:
        command = [sys.executable, "-m", "cachefetch.background", str(os.getpid()), *map(str, words)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own
        while True:
            try:
                output, errors = child.communicate(timeout=_POLL)
                break
            except subprocess.TimeoutExpired:
                if self._stopping.is_set():
                    child.kill()
        if child.returncode != 0:
            if self._stopping.is_set():
                raise BackgroundStopped(f"{words[0]} of {words[1]} did not finish: the driver stops")
            raise BackgroundFailed(f"{words[0]} of {words[1]} did not finish: {errors.strip().rpartition(chr(10))[2]}")
        return output


def encode_report(report: LinkReport) -> str:
    """The report as JSON; `decode_report` is its inverse."""
    return json.dumps({
        "modes": report.modes,
        "directories": report.directories,
        "own_bytes": report.own_bytes,
        "fallbacks": [[mode, cause, count] for (mode, cause), count in report.fallbacks.items()],
    })  # fmt: skip


def decode_report(text: str) -> LinkReport:
    """The report that `encode_report` wrote."""
    data = json.loads(text)
    return LinkReport(
        modes=Counter({LinkMode(mode): count for mode, count in data["modes"].items()}),
        directories=data["directories"],
        own_bytes=data["own_bytes"],
        fallbacks=Counter({(LinkMode(mode), cause): count for mode, cause, count in data["fallbacks"]}),
    )


def main(arguments: Sequence[str]) -> int:
    """What the child does."""
    os.umask(0o022)
    give_way()
    match arguments:
        case [parent, "link", source, dest]:
            end_with(int(parent))
            print(encode_report(link_tree(Path(source), Path(dest))))  # noqa: T201 - the answer to the parent
        case [parent, "empty", trash]:
            end_with(int(parent))
            empty(Path(trash))
        case _:
            return 2
    return 0


def end_with(parent: int) -> None:
    """Be killed when the process `parent` dies, so that no orphan writes into what a restarted driver cleans up."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os.kill(os.getpid(), signal.SIGKILL)


def give_way() -> None:
    """Take the lowest CPU priority and the idle I/O class, where there is one."""
    os.nice(_LOWEST)
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
