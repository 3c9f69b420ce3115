from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from cachefetch import trash
from cachefetch.errors import Busy, DataError, GoldlinkError, OutOfSpace, SourceError, UnsafeEntry
from cachefetch.model import LinkMode
from cachefetch.progress import Silent
from cachefetch.refresh import identify, refresh
from cachefetch.store import Store
from tests.cachefetch.fakes import (
    CACHE,
    Dir,
    File,
    Link,
    MemorySource,
    below,
    check_store,
    declared,
    held_locks,
    picture,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachefetch.config import Cache
    from cachefetch.refresh import Refreshed
    from tests.cachefetch.fakes import Item

ONE: list[Item] = [
    File(b"a", b"1", token=b"1"), Dir(b"d"), File(b"d/b", b"22", 0o755, token=b"2"), Link(b"d/l", b"b"), File(b"e"),
]  # fmt: skip
TWO: list[Item] = [File(b"a", b"changed", token=b"3"), *ONE[1:]]


def once(store: Store, source: MemorySource, cache: Cache | None = None) -> Refreshed:
    return refresh(store, cache or declared(), source, Silent())


class Heard:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.total: int | None = -1
        self.done = 0

    def expect(self, total: int | None) -> None:
        self.total = total

    def advance(self, count: int) -> None:
        self.done += count

    def recall(self, count: int) -> None:
        self.done += count


def test_the_first_refresh_publishes_what_the_source_holds(store: Store) -> None:
    result = once(store, MemorySource(ONE))
    assert result.changed
    assert result.version == store.version(CACHE, result.version.id)
    assert store.current(CACHE) == result.version.id
    assert result.fetched_bytes == 3
    assert below(store.tree(CACHE, result.version.id)) == {"a", "d", "d/b", "d/l", "e"}
    assert below(store.root / "staging") == {CACHE}


def test_an_unchanged_source_rewrites_nothing(store: Store) -> None:
    """Not one inode of the store changes: no content, no time, no name. Lock files are the exception."""
    source = MemorySource(ONE)
    version = once(store, source).version
    trash.empty(store.trash)
    before = picture(store.root)
    for _ in range(3):
        again = once(store, source)
        assert (again.version, again.changed, again.fetched_bytes, again.links) == (version, False, 0, None)
    assert picture(store.root) == before
    assert source.known == [None, source.revision, source.revision, source.revision]


def test_of_a_changed_source_only_the_change_is_fetched(store: Store) -> None:
    first = once(store, MemorySource(ONE))
    second = once(store, MemorySource(TWO))
    assert second.changed
    assert second.fetched_bytes == len(b"changed")
    assert second.links
    assert second.links.modes == {LinkMode.HARDLINK: 2}, "d/b by its token, e because it turned out equal"
    for path in ("d/b", "e"):
        inodes = {(store.tree(CACHE, result.version.id) / path).stat().st_ino for result in (first, second)}
        assert len(inodes) == 1
    assert store.has(CACHE, first.version.id), "for those who use it"


def test_a_source_that_says_changed_but_holds_the_same_moves_nothing(store: Store) -> None:
    first = once(store, MemorySource(ONE))
    again = once(store, MemorySource([ONE[0], *reversed(ONE[1:])]))
    assert not again.changed
    assert again.version == first.version


def test_progress_hears_the_announced_size_and_every_byte(store: Store) -> None:
    heard = Heard()
    refresh(store, declared(), MemorySource(ONE, size=3), heard)
    assert (heard.total, heard.done) == (3, 3)
    refresh(store, declared(), MemorySource(TWO), heard)
    assert heard.total is None


FAILURES: dict[str, tuple[MemorySource, type[GoldlinkError]]] = {
    "unreachable": (MemorySource(TWO, fail_resolve=True), SourceError),
    "gone at once": (MemorySource(TWO, fail_at=0), SourceError),
    "gone in the middle": (MemorySource(TWO, fail_at=3), SourceError),
    "gone at the very end": (MemorySource(TWO, fail_at=99), SourceError),
    "wrong digest": (MemorySource([*TWO, File(b"x", b"y", digest="0a" * 32)]), DataError),
    "wrong size": (MemorySource([*TWO, File(b"x", b"y", size=2)]), DataError),
    "an escape": (MemorySource([*TWO, File(b"../x", b"y")]), UnsafeEntry),
    "an escape through a symlink": (MemorySource([*TWO, Link(b"up", b".."), File(b"up/x", b"y")]), UnsafeEntry),
    "a duplicate": (MemorySource([*TWO, File(b"a", b"y")]), UnsafeEntry),
    "too large, announced": (MemorySource(TWO, size=101), OutOfSpace),
    "too large, unannounced": (MemorySource([*TWO, File(b"x", b"y" * 101)]), OutOfSpace),
    "larger than the disk": (MemorySource(TWO, size=1 << 60), OutOfSpace),
}


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("before", [True, False], ids=["with a version", "without"])
def test_a_refresh_that_fails_leaves_current_and_nothing_half_made(store: Store, kind: str, before: bool) -> None:
    source, error = FAILURES[kind]
    cache = declared(max_bytes=None if kind == "larger than the disk" else 100)
    current = once(store, MemorySource(ONE), cache).version.id if before else None
    trash.empty(store.trash)
    kept = picture(store.root / "caches")
    with pytest.raises(error):
        once(store, source, cache)
    assert store.current(CACHE) == current
    assert held_locks(store.root) == []
    assert not list((store.root / "staging").glob("*/new"))
    paths = picture(store.root / "caches").keys()
    assert paths == kept.keys()
    retried = once(store, MemorySource(TWO), cache)
    assert store.current(CACHE) == retried.version.id


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_any_other_error_passes_as_it_is_and_leaves_nothing_either(store: Store, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        once(store, MemorySource(ONE, fail_at=2, error=error))
    assert caught.value is error
    assert store.current(CACHE) is None


def test_another_source_is_not_compared_with_what_the_old_one_said(store: Store) -> None:
    """The same file name at another origin has another content, whatever its token."""
    first = once(store, MemorySource(ONE), declared(path="/one"))
    source = MemorySource(ONE)
    second = once(store, source, declared(path="/other"))
    assert source.known == [None]
    assert second.version.id == first.version.id
    assert once(store, source, declared(path="/other")).changed is False
    assert source.known == [None, source.revision]


def test_a_source_has_one_identity_whatever_the_other_settings() -> None:
    assert identify(declared("one", max_bytes=5)) == identify(declared("other"))
    assert identify(declared(path="/a")) != identify(declared(path="/b"))


def test_a_version_that_was_withdrawn_is_fetched_anew_though_the_source_is_unchanged(store: Store) -> None:
    source = MemorySource(ONE)
    version = once(store, source).version
    store.drop(CACHE, version.id)
    again = once(store, source)
    assert again.changed
    assert (again.version.id, again.fetched_bytes) == (version.id, 3)


def test_an_unchanged_source_makes_its_version_current_again(store: Store) -> None:
    """For example after somebody had set current back by hand."""
    old = once(store, MemorySource(ONE)).version
    source = MemorySource(TWO)
    new = once(store, source).version
    store.set_current(CACHE, old.id)
    again = once(store, source)
    assert again.changed
    assert store.current(CACHE) == again.version.id == new.id


@pytest.mark.parametrize("damage", [b"", b"noise" * 1000])
def test_a_damaged_memory_of_the_source_costs_a_fetch_only(store: Store, damage: bytes) -> None:
    source = MemorySource(ONE)
    version = once(store, source).version
    (store.root / "caches" / CACHE / "origin.db").write_bytes(damage)
    again = once(store, source)
    assert (again.version, again.changed, again.fetched_bytes) == (version, False, 3)
    assert once(store, source).fetched_bytes == 0


class Waiting(MemorySource):
    """A source that holds a refresh in the middle."""

    def __init__(self, items: Sequence[Item]) -> None:
        super().__init__(items)
        self.reached, self.go = threading.Event(), threading.Event()

    def resolve(self, known: object) -> None:
        self.reached.set()
        assert self.go.wait(60)
        raise SourceError("never mind")


def test_two_refreshes_of_one_cache_do_not_run_at_once_and_gc_waits_for_neither(store: Store) -> None:
    once(store, MemorySource(ONE))
    source = Waiting(TWO)
    failures: list[BaseException] = []

    def background() -> None:
        try:
            once(store, source)
        except SourceError as error:
            failures.append(error)

    thread = threading.Thread(target=background)
    thread.start()
    assert source.reached.wait(60)
    with pytest.raises(Busy, match="being refreshed"):
        once(store, MemorySource(TWO))
    with pytest.raises(Busy):
        store.gc(CACHE, 1)
    assert once(store, MemorySource(ONE), declared("other")).changed
    source.go.set()
    thread.join()
    assert len(failures) == 1
    assert once(store, MemorySource(TWO)).changed


@pytest.mark.root
@pytest.mark.parametrize("share", ["space", "inodes"])
def test_a_full_disk_is_out_of_space_and_after_making_room_the_retry_succeeds(
    mount: Callable[..., Path], share: str
) -> None:
    limit = "size=4m" if share == "space" else "nr_inodes=120"
    place = mount("small", "-t", "tmpfs", "-o", limit, "tmpfs")
    store = Store.open(place / "state")
    old = once(store, MemorySource(ONE)).version.id
    ballast = place / "ballast"
    ballast.mkdir()
    if share == "space":
        (ballast / "file").write_bytes(bytes(3_000_000))
    else:
        for number in range(50):
            (ballast / f"{number}").touch()
    items = [File(b"n/%d" % number, bytes(40_000), mtime_ns=number) for number in range(50)]
    with pytest.raises(OutOfSpace, match="free some"):
        once(store, MemorySource(items))
    assert store.current(CACHE) == old
    assert not list((store.root / "staging").glob("*/new"))
    trash.empty(store.trash)
    check_store(store)
    assert not list(store.trash.iterdir())
    for path in ballast.iterdir():
        path.unlink()
    assert once(store, MemorySource(items)).changed
    check_store(store)


@pytest.mark.root
def test_however_little_room_there_is_current_stays_sound(mount: Callable[..., Path]) -> None:
    """The disk fills up at another step each time."""
    place = mount("small", "-t", "tmpfs", "-o", "size=2m", "tmpfs")
    store = Store.open(place / "state")
    old = once(store, MemorySource(ONE)).version.id
    outcomes = set()
    for number in range(40):
        trash.empty(store.trash)
        ballast = place / "ballast"
        ballast.unlink(missing_ok=True)
        with ballast.open("wb", buffering=0) as file:
            file.write(bytes(1_950_000 - 12_000 * number))
        items = [*ONE, *(File(b"n/%d" % each, bytes(4096), mtime_ns=number) for each in range(60))]
        try:
            old = once(store, MemorySource(items)).version.id
            store.gc(CACHE, 1)
            outcomes.add("published")
        except OutOfSpace:
            outcomes.add("refused")
        assert store.current(CACHE) == old
        check_store(store)
    assert outcomes == {"published", "refused"}


_UNPRIVILEGED = """
import os, sys
from pathlib import Path
from cachefetch.config import Cache, Directory
from cachefetch.progress import Silent
from cachefetch.refresh import refresh
from cachefetch.sources.directory import DirectorySource
from cachefetch.store import Store
from cachefetch.verify import verify
os.setgroups([]), os.setgid(65532), os.setuid(65532)
place = Path(sys.argv[1])
cache = Cache(name="c", source=Directory(path=str(place / "source")))
store = Store.open(place / "state")
for content in ("one", "two"):
    (place / "source" / "file").write_text(content)
    version = refresh(store, cache, DirectorySource(cache.source), Silent()).version
    assert [str(damage) for damage in verify(store, "c", version.id)] == []
kept = store.tree("c", version.id) / "kept"
print(kept.stat().st_nlink, kept.stat().st_uid)
"""


def test_who_is_not_root_keeps_a_store_of_their_own() -> None:
    """The controller's fetcher runs as nobody in particular: files are its own, and versions share them."""
    with TemporaryDirectory(dir="/tmp") as place:
        (Path(place) / "source").mkdir()
        (Path(place) / "source" / "kept").write_text("kept")
        for path in (Path(place), *Path(place).rglob("*")):
            os.chown(path, 65532, 65532)
        command = [sys.executable, "-c", _UNPRIVILEGED, place]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.stdout == "2 65532\n", done.stderr
