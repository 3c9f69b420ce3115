"""The `directory` source: a directory tree of the machine that fetches, for example a shared file system.

Whether a file changed is told by its mode, size, times, inode and device. Size and mtime alone do not tell:
reproducible builds give every file the same mtime. The change time cannot be set by a program, so it betrays an edit
that kept both. All tokens of a tree are summed up into one fingerprint, so finding out that nothing changed reads no
file.

The tree may be in use while it is read. What comes out is one state of it: a file that changes while it is read, and
anything that changes between the first and the last look, is an error (`SourceChanged`), never a mixture.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from cachefetch.errors import SourceError, UnsafeEntry
from cachefetch.growing import write_back
from cachefetch.paths import show
from cachefetch.sources.base import SourceChanged

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from io import RawIOBase

    from cachefetch.config import Directory
    from cachefetch.sources.base import Known
    from cachefetch.stage import Stage

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEPTH_MAX = 256
"""Each level of the walk holds one file descriptor, and 1024 are usual."""
_RACY_NS = 1_000_000_000
"""A change time may be this coarse on network file systems: what changed so recently may change again unseen."""
_REFUSED = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


class Found(NamedTuple):
    """One entry of the walk."""

    path: bytes
    status: os.stat_result
    parent: int
    """Open directory that holds it, valid until the walk goes on."""
    name: bytes
    target: bytes
    """Text of a symlink, empty otherwise."""
    token: bytes
    """Proves that nothing changed at this path."""


class Fingerprint:
    """Sums up a walk. The order does not matter, because a file system may list a directory in any."""

    def __init__(self, since: int = 0) -> None:
        """Count the bytes of files that changed at the time `since` (ns) or later."""
        self._since = since
        self._sum = 0
        self._newest = 0
        self.newest_path = b""
        self.bytes = 0

    def add(self, found: Found) -> None:
        """One entry more."""
        line = b"%d %b %b" % (len(found.path), found.path, found.token)
        self._sum += int.from_bytes(hashlib.sha256(line).digest(), "big")
        if found.status.st_ctime_ns > self._newest:
            self._newest, self.newest_path = found.status.st_ctime_ns, found.path
        if found.status.st_ctime_ns >= self._since and stat.S_ISREG(found.status.st_mode):
            self.bytes += found.status.st_size

    @property
    def value(self) -> str:
        """Equal for equal trees."""
        return f"{self._sum % (1 << 256):064x}"

    def settled(self, now_ns: int) -> bool:
        """Whether every change is so old that a later one would have another time."""
        return self._newest < now_ns - _RACY_NS


class DirectorySource:
    """A directory tree; its root may be a symlink, below it none is followed."""

    def __init__(self, config: Directory) -> None:
        self._root = os.fsencode(config.path)

    def resolve(self, known: Known | None) -> DirectorySnapshot | None:
        """What the directory holds now. Reads no file.

        Raises:
            SourceError: it is missing or cannot be read.
            SourceChanged: it changed while it was walked.
            UnsafeEntry: it holds a device, a socket or a FIFO.
        """
        since = 0 if known is None else int(known.meta.get("read", 0))
        fingerprint = Fingerprint(since)
        for found in walk(self._root):
            fingerprint.add(found)
        if known is not None and known.meta.get("fingerprint") == fingerprint.value:
            return None
        return DirectorySnapshot(self._root, fingerprint.bytes)


class DirectorySnapshot:
    """The tree as it is when it is filled in; `size` counts the files that changed since it was read last.

    Those below a directory that was only renamed are not among them, although they are read again: finding them would
    cost a look-up for every file.
    """

    def __init__(self, root: bytes, size: int) -> None:
        self._root = root
        self.size = size
        self.meta: dict[str, str] = {}

    def fill(self, stage: Stage) -> None:
        """Stage the tree: keep the files whose token is known, read the others.

        Raises:
            SourceChanged: something changed meanwhile; names the path.
            SourceError: something cannot be read; names the path.
        """
        started = time.time_ns()
        staged, after = Fingerprint(), Fingerprint()
        with closing(walk(self._root)) as tree:  # an exception must not keep its directories open
            for found in tree:
                staged.add(found)
                _stage_entry(self._root, found, stage, started)
        for found in walk(self._root):
            after.add(found)
        if after.value != staged.value:
            raise _changed(self._root, after.newest_path)
        self.meta = {"read": str(started - _RACY_NS)}
        if staged.settled(started):
            self.meta["fingerprint"] = staged.value


def walk(root: bytes) -> Generator[Found]:
    """Every entry below `root`, a directory before what it holds. Memory: the names of directories on the way down.

    Raises:
        SourceError, SourceChanged, UnsafeEntry: as `DirectorySource.resolve`.
    """
    try:
        top = os.open(root, _DIRECTORY)
    except OSError as error:
        raise SourceError(
            f"directory {show(root)} cannot be read ({error.strerror}): create or mount it where the fetcher runs"
        ) from error
    try:
        yield from _walk(root, top, b"", 0)
    finally:
        os.close(top)


def _walk(root: bytes, fd: int, prefix: bytes, depth: int) -> Iterator[Found]:
    if depth > _DEPTH_MAX:
        raise SourceError(f"directory {show(prefix)} is deeper than {_DEPTH_MAX} levels: flatten the source")
    directories: list[bytes] = []
    for found in _list(root, fd, prefix):
        if stat.S_ISDIR(found.status.st_mode):
            directories.append(found.name)
        yield found
    for name in directories:
        try:
            child = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        except OSError as error:
            raise _unreadable(root, prefix + name, error) from error
        try:
            yield from _walk(root, child, prefix + name + b"/", depth + 1)
        finally:
            os.close(child)


def _list(root: bytes, fd: int, prefix: bytes) -> Iterator[Found]:
    """The entries of one directory."""
    before = os.fstat(fd)
    try:
        with os.scandir(fd) as listing:
            for item in listing:
                name = os.fsencode(item.name)
                yield _look(root, fd, name, prefix + name)
    except OSError as error:
        raise _unreadable(root, prefix, error) from error
    after = os.fstat(fd)
    if (before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns):
        raise _changed(root, prefix)


def _look(root: bytes, parent: int, name: bytes, path: bytes) -> Found:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        target = os.fsencode(os.readlink(name, dir_fd=parent)) if kind == stat.S_IFLNK else b""
    except OSError as error:
        raise _unreadable(root, path, error) from error
    if kind in _REFUSED:
        raise UnsafeEntry(f"entry {show(path)} is {_REFUSED[kind]}: remove it from the source, a cache cannot hold it")
    return Found(path, status, parent, name, target, _token(status, target))


def _stage_entry(root: bytes, found: Found, stage: Stage, started_ns: int) -> None:
    mtime = found.status.st_mtime_ns
    if stat.S_ISDIR(found.status.st_mode):
        stage.directory(found.path, mtime)
    elif stat.S_ISLNK(found.status.st_mode):
        stage.symlink(found.path, found.target, mtime)
    elif not stage.keep(found.path, found.status.st_mode, mtime, found.token):
        _stage_file(root, found, stage, started_ns)


def _stage_file(root: bytes, found: Found, stage: Stage, started_ns: int) -> None:
    """Read one file; it must be the same before and after as it was when it was listed."""
    try:
        fd = os.open(found.name, _FILE, dir_fd=found.parent)
    except OSError as error:
        raise _unreadable(root, found.path, error) from error
    with os.fdopen(fd, "rb", buffering=0) as file:
        # What changed a moment ago may change again within the same tick: such a file is read again next time.
        token = found.token if found.status.st_ctime_ns < started_ns - _RACY_NS else b""
        _clean(root, found, file)
        stage.file(found.path, found.status.st_mode, found.status.st_mtime_ns, _Content(root, found, file), token=token)
        if _token(os.fstat(fd), b"") != found.token:
            raise _changed(root, found.path)


def _clean(root: bytes, found: Found, file: RawIOBase) -> None:
    """Let the times tell of everything that is written from now on.

    A store through a memory map changes the times of its file only when the page was clean (mmap(2), MAP_SHARED).
    """
    try:
        write_back(file.fileno())
    except OSError as error:
        raise _unreadable(root, found.path, error) from error


class _Content:
    """The bytes of a file, no more than it had when it was listed: one that grows for ever comes to an end."""

    def __init__(self, root: bytes, found: Found, file: RawIOBase) -> None:
        self._root = root
        self._found = found
        self._file = file
        self._left = found.status.st_size

    def read(self, size: int, /) -> bytes:
        try:
            chunk = self._file.read(min(size, self._left)) or b""
        except OSError as error:
            raise _unreadable(self._root, self._found.path, error) from error
        self._left -= len(chunk)
        return chunk


def _token(status: os.stat_result, target: bytes) -> bytes:
    """Directories say their type and mtime only: everything else about them shows in what they hold."""
    if stat.S_ISDIR(status.st_mode):
        return b"d %d" % status.st_mtime_ns
    return b"%o %d %d %d %d %d %b" % (
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
        target,
    )


def _changed(root: bytes, path: bytes) -> SourceChanged:
    return SourceChanged(
        f"{show(path or b'.')} of directory {show(root)} changed while it was read: "
        "let writers finish first, or give the cache a copy that is replaced as a whole"
    )


def _unreadable(root: bytes, path: bytes, error: OSError) -> SourceError:
    """What to do about an error of the file system; an entry that is gone or replaced by another type changed."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
        return _changed(root, path)
    return SourceError(
        f"{show(path or b'.')} of directory {show(root)} cannot be read ({error.strerror}): "
        "check its permissions and its file system"
    )
