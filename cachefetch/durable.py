"""Writes that survive a power cut, and locks that survive nothing: the two file-system habits of the store.

A durable write is: a unique temporary name beside the target, fsync, rename, fsync of the directory. A whole tree is
made durable by one syncfs(2) before the rename that publishes it, because an fsync for each of 100,000 files costs
minutes. Locks are flock(2) on files that are never unlinked: the kernel drops them with the process, so no lock
outlives a crash.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cachefetch.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


def sync_directory(path: Path) -> None:
    """Make the names in the directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: Path) -> None:
    """Make everything written to the file system of `path` durable: syncfs(2), which also reports write errors."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)


def replace(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` so that a reader sees the old or the new content, never a part.

    With `durable` the new content also survives a power cut; without, only a crash of the process.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def point(link: Path, target: str) -> None:
    """Let the symlink `link` say `target`, atomically and durably."""
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(8)}")
    temporary.symlink_to(target)
    try:
        temporary.rename(link)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(link.parent)


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock file `path` together with other sharers; waits for an exclusive holder."""
    fd = _open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


@contextmanager
def exclusive(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path` alone.

    Raises:
        Busy: with the text `busy`, when anybody else holds it.
    """
    fd = _open_lock(path)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(busy) from error
        yield
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
