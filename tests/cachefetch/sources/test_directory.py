from __future__ import annotations

import gc
import os
import socket
import stat
import sys
import time
from collections import deque
from contextlib import closing
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.config import Directory
from cachefetch.errors import SourceError, UnsafeEntry
from cachefetch.sources.base import SourceChanged
from cachefetch.sources.directory import DirectorySource, Fingerprint, Found, walk
from tests.cachefetch.sources.conftest import Fetched, stages

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from cachefetch.refresh import Refreshed
    from cachefetch.stage import Stage
    from cachefetch.store import Store

MTIME = 1_600_000_000_123_456_789


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "origin"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "one").write_bytes(b"1" * 100)
    (root / "a" / "b" / "two").write_bytes(b"2" * 1000)
    (root / "three").write_bytes(b"3" * 10_000)
    return root


def settle() -> None:
    """Wait until changes are so old that they can be told from later ones."""
    time.sleep(1.1)


def sync(fetched: Fetched, root: Path) -> Refreshed:
    config = Directory(path=str(root))
    return fetched.refresh(config, DirectorySource(config))


def fill(root: Path, base: Path, on_bytes: Callable[[int], None]) -> Stage:
    """Fill a stage from `root` while `on_bytes` interferes."""
    snapshot = DirectorySource(Directory(path=str(root))).resolve(None)
    assert snapshot
    for stage in stages(base, on_bytes):
        snapshot.fill(stage)
    return stage


def once(bytes_: int, interfere: Callable[[], object]) -> Callable[[int], None]:
    """Interfere when a piece of that many bytes has been read."""

    def on_bytes(count: int) -> None:
        if count == bytes_:
            interfere()

    return on_bytes


def test_the_tree_arrives_as_it_is(root: Path, fetched: Fetched) -> None:
    (root / "tool").write_bytes(b"#!")
    (root / "tool").chmod(0o4711)
    (root / "link").symlink_to("/etc/../nowhere")
    (root / "to-dir").symlink_to("a")
    (root / "empty").mkdir()
    odd = os.fsencode(root) + b"/\xff\n name"
    with open(odd, "xb"):  # noqa: PTH123  (a name that is not text)
        pass
    os.utime(root / "a" / "one", ns=(MTIME, MTIME))
    os.utime(root / "empty", ns=(MTIME + 1, MTIME + 1))
    os.utime(root / "link", ns=(MTIME + 2, MTIME + 2), follow_symlinks=False)
    sync(fetched, root)
    entries = fetched.entries()
    assert set(entries) == {
        b"a", b"a/b", b"a/b/two", b"a/one", b"empty", b"link", b"three", b"to-dir", b"tool", b"\xff\n name",
    }  # fmt: skip
    assert (entries[b"tool"].mode, entries[b"three"].mode) == (0o555, 0o444)
    assert entries[b"link"].target == b"/etc/../nowhere"
    assert [entries[path].mtime_ns for path in (b"a/one", b"empty", b"link")] == [MTIME, MTIME + 1, MTIME + 2]
    assert (fetched.tree / "a" / "b" / "two").read_bytes() == b"2" * 1000


def test_hardlinks_become_plain_files(root: Path, fetched: Fetched) -> None:
    (root / "again").hardlink_to(root / "three")
    sync(fetched, root)
    assert (fetched.tree / "again").stat().st_ino != (fetched.tree / "three").stat().st_ino
    assert (fetched.tree / "again").read_bytes() == b"3" * 10_000


def test_the_root_may_be_a_symlink_that_moves_on(root: Path, tmp_path: Path, fetched: Fetched) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "new").touch()
    link = tmp_path / "release"
    link.symlink_to(root)
    sync(fetched, link)
    link.unlink()
    link.symlink_to(other)
    sync(fetched, link)
    assert set(fetched.entries()) == {b"new"}


opened: list[str] = []
watching = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if watching and event == "open":
        opened.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else "")


sys.addaudithook(_audit)


def test_nothing_changed_is_found_out_without_reading_a_file(root: Path, fetched: Fetched) -> None:
    global watching  # noqa: PLW0603  (an audit hook stays for ever)
    settle()
    first = sync(fetched, root)
    watching = True
    try:
        second = sync(fetched, root)
    finally:
        watching = False
    assert first.changed
    assert not second.changed
    assert second.links is None  # nothing was staged
    assert "b" in opened  # the directory
    assert not {"one", "two", "three"} & set(opened)


def test_only_what_changed_is_read(root: Path, fetched: Fetched) -> None:
    settle()
    sync(fetched, root)
    before = (fetched.tree / "three").stat().st_ino
    (root / "a" / "one").write_bytes(b"x" * 50)
    (root / "a" / "b" / "two").unlink()
    done = sync(fetched, root)
    assert done.fetched_bytes == 50
    assert (fetched.tree / "three").stat().st_ino == before
    assert set(fetched.entries()) == {b"a", b"a/b", b"a/one", b"three"}


def test_an_edit_that_keeps_size_and_mtime_is_noticed(root: Path, fetched: Fetched) -> None:
    os.utime(root / "three", ns=(MTIME, MTIME))
    settle()
    sync(fetched, root)
    (root / "three").write_bytes(b"X" * 10_000)
    os.utime(root / "three", ns=(MTIME, MTIME))
    assert sync(fetched, root).changed
    assert (fetched.tree / "three").read_bytes() == b"X" * 10_000


def test_an_edit_within_the_tick_of_the_clock_after_the_look_is_noticed(root: Path, fetched: Fetched) -> None:
    """What changed a moment before the look is not remembered as unchanged: it is read again the next time."""
    sync(fetched, root)
    assert sync(fetched, root).fetched_bytes == 11_100


@pytest.mark.parametrize("change", ["rename", "chmod", "mtime of a directory", "symlink"])
def test_every_kind_of_change_is_noticed(root: Path, fetched: Fetched, change: str) -> None:
    (root / "link").symlink_to("a")
    settle()
    sync(fetched, root)
    if change == "rename":
        (root / "three").rename(root / "four")
    elif change == "chmod":
        (root / "three").chmod(0o755)
    elif change == "symlink":
        (root / "link").unlink()
        (root / "link").symlink_to("b")
    else:
        os.utime(root / "a", ns=(MTIME, MTIME))
    assert sync(fetched, root).changed


@pytest.mark.parametrize("kind", ["FIFO", "socket", "character device", "block device"])
@pytest.mark.root
def test_what_is_no_file_is_refused_by_name(root: Path, kind: str) -> None:
    path = root / "a" / "odd"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(root / "a")  # a socket's path is at most 108 bytes
            listener.bind("odd")
            os.chdir("/")
    else:
        mode = {"FIFO": stat.S_IFIFO, "character device": stat.S_IFCHR, "block device": stat.S_IFBLK}[kind]
        os.mknod(path, mode | 0o600, os.makedev(1, 3))
    with pytest.raises(UnsafeEntry, match=f"'a/odd' is a {kind}: remove it"):
        DirectorySource(Directory(path=str(root))).resolve(None)


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.touch()])
def test_a_missing_directory_is_named_with_the_remedy(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "none")
    with pytest.raises(SourceError, match=r"none' cannot be read \(.*\): create or mount it"):
        DirectorySource(Directory(path=str(tmp_path / "none"))).resolve(None)


def test_a_file_that_changes_while_it_is_read_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceChanged, match="changed while it was read") as caught:
        fill(root, tmp_path, once(1000, lambda: (root / "a" / "b" / "two").write_bytes(b"Y" * 1000)))
    assert "'a/b/two'" in str(caught.value)


def test_a_file_that_changes_after_it_was_read_is_named(root: Path, tmp_path: Path) -> None:
    """`three` is read first: its directory comes before those in it."""
    with pytest.raises(SourceChanged, match="'three'"):
        fill(root, tmp_path, once(1000, lambda: (root / "three").write_bytes(b"Y" * 10_000)))


def test_a_file_that_grows_for_ever_comes_to_an_end(root: Path, tmp_path: Path) -> None:
    def grow(_count: int) -> None:
        with (root / "three").open("ab") as file:
            file.write(b"more" * 100)

    with pytest.raises(SourceChanged):
        fill(root, tmp_path, grow)


def test_a_directory_whose_listing_changes_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceChanged, match="'a/'"):
        fill(root, tmp_path, once(100, (root / "a" / "new").touch))


def test_a_file_that_vanishes_is_a_change(root: Path) -> None:
    def interfere(found: Found) -> None:
        (root / os.fsdecode(found.path)).rename(root.parent / found.name.hex())

    with pytest.raises(SourceChanged):
        deque(map(interfere, walk(os.fsencode(root))))


def test_a_directory_that_becomes_a_symlink_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").touch()
    seen = []

    def interfere(found: Found) -> None:
        seen.append(found.path)
        if found.path == b"a":
            (root / "a").rename(tmp_path / "moved")
            (root / "a").symlink_to(tmp_path / "secret")

    with pytest.raises(SourceChanged):
        deque(map(interfere, walk(os.fsencode(root))))
    assert b"a/key" not in seen


def test_too_deep_is_refused_and_leaves_no_descriptor_open(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(260):
        deep = deep / "d"
        deep.mkdir()
    gc.collect()  # whatever earlier tests left
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (a count)
    with pytest.raises(SourceError, match="deeper than 256 levels"):
        list(walk(os.fsencode(tmp_path)))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@given(st.lists(st.binary(min_size=1, max_size=4), unique=True, max_size=8), st.randoms(use_true_random=False))
def test_the_fingerprint_knows_no_order_but_every_entry(paths: list[bytes], shuffle: random.Random) -> None:
    status = Path(__file__).stat()

    def fingerprint(paths: list[bytes]) -> str:
        sum_ = Fingerprint()
        for path in paths:
            sum_.add(Found(path, status, 0, path, b"", b"token"))
        return sum_.value

    mixed = shuffle.sample(paths, len(paths))
    assert fingerprint(mixed) == fingerprint(paths)
    if paths:
        assert fingerprint(paths[1:]) != fingerprint(paths)


def test_as_much_as_changed_is_announced(root: Path, fetched: Fetched, store: Store) -> None:
    """And everything when nothing is known."""
    settle()
    source = DirectorySource(Directory(path=str(root)))
    first = source.resolve(None)
    assert first is not None
    assert first.size == sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    sync(fetched, root)
    (root / "a" / "one").write_bytes(b"x" * 50)
    known = store.origin("c")
    assert known is not None
    with closing(known):
        second = source.resolve(known)
    assert second is not None
    assert second.size == 50


@pytest.mark.root
def test_what_is_stored_through_a_memory_map_is_seen(image: Callable[..., Path], fetched: Fetched) -> None:
    """A store to a page that is dirty already changes no time of its file: the page must be clean when it is read."""
    root = image("ext4", 16, "mkfs.ext4", "-q")  # no other file system's sync cleans it
    (root / "lost+found").rmdir()
    (root / "data").write_bytes(b"0" * 4096)
    with (root / "data").open("r+b") as file, mmap(file.fileno(), 4096) as mapped:
        mapped[0:1] = b"1"
        settle()
        sync(fetched, root)
        mapped[0:1] = b"2"
        sync(fetched, root)
    assert (fetched.tree / "data").read_bytes()[:1] == b"2"
