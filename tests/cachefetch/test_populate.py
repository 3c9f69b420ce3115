from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from cachefetch.config import Cache, Directory
from cachefetch.errors import InvalidRequest, Precondition, UnknownVersion
from cachefetch.model import LinkMode
from cachefetch.populate import check_dest, make, populate
from cachefetch.progress import Silent
from cachefetch.refresh import refresh
from cachefetch.sources.directory import DirectorySource
from cachefetch.store import Store
from cachefetch.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    origin = tmp_path / "origin"
    (origin / "lib/deep").mkdir(parents=True)
    (origin / "lib/deep/a.txt").write_text("a")
    (origin / "run.sh").write_text("#!/bin/sh\n")
    (origin / "link").symlink_to("lib/deep")
    return origin


@pytest.fixture
def store(tmp_path: Path, origin: Path) -> Store:
    store = Store.open(tmp_path / "state")
    fetch(store, origin)
    return store


def fetch(store: Store, origin: Path) -> None:
    config = Directory(path=str(origin))
    refresh(store, Cache(name="deps", source=config), DirectorySource(config), Silent())


def current(store: Store) -> str:
    version_id = store.current("deps")
    assert version_id is not None
    return version_id


@pytest.mark.parametrize("exists", [True, False])
def test_the_files_are_those_of_the_golden_tree(store: Store, tmp_path: Path, exists: bool) -> None:
    dest, tree = tmp_path / "dest", store.tree("deps", current(store))
    if exists:
        dest.mkdir()
    report = make(store, "deps", current(store), dest)
    assert report.modes == {LinkMode.HARDLINK: 3}
    assert (dest / "lib/deep/a.txt").samefile(tree / "lib/deep/a.txt")
    assert (dest / "link").readlink() == (tree / "link").readlink()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_destination_that_fills_meanwhile_is_kept_and_nothing_is_left(store: Store, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "precious").touch()
    with pytest.raises(Precondition, match="dest cannot be replaced"):
        make(store, "deps", current(store), dest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dest", "origin", "state"]
    assert (dest / "precious").exists()


def test_a_failure_in_the_middle_leaves_nothing(store: Store, mount: Callable[..., Path]) -> None:
    """The file system of the destination is full after a few files; a tmpfs counts inodes and gets copies."""
    small = mount("small", "-t", "tmpfs", "-o", "nr_inodes=4", "tmpfs")
    with pytest.raises(OSError, match="No space left"):
        make(store, "deps", current(store), small / "dest")
    assert list(small.iterdir()) == []


def test_another_file_system_gets_copies_and_the_report_says_so(store: Store, mount: Callable[..., Path]) -> None:
    other = mount("other", "-t", "tmpfs", "tmpfs")
    report = make(store, "deps", current(store), other / "dest")
    assert report.mode is LinkMode.COPY
    assert report.fallbacks[LinkMode.HARDLINK, "EXDEV"] > 0
    assert (other / "dest/run.sh").read_text() == "#!/bin/sh\n"


def test_a_mount_point_is_not_replaced(store: Store, tmp_path: Path, mount: Callable[..., Path]) -> None:
    dest = mount("dest", "--bind", tmp_path / "origin/lib/deep")
    (dest / "a.txt").unlink()
    with pytest.raises(Precondition, match="name a directory that does not exist"):
        make(store, "deps", current(store), dest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dest", "origin", "state"]


def test_an_absent_version_is_an_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownVersion, match="is gone"):
        make(store, "deps", "0" * 64, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_what_can_be_a_destination(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    check_dest(tmp_path / "new")
    check_dest(tmp_path / "empty")
    for bad, why in (("full", "not empty"), ("full/file", "not a directory"), ("dangling", "not a directory"),
                     ("no/parent", "make it first"), ("full/file/x", "make it first")):  # fmt: skip
        with pytest.raises(InvalidRequest, match=why):
            check_dest(tmp_path / bad)


def test_the_command_tells_what_it_made(store: Store, origin: Path, tmp_path: Path) -> None:
    old = current(store)
    (origin / "run.sh").write_text("changed")
    fetch(store, origin)
    out = io.StringIO()
    assert populate(store, "deps", "", tmp_path / "new", Terminal(out, io.StringIO())) == 0
    assert populate(store, "deps", old[:12], tmp_path / "old", Terminal(out, io.StringIO())) == 0
    assert (tmp_path / "new/run.sh").read_text() == "changed"
    assert (tmp_path / "old/run.sh").read_text() == "#!/bin/sh\n"
    assert [line.rpartition("; ")[0] for line in out.getvalue().splitlines()] == [
        f"{tmp_path}/new: deps@{current(store)[:12]}, 3 files, link mode hardlink",
        f"{tmp_path}/old: deps@{old[:12]}, 3 files, link mode hardlink",
    ]


def test_the_command_tells_a_fallback(store: Store, mount: Callable[..., Path]) -> None:
    out = io.StringIO()
    dest = mount("other", "-t", "tmpfs", "tmpfs") / "dest"
    assert populate(store, "deps", "", dest, Terminal(out, io.StringIO())) == 0
    assert "3 files, link mode copy (3 copy (hardlink refused: EXDEV" in out.getvalue()
