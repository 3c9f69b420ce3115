"""Measured times and what is said of them."""

from __future__ import annotations

import statistics
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Row = dict[str, str | int | float]
"""One line of a table: what was measured under which circumstances."""

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
PAGES, OBJECTS, BOTH = 1, 2, 3
"""What `drop_caches` forgets: file contents; dentries and inodes; both (proc(5))."""


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Append the seconds that the body took."""
    started = time.perf_counter()
    yield
    into.append(time.perf_counter() - started)


def quantile(seconds: Sequence[float], share: float) -> float:
    """The smallest of the times that so large a share of them does not exceed (nearest rank)."""
    ordered = sorted(seconds)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def summary(seconds: Sequence[float]) -> Row:
    """Median, 99th percentile and extremes in milliseconds, and how many there were."""
    return {
        "p50_ms": round(statistics.median(seconds) * 1000, 4),
        "p99_ms": round(quantile(seconds, 0.99) * 1000, 4),
        "min_ms": round(min(seconds) * 1000, 4),
        "max_ms": round(max(seconds) * 1000, 4),
        "count": len(seconds),
    }


def drop_caches(what: int) -> None:
    """Let the kernel forget what it keeps in memory of files, except for what is dirty: see sync(2)."""
    _DROP_CACHES.write_text(str(what))


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> float:
    """Seconds that the command took; its output matters only when it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stdout[-2000:]}")
    return seconds


def spread(directory: Path) -> None:
    """Have each directory that is made in this one begin in another part of the disk, where the file system can.

    For minutes ext4 gives no inode anew that was just freed, and searches past all of those (fs/ext4/ialloc.c,
    recently_deleted): where a hundred thousand files were deleted, each creat(2) takes ten times as long. So what one
    way of delivery has deleted would be charged to the next.
    """
    subprocess.run(["chattr", "+T", directory], check=False, stderr=subprocess.DEVNULL)


def shell(script: str, *arguments: str | Path) -> float:
    """Seconds that the script took, with its arguments as $1, $2 and so on."""
    return run("bash", "-euo", "pipefail", "-c", script, "bench", *arguments)
