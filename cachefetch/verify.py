"""Does a golden tree still equal its manifest? Names every path that does not.

The quick check compares names, types, sizes, modes, owners and times, without reading a file: enough after a power
cut. The full one also reads and hashes everything: enough after a suspicion.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from cachefetch import manifest
from cachefetch.errors import DataError
from cachefetch.model import Entry, EntryType, golden_owner, normal_mode, short_id
from cachefetch.paths import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cachefetch.store import Store

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TYPES = {EntryType.FILE: stat.S_IFREG, EntryType.DIRECTORY: stat.S_IFDIR, EntryType.SYMLINK: stat.S_IFLNK}


class Damage(NamedTuple):
    """One path that is not as the manifest says."""

    path: bytes
    what: str

    def __str__(self) -> str:
        """For people."""
        return f"{show(self.path)}: {self.what}"


def verify(
    store: Store,
    cache: str,
    version_id: str,
    *,
    content: bool = True,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> Iterator[Damage]:
    """Every difference between the golden tree and its manifest; none means that it is as published.

    The caller pins the cache. With `content` every byte is read and hashed, without only what stat(2) tells is
    compared.
    """
    path = store.manifest(cache, version_id)
    try:
        if manifest.digest(path) != version_id:
            yield Damage(
                b"", f"the manifest of {cache}@{short_id(version_id)} is not the one that gave the version its name"
            )
            return
        tree = os.open(store.tree(cache, version_id), _DIRECTORY)
    except FileNotFoundError as error:
        yield Damage(b"", f"{error.filename} is missing")
        return
    try:
        if found := _root_difference(tree):
            yield Damage(b".", found)
        seen = 0
        for entry in manifest.read(path):
            found = difference(entry, tree)
            seen += found != _MISSING
            if not found and content and entry.type is EntryType.FILE:
                found = _content_difference(entry, tree, on_bytes)
            if found:
                yield Damage(entry.path, found)
        if _count(tree) != seen:
            yield from _extras(path, tree)
    except DataError as error:
        yield Damage(b"", str(error))
    finally:
        os.close(tree)


_MISSING = "is missing"
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # itself, or what is above it is no directory any more


def difference(entry: Entry, tree: int) -> str:
    """What is not as `entry` says in the open directory `tree`, as far as stat(2) tells; empty when nothing."""
    try:
        status = os.stat(entry.path, dir_fd=tree, follow_symlinks=False)
    except OSError as error:
        return _MISSING if error.errno in _ABSENT else f"cannot be read: {error.strerror}"
    found = _status_difference(entry, status)
    if not found and entry.type is EntryType.SYMLINK and os.readlink(entry.path, dir_fd=tree) != entry.target:
        return "points elsewhere"
    return found


def _root_difference(tree: int) -> str:
    """The root of the tree has no line in the manifest, but it is the first thing that a pod opens."""
    status = os.fstat(tree)
    mode = normal_mode(EntryType.DIRECTORY, 0)
    return _status_difference(Entry(b".", EntryType.DIRECTORY, mode, status.st_mtime_ns), status)


def _status_difference(entry: Entry, status: os.stat_result) -> str:
    if stat.S_IFMT(status.st_mode) != _TYPES[entry.type]:
        return f"is a {stat.filemode(status.st_mode)[0]!r}, not a {entry.type.name.lower()}"
    if entry.type is not EntryType.SYMLINK and stat.S_IMODE(status.st_mode) != entry.mode:
        return f"has mode {stat.S_IMODE(status.st_mode):04o}, not {entry.mode:04o}"
    if (status.st_uid, status.st_gid) != (owner := golden_owner()):
        return f"belongs to {status.st_uid}:{status.st_gid}, not to {owner[0]}:{owner[1]}"
    if status.st_mtime_ns != entry.mtime_ns:
        return f"has mtime {status.st_mtime_ns} ns, not {entry.mtime_ns}"
    if entry.type is EntryType.FILE and status.st_size != entry.size:
        return f"has {status.st_size} bytes, not {entry.size}"
    return ""


def _content_difference(entry: Entry, tree: int, on_bytes: Callable[[int], None]) -> str:
    try:
        fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree)
        with os.fdopen(fd, "rb", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    on_bytes(entry.size)
    return "" if digest == entry.digest else f"has content sha256:{digest}, not sha256:{entry.digest}"


def _walk(tree: int, path: bytes = b".") -> Iterator[bytes]:
    """Every path below, relative to the tree."""
    pending = [path]
    while pending:
        directory = pending.pop()
        fd = os.open(directory, _DIRECTORY, dir_fd=tree)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    below = directory + b"/" + os.fsencode(entry.name)
                    yield below[2:]
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(below)
        finally:
            os.close(fd)


def _count(tree: int) -> int:
    return sum(1 for _ in _walk(tree))


def _extras(path: Path, tree: int) -> Iterator[Damage]:
    expected = {entry.path for entry in manifest.read(path)}  # in memory: only for a tree that is damaged anyway
    for found in _walk(tree):
        if found not in expected:
            yield Damage(found, "is not in the manifest")
