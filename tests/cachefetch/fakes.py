"""A source from memory that can misbehave, and what is always true of a store, whatever a test did to it."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cachefetch.config import Cache, Directory
from cachefetch.errors import SourceError
from cachefetch.units import Size
from cachefetch.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from cachefetch.model import Version
    from cachefetch.sources.base import Known
    from cachefetch.stage import Stage
    from cachefetch.store import Store

MTIME = 1_700_000_000_123_456_789
CACHE = "deps"


@dataclass(frozen=True)
class File:
    """A file that a source delivers."""

    path: bytes
    content: bytes = b""
    mode: int = 0o644
    mtime_ns: int = MTIME
    token: bytes = b""
    size: int | None = None
    digest: str | None = None

    def put(self, stage: Stage) -> None:
        """Keep it if the source knows it to be unchanged, else deliver it."""
        if not stage.keep(self.path, self.mode, self.mtime_ns, self.token):
            content = io.BytesIO(self.content)
            stage.file(
                self.path, self.mode, self.mtime_ns, content, size=self.size, digest=self.digest, token=self.token
            )


@dataclass(frozen=True)
class Dir:
    """A directory that a source delivers."""

    path: bytes
    mtime_ns: int = MTIME

    def put(self, stage: Stage) -> None:
        stage.directory(self.path, self.mtime_ns)


@dataclass(frozen=True)
class Link:
    """A symlink that a source delivers."""

    path: bytes
    target: bytes
    mtime_ns: int = MTIME

    def put(self, stage: Stage) -> None:
        stage.symlink(self.path, self.target, self.mtime_ns)


Item = File | Dir | Link


@dataclass
class MemorySnapshot:
    """What a MemorySource holds at one moment."""

    items: Sequence[Item]
    size: int | None
    meta: dict[str, str]
    fail_at: int | None
    error: Exception

    def fill(self, stage: Stage) -> None:
        for number, item in enumerate(self.items):
            if number == self.fail_at:
                raise self.error
            item.put(stage)
        if self.fail_at is not None and self.fail_at >= len(self.items):
            raise self.error


@dataclass
class MemorySource:
    """A source whose revision is the digest of all its items."""

    items: Sequence[Item] = ()
    size: int | None = None
    """What it announces."""
    fail_at: int | None = None
    """Raise `error` before delivering the item of this number; beyond the last one: at the end."""
    fail_resolve: bool = False
    error: Exception = field(default_factory=lambda: SourceError("the origin went away"))
    known: list[str | None] = field(default_factory=list)
    """The revision that each `resolve` was told to be known."""

    @property
    def revision(self) -> str:
        return hashlib.sha256(repr(self.items).encode()).hexdigest()

    def resolve(self, known: Known | None) -> MemorySnapshot | None:
        self.known.append(known.meta["revision"] if known else None)
        if self.fail_resolve:
            raise self.error
        if known is not None and known.meta["revision"] == self.revision:
            return None
        return MemorySnapshot(self.items, self.size, {"revision": self.revision}, self.fail_at, self.error)


def memory() -> TemporaryDirectory[str]:
    """A directory for the many stores of a property test, in memory: each publish waits for the disk otherwise."""
    return TemporaryDirectory(dir="/dev/shm")


def declared(name: str = CACHE, *, path: str = "/srv", max_bytes: int | None = None) -> Cache:
    """The declaration of a cache; what its source is matters to its identity only."""
    return Cache(name=name, source=Directory(path=path), max_bytes=None if max_bytes is None else Size(max_bytes))


def publish(store: Store, items: Iterable[Item], cache: str = CACHE) -> Version:
    """Publish a version with these items, and make it current."""
    with store.refreshing(cache), store.stage(cache, "test") as stage:
        for item in items:
            item.put(stage)
        return store.publish(cache, stage.seal(), stage.index, {"revision": "", "source": "test"})


def picture(root: Path) -> dict[str, tuple[int, int, int, int]]:
    """Every path below `root` but lock files, with what changes when anybody touches it: inode, mtime, ctime, size."""
    found = {}
    for directory, _, files in os.walk(root):
        for path in (directory, *(os.path.join(directory, name) for name in files)):  # noqa: PTH118  (names from walk)
            if f"{root}/locks" not in path:
                status = os.lstat(path)
                found[path] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    return found


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the file, which is made when missing, to read and write."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def below(root: Path) -> set[str]:
    """Every path below `root`, relative. Not by glob, which follows symlinks to see what they lead to."""
    found = set()
    for directory, directories, files in os.walk(root):
        found |= {os.path.relpath(f"{directory}/{name}", root) for name in (*directories, *files)}
    return found


def held_locks(root: Path) -> list[str]:
    """Lock files that somebody holds."""
    held = []
    for path in (root / "locks").iterdir():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path.name)
    return held


def check_store(store: Store) -> None:
    """What always holds: current is a version, every version equals its manifest, nothing is half-made or locked."""
    for cache in store.caches():
        current = store.current(cache)
        assert current is None or store.has(cache, current)
        for version in store.versions(cache):
            assert list(verify(store, cache, version.id)) == [], version.id
        left = {path.name for path in (store.root / "caches" / cache).glob("*")}
        assert left <= {"versions", "current", "origin.db"}
    for place in (store.root / "staging").glob("*/*"):
        assert place.name not in {"new", "origin.db"}, "a stage is left behind"
    assert held_locks(store.root) == []
