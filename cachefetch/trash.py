"""Deleting what the store renamed away, safely and in the background.

Files in the trash may share their inodes with golden trees and with pods. So nothing here changes a mode, an owner or a
time: files are unlinked, directories removed, symlinks never followed.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONG_PATH = 900  # characters, of up to 4 bytes: PATH_MAX is 4096, and a further name of 255 bytes must fit


def empty(trash: Path, stopping: Callable[[], bool] = lambda: False) -> int:
    """Delete everything in the directory `trash`; returns how many items that were. Others may be doing the same.

    Ends after the item at hand when `stopping` says so.

    Raises:
        OSError: the first of the items that could not be deleted; they stay for the next try, the others are gone.
    """
    failure: OSError | None = None
    done = 0
    fd = os.open(trash, _DIRECTORY)
    try:
        for item in trash.iterdir():
            if stopping():
                break
            try:
                remove(item.name, fd)
                done += 1
            except OSError as error:
                failure = failure or error
    finally:
        os.close(fd)
    if failure:
        raise failure
    return done


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
    """Unlink everything but directories in `path`; returns the directories, as paths from `parent`."""
    try:
        fd = os.open(path, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return []
    try:
        below = []
        with os.scandir(fd) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.name, dir_fd=fd)
                    elif len(path) > _LONG_PATH:
                        below.append(_lift(entry.name, fd, parent))
                    else:
                        below.append(f"{path}/{entry.name}")
        return below
    finally:
        os.close(fd)


def _lift(name: str, directory: int, parent: int) -> str:
    """Move a directory up to `parent`: pods can nest directories deeper than any path reaches."""
    lifted = secrets.token_hex(8)
    os.rename(name, lifted, src_dir_fd=directory, dst_dir_fd=parent)
    return lifted
