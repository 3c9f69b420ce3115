"""Deleting what the store renamed away, safely and in the background.

Files in the trash may share their inodes with golden trees and with pods. So nothing here changes a mode, an owner or a
time: files are unlinked, directories removed, symlinks never followed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def empty(trash: Path, stopping: Callable[[], bool] = lambda: False) -> int:
    """Delete everything in the directory `trash`; returns how many items that were. Others may be doing the same.

    Ends after the item at hand when `stopping` says so.

    Raises:
        OSError: something could not be deleted; it stays for the next try.
    """
    fd = os.open(trash, _DIRECTORY)
    try:
        done = 0
        for item in trash.iterdir():
            if stopping():
                break
            remove(item.name, fd)
            done += 1
        return done
    finally:
        os.close(fd)


def remove(name: str, parent: int) -> None:
    """Delete `name` in the open directory `parent`, with everything below it; absent is fine."""
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        _remove_directory(name, parent)
    except FileNotFoundError:
        pass


def _remove_directory(name: str, parent: int) -> None:
    """Depth first with an explicit stack, so that a deep tree exhausts neither the stack nor the file descriptors."""
    pending = [name]
    while pending:
        path = pending[-1]
        below = _unlink_files(path, parent)
        if below:
            pending += below
            continue
        pending.pop()
        with suppress(FileNotFoundError):  # another process empties the trash, too
            os.rmdir(path, dir_fd=parent)


def _unlink_files(path: str, parent: int) -> list[str]:
    """Unlink everything but directories in `path`; returns the directories."""
    try:
        fd = os.open(path, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return []
    try:
        below = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(f"{path}/{entry.name}")
                    continue
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=fd)
        return below
    finally:
        os.close(fd)
