from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from cachefetch.config import Cache, Directory
from cachefetch.errors import InvalidRequest, Precondition, UnknownVersion
from cachefetch.model import LinkMode
from cachefetch.populate import check_dest, populate
from cachefetch.progress import Silent
from cachefetch.refresh import refresh
from cachefetch.sources.directory import DirectorySource
from cachefetch.store import Store

if TYPE_CHECKING:
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
    config = Directory(path=str(origin))
    refresh(store, Cache(name="deps", source=config), DirectorySource(config), Silent())
    return store


def current(store: Store) -> str:
    version_id = store.current("deps")
    assert version_id is not None
    return version_id


@pytest.mark.parametrize("exists", [True, False])
def test_the_files_are_those_of_the_golden_tree(store: Store, tmp_path: Path, exists: bool) -> None:
    dest, tree = tmp_path / "dest", store.tree("deps", current(store))
    if exists:
        dest.mkdir()
    report = populate(store, "deps", current(store), dest)
    assert report.modes == {LinkMode.HARDLINK: 3}
    assert (dest / "lib/deep/a.txt").samefile(tree / "lib/deep/a.txt")
    assert (dest / "link").readlink() == (tree / "link").readlink()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_destination_that_fills_meanwhile_is_kept_and_nothing_is_left(store: Store, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "precious").touch()
    with pytest.raises(Precondition, match="dest cannot be replaced"):
        populate(store, "deps", current(store), dest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dest", "origin", "state"]
    assert (dest / "precious").exists()


def test_a_failure_in_the_middle_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """The file system of the destination is full after a few links; a tmpfs counts inodes and cannot hardlink here."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=4", "tmpfs", small], check=True)
    try:
        with pytest.raises(OSError, match="No space left"):
            populate(store, "deps", current(store), small / "dest")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_another_file_system_gets_copies_and_the_report_says_so(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", other], check=True)
    try:
        report = populate(store, "deps", current(store), other / "dest")
        assert report.mode is LinkMode.COPY
        assert report.fallbacks[LinkMode.HARDLINK, "EXDEV"] > 0
        assert (other / "dest/run.sh").read_text() == "#!/bin/sh\n"
    finally:
        subprocess.run(["umount", other], check=True)


def test_a_mount_point_is_not_replaced(store: Store, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    subprocess.run(["mount", "--bind", dest, dest], check=True)
    try:
        with pytest.raises(Precondition, match="name a directory that does not exist"):
            populate(store, "deps", current(store), dest)
    finally:
        subprocess.run(["umount", dest], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dest", "origin", "state"]


def test_an_absent_version_is_an_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownVersion, match="is gone"):
        populate(store, "deps", "0" * 64, tmp_path / "dest")
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
