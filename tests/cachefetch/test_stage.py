from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachefetch import durable, manifest
from cachefetch.errors import DataError, OutOfSpace, SourceError, UnsafeEntry
from cachefetch.index import Index
from cachefetch.limits import Limits
from cachefetch.model import EntryType, Totals
from cachefetch.stage import Stage
from tests.cachefetch.fakes import CACHE, MTIME, Dir, File, Item, Link, below, memory, publish
from tests.cachefetch.test_content import Continued
from tests.cachefetch.test_paths import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachefetch.store import Store

EMPTY = hashlib.sha256(b"").hexdigest()


@contextmanager
def staging(place: Path, limits: Limits | None = None) -> Iterator[Stage]:
    """A stage of its own, without a store."""
    (place / "new").mkdir()
    index = Index.create(place / "index")
    stage = Stage(place / "new", place / "scratch", index, limits=limits)
    try:
        yield stage
    finally:
        stage.close()
        index.abandon()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staging(tmp_path) as stage:
        yield stage


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Where the stage of the fixture puts its files."""
    return tmp_path / "new" / "tree"


class Endless:
    """Content that never ends."""

    def __init__(self) -> None:
        self.served = 0

    def read(self, size: int, /) -> bytes:
        self.served += size
        return bytes(size)


class Breaking:
    """Content whose origin goes away in the middle."""

    def __init__(self) -> None:
        self._left = [b"some"]

    def read(self, size: int, /) -> bytes:
        if self._left:
            return self._left.pop()
        raise SourceError("gone")


def fill_with_directories(stage: Stage, count: int) -> None:
    for number in range(count):
        stage.directory(b"%d" % number, MTIME)


# Escapes, collisions, exhaustion

ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(File, HOSTILE, st.binary(max_size=3), mode=st.integers(0, 0o7777)),
    st.builds(Dir, HOSTILE),
    st.builds(Link, HOSTILE, st.sampled_from([b"..", b"../..", b"/", b"/etc", b"a", b".", b""]) | HOSTILE),
)
COLLIDING = st.lists(st.sampled_from([b"a", b"b", b"l", b".."]), min_size=1, max_size=3).map(b"/".join)
CLOSE: st.SearchStrategy[Item] = st.one_of(
    st.builds(File, COLLIDING, st.binary(max_size=3)),
    st.builds(Dir, COLLIDING),
    st.builds(Link, COLLIDING, st.sampled_from([b"..", b"../../..", b"/", b"a", b"b/a", b"."])),
)


@settings(max_examples=200)
@given(st.lists(ITEMS | CLOSE, max_size=12))
def test_whatever_the_entries_nothing_appears_outside_and_the_tree_is_what_the_manifest_says(
    items: list[Item],
) -> None:
    with memory() as name:
        place = Path(name, "a", "b", "c")
        place.mkdir(parents=True)
        with staging(place) as stage:
            for item in items:
                try:
                    item.put(stage)
                except UnsafeEntry:
                    continue
            sealed = stage.seal()
        assert below(Path(name)) - {f"a/b/c/new/tree/{path}" for path in below(place / "new" / "tree")} == {
            "a", "a/b", "a/b/c", "a/b/c/index", "a/b/c/new", "a/b/c/new/manifest", "a/b/c/new/tree",
        }  # fmt: skip
        listed = {os.fsdecode(entry.path): entry for entry in manifest.read(sealed.directory / "manifest")}
        assert below(place / "new" / "tree") == set(listed)
        for path, entry in listed.items():
            status = (place / "new" / "tree" / path).lstat()
            assert status.st_mtime_ns == entry.mtime_ns
            assert stat.S_IMODE(status.st_mode) == entry.mode
            assert (status.st_uid, status.st_gid) == (0, 0)


@pytest.mark.parametrize("target", [b"..", b"/etc", b".", b"real"])
def test_an_entry_through_a_symlink_is_refused(stage: Stage, tree: Path, target: bytes) -> None:
    stage.directory(b"real", MTIME)
    stage.symlink(b"link", target, MTIME)
    for item in (File(b"link/x"), Dir(b"link/x"), Link(b"link/x", b"y"), File(b"link/x/y")):
        with pytest.raises(UnsafeEntry, match="link/x"):
            item.put(stage)
    with pytest.raises(UnsafeEntry, match="link"):
        stage.directory(b"link", MTIME)
    assert below(tree) == {"real", "link"}


@pytest.mark.parametrize("first", [File(b"a", b"1"), Link(b"a", b"1"), Dir(b"a")])
@pytest.mark.parametrize("second", [File(b"a", b"22"), Link(b"a", b"22"), Dir(b"a")])
def test_a_second_entry_of_the_same_path_is_refused_unless_both_are_directories(
    stage: Stage, tree: Path, first: Item, second: Item
) -> None:
    first.put(stage)
    before = (tree / "a").lstat()
    if isinstance(first, Dir) and isinstance(second, Dir):
        second.put(stage)
    else:
        with pytest.raises(UnsafeEntry, match="'a' is refused: another entry has that path"):
            second.put(stage)
    after = (tree / "a").lstat()
    assert (before.st_ino, before.st_mode, before.st_size) == (after.st_ino, after.st_mode, after.st_size)
    assert stage.index.count() == 1


def test_an_entry_below_a_file_is_refused(stage: Stage) -> None:
    stage.file(b"a", 0o644, MTIME, io.BytesIO())
    for item in (File(b"a/b"), Dir(b"a/b"), Link(b"a/b", b"c"), File(b"a/b/c")):
        with pytest.raises(UnsafeEntry, match="a file or a symlink"):
            item.put(stage)


@pytest.mark.parametrize("target", [b"", b"a\0b", b"a" * 5000])
def test_a_symlink_text_that_no_symlink_can_have_is_the_entry_s_fault(stage: Stage, target: bytes) -> None:
    with pytest.raises(UnsafeEntry, match="'link' is refused"):
        stage.symlink(b"link", target, MTIME)
    assert stage.index.count() == 0


def test_a_name_may_be_any_bytes(stage: Stage, tree: Path) -> None:
    names = [bytes([byte]) for byte in range(1, 256) if bytes([byte]) not in {b"/", b"."}]
    for name in names:
        stage.file(b"d/" + name, 0o644, MTIME, io.BytesIO(name))
    sealed = stage.seal()
    assert sorted(os.fsencode(path.name) for path in (tree / "d").iterdir()) == sorted(names)
    assert [entry.path for entry in manifest.read(sealed.directory / "manifest")][1:] == [
        b"d/" + each for each in names
    ]


# What becomes of an entry


def test_parents_that_are_not_listed_are_made_alike_on_every_node(stage: Stage) -> None:
    stage.file(b"a/b/file", 0o644, MTIME, io.BytesIO(b"x"))
    stage.directory(b"a", MTIME)
    sealed = stage.seal()
    entries = {entry.path: entry for entry in manifest.read(sealed.directory / "manifest")}
    assert entries[b"a"].mtime_ns == MTIME
    assert entries[b"a/b"].mtime_ns == 0
    assert {entry.mode for entry in entries.values() if entry.type is EntryType.DIRECTORY} == {0o755}
    assert sealed.totals == Totals(3, 1, 1)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("mode", "kept"),
    [(0o600, 0o444), (0o4755, 0o555), (0o2711, 0o555), (0o1777, 0o555), (0, 0o444), (0o666, 0o444), (0o010, 0o555)],
)
def test_modes_are_normal_whatever_the_origin_and_the_umask(tmp_path: Path, mode: int, kept: int) -> None:
    with staging(tmp_path) as stage:
        stage.file(b"d/file", mode, MTIME, io.BytesIO(b"x"))
        stage.directory(b"e", MTIME)
        sealed = stage.seal()
    tree = sealed.directory / "tree"
    assert stat.S_IMODE((tree / "d" / "file").stat().st_mode) == kept
    for directory in (tree, tree / "d", tree / "e"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755, directory
    assert stat.S_IMODE((sealed.directory / "manifest").stat().st_mode) == 0o444


def test_a_state_directory_with_a_group_of_its_own_does_not_hand_it_on(tmp_path: Path) -> None:
    """A set-group-id directory gives its group to what is made in it (mkdir(2))."""
    os.chown(tmp_path, 0, 5)
    tmp_path.chmod(0o2770)
    with staging(tmp_path) as stage:
        stage.file(b"d/file", 0o644, MTIME, io.BytesIO(b"x"))
        stage.symlink(b"d/link", b"file", MTIME)
        tree = stage.seal().directory / "tree"
    for path in (tree, *tree.rglob("*")):
        status = path.lstat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7000) == (0, 0, 0), path


def test_mtimes_are_kept_to_the_nanosecond_also_of_directories_and_symlinks(stage: Stage, tree: Path) -> None:
    times = {"d": MTIME + 1, "d/file": MTIME + 2, "d/link": MTIME + 3, "old": -12_345, "d/e": MTIME + 4}
    stage.directory(b"d", times["d"])
    stage.file(b"d/file", 0o644, times["d/file"], io.BytesIO(b"x"))
    stage.symlink(b"d/link", b"nowhere", times["d/link"])
    stage.file(b"old", 0o644, times["old"], io.BytesIO(b"x"))
    stage.directory(b"d/e", times["d/e"])
    sealed = stage.seal()
    assert {path: (tree / path).lstat().st_mtime_ns for path in times} == times
    assert {os.fsdecode(entry.path): entry.mtime_ns for entry in manifest.read(sealed.directory / "manifest")} == times


@pytest.mark.parametrize("mtime", [10**40, -(10**40), 2**63, -(2**31) * 10**9 - 1])
def test_an_absurd_mtime_is_no_obstacle_and_the_same_in_tree_and_manifest(tmp_path: Path, mtime: int) -> None:
    with staging(tmp_path) as stage:
        stage.file(b"file", 0o644, mtime, io.BytesIO(b"x"))
        stage.symlink(b"link", b"x", mtime)
        stage.directory(b"d", mtime)
        sealed = stage.seal()
    for entry in manifest.read(sealed.directory / "manifest"):
        assert (sealed.directory / "tree" / os.fsdecode(entry.path)).lstat().st_mtime_ns == entry.mtime_ns


@pytest.mark.parametrize(
    "lie",
    [File(b"d/f", b"abc", size=2), File(b"d/f", b"abc", size=4), File(b"d/f", b"abc", digest=EMPTY)],
    ids=["longer", "shorter", "other content"],
)
def test_content_that_is_not_as_announced_is_bad_data_and_does_not_stay(stage: Stage, tree: Path, lie: File) -> None:
    with pytest.raises(DataError, match="d/f"):
        lie.put(stage)
    assert below(tree) == {"d"}
    File(b"d/f", b"abc", size=3, digest=hashlib.sha256(b"abc").hexdigest()).put(stage)
    assert (tree / "d" / "f").read_bytes() == b"abc"


def test_a_file_whose_content_breaks_off_does_not_stay_and_can_be_tried_again(stage: Stage, tree: Path) -> None:
    with pytest.raises(SourceError):
        stage.file(b"f", 0o644, MTIME, Breaking())
    assert below(tree) == set()
    stage.file(b"f", 0o644, MTIME, io.BytesIO(b"whole"))
    assert (tree / "f").read_bytes() == b"whole"


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8))
def test_content_arrives_as_it_was_in_whatever_pieces(pieces: list[bytes]) -> None:
    class InPieces:
        def read(self, size: int, /) -> bytes:
            return left.pop(0) if left else b""

    left = list(pieces)
    with memory() as place, staging(Path(place)) as stage:
        stage.file(b"f", 0o644, MTIME, InPieces())
        assert Path(place, "new", "tree", "f").read_bytes() == b"".join(pieces)
        known = stage.index.find(b"f")
        assert known
        assert known.entry.digest == hashlib.sha256(b"".join(pieces)).hexdigest()


# Limits


def test_more_bytes_than_the_limit_end_it_even_if_the_content_never_does(tmp_path: Path) -> None:
    content = Endless()
    with staging(tmp_path, Limits(max_bytes=5_000_000)) as stage, pytest.raises(OutOfSpace, match="maxBytes 5000000"):
        stage.file(b"endless", 0o644, MTIME, content)
    assert content.served < 8_000_000
    assert below(tmp_path / "new" / "tree") == set()


def test_exactly_the_limit_is_allowed(tmp_path: Path) -> None:
    with staging(tmp_path, Limits(max_bytes=6, max_entries=2)) as stage:
        stage.file(b"a", 0o644, MTIME, io.BytesIO(b"abc"))
        stage.file(b"b", 0o644, MTIME, io.BytesIO(b"abc"))
        with pytest.raises(UnsafeEntry, match="more than 2 entries"):
            stage.directory(b"c", MTIME)
        with pytest.raises(UnsafeEntry, match="more than 2 entries"):
            stage.symlink(b"c", b"x", MTIME)


def test_implicit_parents_count_as_entries(tmp_path: Path) -> None:
    with staging(tmp_path, Limits(max_entries=3)) as stage, pytest.raises(UnsafeEntry, match="more than 3 entries"):
        stage.file(b"a/b/c/d", 0o644, MTIME, io.BytesIO())


def test_the_node_is_not_filled_up(tmp_path: Path) -> None:
    with staging(tmp_path, Limits(free_share=0.9999)) as stage, pytest.raises(OutOfSpace, match="stay free"):
        stage.file(b"a", 0o644, MTIME, io.BytesIO(b"x"))


def test_inodes_run_out_like_space(tmp_path: Path) -> None:
    with staging(tmp_path, Limits(free_share=0.9999)) as stage, pytest.raises(OutOfSpace, match="inodes"):
        fill_with_directories(stage, 5000)


def test_many_and_deep_directories_exhaust_neither_descriptors_nor_the_stack(stage: Stage, tree: Path) -> None:
    deep = b"/".join([b"d"] * 1990)
    before = len(list(Path("/proc/self/fd").iterdir()))
    stage.file(deep + b"/file", 0o644, MTIME, io.BytesIO(b"x"))
    for number in range(300):
        stage.file(b"wide/%d/file" % number, 0o644, MTIME, io.BytesIO(b"x"))
        stage.file(b"wide/%d/file" % (number // 2) + b"%d" % number, 0o644, MTIME, io.BytesIO(b"x"))
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 66
    sealed = stage.seal()
    assert sealed.totals.files == 601
    assert (tree / os.fsdecode(deep) / "file").read_bytes() == b"x"
    subprocess.run(["rm", "-rf", tree], check=True)


# Hardlinks of the source


def test_a_hardlink_becomes_a_file_of_its_own(stage: Stage, tree: Path) -> None:
    stage.file(b"d/one", 0o644, MTIME, io.BytesIO(b"content"))
    stage.copy(b"two", b"d/one", 0o755, MTIME + 1)
    one, two = (tree / "d" / "one").stat(), (tree / "two").stat()
    assert one.st_ino != two.st_ino
    assert (one.st_nlink, two.st_nlink) == (1, 1)
    assert (tree / "two").read_bytes() == b"content"
    assert (stat.S_IMODE(two.st_mode), two.st_mtime_ns) == (0o555, MTIME + 1)


@pytest.mark.parametrize("original", [b"absent", b"absent/absent", b"d", b"link", b"link/x", b"out", b"file/x"])
def test_a_hardlink_to_anything_but_an_earlier_file_is_refused(stage: Stage, tree: Path, original: bytes) -> None:
    stage.directory(b"d", MTIME)
    stage.file(b"file", 0o644, MTIME, io.BytesIO(b"x"))
    stage.symlink(b"link", b"d", MTIME)
    stage.symlink(b"out", b"/etc/passwd", MTIME)
    with pytest.raises(UnsafeEntry):
        stage.copy(b"copy", original, 0o644, MTIME)
    assert not (tree / "copy").exists()


@pytest.mark.parametrize("original", [b"/etc/passwd", b"../../../etc/passwd", b"d/../../x", b""])
def test_a_hardlink_to_the_outside_is_refused(stage: Stage, original: bytes) -> None:
    with pytest.raises(UnsafeEntry, match="refused"):
        stage.copy(b"copy", original, 0o644, MTIME)


# What is shared with the version before

BEFORE = [File(b"d/same", b"1" * 100, token=b"t1"), File(b"d/other", b"2", token=b"t2"), File(b"run", b"3", 0o755)]


def inodes(store: Store, version_id: str) -> dict[str, int]:
    tree = store.tree(CACHE, version_id)
    return {str(path.relative_to(tree)): path.lstat().st_ino for path in tree.rglob("*") if not path.is_dir()}


def test_a_file_with_the_same_token_mode_and_mtime_is_linked_without_being_read(store: Store) -> None:
    first = publish(store, BEFORE)
    with store.refreshing(CACHE), store.stage(CACHE, "test") as stage:
        assert stage.keep(b"d/same", 0o600, MTIME, b"t1"), "0600 is 0444 in the store"
        assert not stage.keep(b"d/other", 0o644, MTIME, b"t3")
        assert not stage.keep(b"d/other", 0o755, MTIME, b"t2")
        assert not stage.keep(b"d/other", 0o644, MTIME + 1, b"t2")
        assert not stage.keep(b"run", 0o755, MTIME, b""), "no token says nothing"
        assert not stage.keep(b"d", 0o755, MTIME, b"")
        assert not stage.keep(b"absent", 0o644, MTIME, b"t1")
        assert below(stage.place / "tree") == {"d", "d/same"}
        second = store.publish(CACHE, stage.seal(), stage.index, {})
    assert inodes(store, second.id) == {"d/same": inodes(store, first.id)["d/same"]}


def test_a_hardlink_keeps_its_token_for_the_next_version(store: Store) -> None:
    with store.refreshing(CACHE), store.stage(CACHE, "test") as stage:
        assert stage.before is None
        stage.file(b"one", 0o644, MTIME, io.BytesIO(b"content"), token=b"t1")
        stage.copy(b"two", b"one", 0o644, MTIME, b"t1")
        store.publish(CACHE, stage.seal(), stage.index, {})
    with store.refreshing(CACHE), store.stage(CACHE, "test") as stage:
        assert stage.before is not None
        assert stage.before.token(b"two") == b"t1"
        assert stage.keep(b"two", 0o644, MTIME, b"t1")


def test_of_an_archive_its_own_bytes_are_heard_and_whoever_listens_hears_of_every_piece(tmp_path: Path) -> None:
    heard: list[int] = []
    index = Index.create(tmp_path / "index")
    (tmp_path / "new").mkdir()
    stage = Stage(tmp_path / "new", tmp_path / "scratch", index, on_bytes=heard.append)
    archive = stage.measured(Continued(b"packed", 0))
    assert archive.read(4) == b"pack"
    stage.file(b"a", 0o644, 0, io.BytesIO(b"much more than was packed"))
    assert archive.read(4) == b"ed"
    assert heard == [4, 0, 2]
    stage.close()
    index.close()


def test_what_an_earlier_try_has_left_is_heard_of_as_recalled_only(tmp_path: Path) -> None:
    """In an archive whose own bytes count, and in a file."""
    index = Index.create(tmp_path / "index")
    for archive in (True, False):
        heard: list[int] = []
        recalled: list[int] = []
        place = tmp_path / str(archive)
        place.mkdir()
        stage = Stage(place, place / "scratch", index, on_bytes=heard.append, on_recalled=recalled.append)
        content = Continued(b"0123456789", 6)
        stage.file(b"a", 0o644, 0, stage.measured(content) if archive else stage.resumed(content))
        assert (sum(heard), sum(recalled)) == (4, 6)
        stage.close()
    index.close()


def test_bytes_that_were_heard_of_when_they_arrived_are_not_heard_of_again(tmp_path: Path) -> None:
    """But the listener is called for every piece, because it is what interrupts a fetch."""
    heard: list[int] = []
    index = Index.create(tmp_path / "index")
    (tmp_path / "new").mkdir()
    stage = Stage(tmp_path / "new", tmp_path / "scratch", index, on_bytes=heard.append)
    stage.arrived(7)
    stage.file(b"one", 0o644, MTIME, io.BytesIO(b"12345"))
    stage.file(b"two", 0o644, MTIME, io.BytesIO(b"12345"))
    stage.file(b"three", 0o644, MTIME, io.BytesIO(b"12345"))
    stage.close()
    index.close()
    assert heard == [7, 0, 3, 5]


def test_kept_files_count_against_the_limits(store: Store) -> None:
    publish(store, BEFORE)
    with (
        store.refreshing(CACHE),
        store.stage(CACHE, "test", limits=Limits(max_bytes=99)) as stage,
        pytest.raises(OutOfSpace, match="d/same"),
    ):
        stage.keep(b"d/same", 0o644, MTIME, b"t1")


def test_equal_files_share_their_inode_even_if_the_source_knows_no_tokens(store: Store) -> None:
    first = publish(store, [File(b"a", b"1"), File(b"b", b"2"), File(b"c", b"3"), File(b"d", b"4"), Link(b"l", b"x")])
    second = publish(
        store,
        [File(b"a", b"1"), File(b"b", b"other"), File(b"c", b"3", mode=0o755), File(b"d", b"4", mtime_ns=MTIME + 1)],
    )
    before, after = inodes(store, first.id), inodes(store, second.id)
    assert {path for path, inode in after.items() if before[path] == inode} == {"a"}


def test_equal_files_of_other_paths_are_never_merged(store: Store) -> None:
    publish(store, [File(b"a", b"same")])
    second = publish(store, [File(b"b", b"same"), File(b"c", b"same")])
    assert len(set(inodes(store, second.id).values())) == 2


DAMAGES: dict[str, Callable[[Path], object]] = {
    "written to": lambda path: path.write_bytes(b"x" * 100),
    "cut off": lambda path: os.truncate(path, 5),
    "missing": lambda path: path.unlink(),
    "chmod": lambda path: path.chmod(0o644),
    "chown": lambda path: os.chown(path, 5, 5),
    "a symlink": lambda path: durable.point(path, "/etc/passwd"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("token", [b"t1", b""], ids=["kept", "reunited"])
def test_a_golden_file_that_was_damaged_is_not_handed_on_to_the_next_version(
    store: Store, damage: str, token: bytes
) -> None:
    """Root in a pod can reach golden inodes; the next refresh must heal, not spread it."""
    first = publish(store, [File(b"d/same", b"1" * 100, token=token)])
    DAMAGES[damage](store.tree(CACHE, first.id) / "d" / "same")
    second = publish(store, [File(b"d/same", b"1" * 100, token=token), File(b"new")])
    path = store.tree(CACHE, second.id) / "d" / "same"
    assert path.read_bytes() == b"1" * 100
    assert path.lstat().st_nlink == 1
    store.drop(CACHE, first.id)


def test_a_damaged_manifest_of_the_version_before_costs_the_sharing_only(store: Store) -> None:
    first = publish(store, [File(b"a", b"1"), File(b"b", b"2")])
    store.manifest(CACHE, first.id).write_bytes(b"goldlink-manifest-v1 2 2 2\nnonsense\n")
    second = publish(store, [File(b"a", b"1"), File(b"c", b"2")])
    assert inodes(store, second.id)["a"] != inodes(store, first.id)["a"]
    store.drop(CACHE, first.id)


def test_a_lost_index_costs_the_tokens_only(store: Store) -> None:
    first = publish(store, BEFORE)
    (store.root / "caches" / CACHE / "origin.db").write_bytes(b"\0" * 5000)
    second = publish(store, [*BEFORE, File(b"new")])
    assert inodes(store, first.id).items() <= inodes(store, second.id).items()


@pytest.mark.parametrize("error", [DataError("bad"), KeyboardInterrupt(), OSError(5, "io")])
def test_whatever_ends_a_stage_nothing_of_it_stays_but_the_downloads(store: Store, error: BaseException) -> None:
    partial = store.root / "staging" / CACHE / "src" / "partial"
    with pytest.raises(type(error)):
        break_off(store, error)
    assert below(store.root / "staging") == {CACHE, f"{CACHE}/src", f"{CACHE}/src/partial"}
    assert store.versions(CACHE) == []
    with store.refreshing(CACHE), store.stage(CACHE, "src"):
        assert partial.read_bytes() == b"half", "the same source finds its download again"
    assert not partial.exists(), "and after a success it is gone"
    with pytest.raises(type(error)):
        break_off(store, error)
    with store.refreshing(CACHE), store.stage(CACHE, "other"):
        assert not partial.exists(), "another source does not get it"


def break_off(store: Store, error: BaseException) -> None:
    with store.refreshing(CACHE), store.stage(CACHE, "src") as stage:
        stage.file(b"d/f", 0o644, MTIME, io.BytesIO(b"x"))
        (stage.scratch / "partial").write_bytes(b"half")
        raise error


_MANY = r"""
import io, re, sys
from pathlib import Path
from cachefetch.store import Store
store, count = Store.open(Path(sys.argv[1])), int(sys.argv[2])
def fill(mtime):
    with store.refreshing("c"), store.stage("c", "s") as stage:
        for number in range(count):
            stage.symlink(b"p%04d/%06d" % (number // 1000, number), b"target", mtime, b"token")
        return store.publish("c", stage.seal(), stage.index, {})
assert fill(1).totals.entries == fill(2).totals.entries == count + -(-count // 1000)
print(re.search("VmHWM:[ \t]+([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_many_entries_take_no_memory_to_speak_of() -> None:
    """Measured with two versions, because the one before is read while the next is sealed."""
    peaks = []
    for count in (1_000, 200_000):
        with memory() as place:
            command = [sys.executable, "-c", _MANY, place, str(count)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 64 * 1024, "KiB of resident memory more, for 199,000 entries more"


def test_what_was_downloaded_is_gone_before_the_sync_and_stays_until_everything_is_staged(store: Store) -> None:
    """A failure before that must not cost the download; the sync need not wait for what nobody needs any more."""
    with store.refreshing(CACHE):
        with pytest.raises(ZeroDivisionError), store.stage(CACHE, "test") as stage:
            scratch = stage.scratch
            (scratch / "blob").mkdir()
            (scratch / "blob" / "download").write_bytes(b"all of it")
            stage.file(b"a", 0o644, MTIME, io.BytesIO(b"a"))
            raise ZeroDivisionError
        assert (scratch / "blob" / "download").read_bytes() == b"all of it"
        with store.stage(CACHE, "test") as stage:
            stage.file(b"a", 0o644, MTIME, io.BytesIO(b"a"))
            stage.seal()
            assert [path for path in scratch.rglob("*") if path.is_file()] == []
