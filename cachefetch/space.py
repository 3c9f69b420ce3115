"""How much disk space a deletion gives back, when files share their inodes with trees that stay."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 512  # unit of st_blocks (stat(2))


def reclaimable(root: Path) -> int:
    """Bytes that are free again once everything below the directory `root` is deleted.

    A file counts when all of its links are below `root`. What disappears meanwhile, because somebody else deletes it
    already, counts as far as it was seen.
    """
    found = 0
    seen: dict[tuple[int, int], int] = {}
    for status in _walk(root):
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            seen[inode] = seen.get(inode, 0) + 1
            if seen[inode] < status.st_nlink:
                continue
            del seen[inode]
        found += status.st_blocks * _BLOCK
    return found


def _walk(root: Path) -> Iterator[os.stat_result]:
    """Every entry below `root`, without following symlinks."""
    pending = [os.fspath(root)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = _stat(entry)
                    if status is None:
                        continue
                    yield status
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
        except FileNotFoundError:
            continue


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
