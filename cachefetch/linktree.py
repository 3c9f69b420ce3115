"""The link engine: a directory tree of its own whose files are hardlinks to a golden tree.

Costs 3 to 4 microseconds a file, as much as `cp -al`: one link(2) a file and a handful of calls a directory, relative
to open directories, in one thread (a second one gains little, because link(2) takes the directory's lock).

A hardlink is not always possible. Only the errors in `FALLBACK` may fall back, to a reflink and then to a copy;
anything else is a real failure. What was used instead, how often and why is reported, never silent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cachefetch.model import LinkMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_CHUNK = 1 << 24
_BLOCK = 512  # unit of st_blocks (stat(2))

FALLBACK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS})
"""Errors after which another link mode is tried: the file system says that this mode is not to be had here."""
_THIS_FILE_ONLY = frozenset({errno.EMLINK, errno.EPERM})
"""Of these, the ones that say something of one file: too many links (ext4: 65,000), or an immutable inode."""
_MODES = tuple(LinkMode)


@dataclass
class LinkReport:
    """What the link engine did."""

    modes: Counter[LinkMode] = field(default_factory=Counter)
    """Files and symlinks by how they got there."""
    directories: int = 0
    own_bytes: int = 0
    """Disk space of the directories and size of the copies: what the tree costs beyond the golden one."""
    fallbacks: Counter[tuple[LinkMode, str]] = field(default_factory=Counter)
    """How often a mode was refused, by the name of the error."""

    @property
    def files(self) -> int:
        """Files and symlinks together."""
        return self.modes.total()

    @property
    def own_inodes(self) -> int:
        """Inodes that the tree does not share with the golden one."""
        return self.directories + self.files - self.modes[LinkMode.HARDLINK]

    @property
    def mode(self) -> LinkMode:
        """The least of the modes that were used: what a user should know about the tree."""
        return max(self.modes, key=_MODES.index, default=LinkMode.HARDLINK)

    def __str__(self) -> str:
        """One line for people: `3000 hardlink, 2 copy (hardlink refused: EMLINK 2x)`."""
        used = ", ".join(f"{count} {mode}" for mode, count in sorted(self.modes.items(), key=lambda item: item[0]))
        why = ", ".join(f"{mode} refused: {cause} {count}x" for (mode, cause), count in self.fallbacks.items())
        return f"{used or 'no files'}{f' ({why})' if why else ''}"


class Way(Protocol):
    """One way of bringing a file (or symlink) into another directory."""

    def __call__(self, name: str | bytes, source_fd: int, new_name: str | bytes, dest_fd: int, /) -> None:
        """Make `new_name` in `dest_fd` from `name` in `source_fd`, or raise OSError and leave nothing."""
        ...


class Linker:
    """Brings files into another directory by the cheapest mode there is, and remembers what it had to use."""

    def __init__(self, ways: Mapping[LinkMode, Way] | None = None) -> None:
        """Use `ways` in place of the calls of the kernel, for example those of a file system that has less."""
        self.report = LinkReport()
        self._ways = ways or _WAYS
        self._first = 0  # index of the first mode that is still worth a try

    def link(self, name: str | bytes, source_fd: int, new_name: str | bytes, dest_fd: int) -> LinkMode:
        """Make `new_name` in the directory `dest_fd` the same file (or symlink) as `name` in `source_fd`.

        Raises:
            OSError: any error that may not fall back, and the error of the last mode.
        """
        for position in range(self._first, len(_MODES)):
            mode = _MODES[position]
            try:
                self._ways[mode](name, source_fd, new_name, dest_fd)
            except OSError as error:
                if error.errno not in FALLBACK or mode is _MODES[-1]:
                    raise
                self.report.fallbacks[mode, errno.errorcode[error.errno]] += 1
                if error.errno not in _THIS_FILE_ONLY and position == self._first:
                    self._first += 1
            else:
                self.report.modes[mode] += 1
                if mode is LinkMode.COPY:
                    self.report.own_bytes += os.stat(new_name, dir_fd=dest_fd, follow_symlinks=False).st_size
                return mode
        raise AssertionError("the last mode returns or raises")


def link_tree(source: Path, dest: Path) -> LinkReport:
    """Make `dest`, a new directory, a link tree of the directory `source`; directories keep mode and mtime.

    Raises:
        FileExistsError: `dest` exists.
        OSError: linking failed; what was made so far is left for the caller to remove.
    """
    linker = Linker()
    dest.mkdir(mode=0o700)
    source_root = os.open(source, _DIRECTORY)
    try:
        dest_root = os.open(dest, _DIRECTORY)
        try:
            pending = ["."]
            while pending:
                pending += _link_directory(pending.pop(), source_root, dest_root, linker)
        finally:
            os.close(dest_root)
    finally:
        os.close(source_root)
    return linker.report


def _link_directory(path: str, source_root: int, dest_root: int, linker: Linker) -> list[str]:
    """Fill one directory of the link tree; returns its subdirectories, which exist but are empty."""
    source_fd = os.open(path, _DIRECTORY, dir_fd=source_root)
    try:
        dest_fd = os.open(path, _DIRECTORY, dir_fd=dest_root)
        try:
            found = []
            link = linker.link
            with os.scandir(source_fd) as entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_dir(follow_symlinks=False):
                        os.mkdir(name, 0o700, dir_fd=dest_fd)
                        found.append(f"{path}/{name}")
                    else:
                        link(name, source_fd, name, dest_fd)
            # The names are complete, so this mtime stays: what is made in subdirectories does not touch it.
            status = os.fstat(source_fd)
            os.fchmod(dest_fd, status.st_mode & 0o777)
            os.utime(dest_fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            linker.report.directories += 1
            linker.report.own_bytes += os.fstat(dest_fd).st_blocks * _BLOCK
            return found
        finally:
            os.close(dest_fd)
    finally:
        os.close(source_fd)


def _hardlink(name: str | bytes, source_fd: int, new_name: str | bytes, dest_fd: int) -> None:
    # Without following: linkat(2) then links a symlink itself, with its mtime and without an inode of its own.
    os.link(name, new_name, src_dir_fd=source_fd, dst_dir_fd=dest_fd, follow_symlinks=False)


def _reflink(name: str | bytes, source_fd: int, new_name: str | bytes, dest_fd: int) -> None:
    _duplicate(name, source_fd, new_name, dest_fd, _clone_content)


def _copy(name: str | bytes, source_fd: int, new_name: str | bytes, dest_fd: int) -> None:
    _duplicate(name, source_fd, new_name, dest_fd, _copy_content)


def _duplicate(
    name: str | bytes, source_fd: int, new_name: str | bytes, dest_fd: int, fill: Callable[[int, int], None]
) -> None:
    """A new inode with content, mode and mtime of the old one; nothing is left when that fails."""
    status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(os.fsencode(name), dir_fd=source_fd), os.fsencode(new_name), dir_fd=dest_fd)
        os.utime(new_name, ns=times, dir_fd=dest_fd, follow_symlinks=False)
        return
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd)
    try:
        dest = os.open(new_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dest_fd)
        try:
            fill(source, dest)
            os.fchmod(dest, status.st_mode & 0o777)
            os.utime(dest, ns=times)
        except BaseException:
            os.unlink(new_name, dir_fd=dest_fd)
            raise
        finally:
            os.close(dest)
    finally:
        os.close(source)


def _clone_content(source: int, dest: int) -> None:
    try:
        fcntl.ioctl(dest, _FICLONE, source)
    except OSError as error:
        # A file system that knows FICLONE but not for this pair says EINVAL (ioctl_ficlone(2)).
        if error.errno == errno.EINVAL:
            raise OSError(errno.EOPNOTSUPP, "no reflink between these files") from error
        raise


def _copy_content(source: int, dest: int) -> None:
    while os.sendfile(dest, source, None, _COPY_CHUNK):
        pass


_WAYS: Mapping[LinkMode, Way] = {LinkMode.HARDLINK: _hardlink, LinkMode.REFLINK: _reflink, LinkMode.COPY: _copy}
