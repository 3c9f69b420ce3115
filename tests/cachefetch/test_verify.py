from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from cachefetch import durable
from cachefetch.store import Store
from cachefetch.verify import Damage, verify
from tests.cachefetch.fakes import CACHE, MTIME, Dir, File, Item, Link, publish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachefetch.model import Version

ITEMS: list[Item] = [
    Dir(b"d"), File(b"d/file", b"content"), File(b"d/run", b"#!", 0o755), Link(b"d/link", b"file"),
    File(b"empty"), Dir(b"e"), Link(b"\xff", b"\xfe"),
]  # fmt: skip


@pytest.fixture
def damageable(tmp_path: Path) -> Store:
    """A store that is not looked at afterwards."""
    return Store.open(tmp_path / "state")


@pytest.fixture
def version(damageable: Store) -> Version:
    return publish(damageable, ITEMS)


def keeping_mtime(path: Path, change: Callable[[Path], object]) -> None:
    """Change something, and set the mtime back: what a careful program does."""
    before = path.lstat().st_mtime_ns
    change(path)
    os.utime(path, ns=(before, before), follow_symlinks=False)


def in_directory(path: Path, change: Callable[[Path], object]) -> None:
    """Change names, and set the mtime of the directory back."""
    before = path.parent.stat().st_mtime_ns
    change(path)
    os.utime(path.parent, ns=(before, before))


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    def change(path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        make(path)
        os.utime(path, ns=(MTIME, MTIME), follow_symlinks=False)

    in_directory(path, change)


QUICK: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "size": ("d/file", lambda path: keeping_mtime(path, lambda path: path.write_bytes(b"longer content")), "14 bytes"),
    "mode": ("d/file", lambda path: path.chmod(0o644), "mode 0644, not 0444"),
    "set-id": ("d/run", lambda path: path.chmod(0o4555), "mode 4555, not 0555"),
    "mode of a directory": ("d", lambda path: path.chmod(0o775), "mode 0775, not 0755"),
    "owner": ("d/file", lambda path: os.chown(path, 7, 0), "belongs to 7:0"),
    "group": ("d/run", lambda path: os.chown(path, 0, 7), "belongs to 0:7"),
    "owner of a symlink": ("d/link", lambda path: os.chown(path, 7, 7, follow_symlinks=False), "belongs to 7:7"),
    "mtime": ("d/file", lambda path: os.utime(path, ns=(1, MTIME + 1)), f"mtime {MTIME + 1} ns, not {MTIME}"),
    "mtime of a directory": ("e", lambda path: os.utime(path, ns=(1, 1)), "mtime 1 ns"),
    "a missing file": ("empty", lambda path: path.unlink(), "is missing"),
    "a missing directory": ("e", lambda path: path.rmdir(), "is missing"),
    "a missing symlink": ("d/link", lambda path: in_directory(path, lambda path: path.unlink()), "is missing"),
    "an extra file": ("d/extra", lambda path: in_directory(path, lambda path: path.touch()), "not in the manifest"),
    "an extra directory": ("extra", lambda path: path.mkdir(), "not in the manifest"),
    "symlink text": ("d/link", lambda path: replaced(path, lambda path: path.symlink_to("fool")), "points elsewhere"),
    "a file that became a symlink": ("d/file", lambda path: replaced(path, lambda path: path.symlink_to("run")),
        "is a 'l', not a file"),
    "a file that became a directory": ("d/file", lambda path: replaced(path, lambda path: path.mkdir()),
        "is a 'd', not a file"),
    "a file that became a device": ("empty", lambda path: replaced(path, os.mkfifo),
        "is a 'p', not a file"),
    "a directory that became a file": ("e", lambda path: replaced(path, lambda path: path.touch()),
        "is a '-', not a directory"),
    "a directory that points to itself": ("e", lambda path: replaced(path, lambda path: path.symlink_to("e")),
        "is a 'l', not a directory"),
}  # fmt: skip


@pytest.mark.parametrize("content", [True, False], ids=["full", "quick"])
def test_a_sound_version_has_no_damage(damageable: Store, version: Version, content: bool) -> None:
    assert list(verify(damageable, CACHE, version.id, content=content)) == []


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("content", [True, False], ids=["full", "quick"])
def test_every_damage_is_named_with_its_path_and_no_other_path_is(
    damageable: Store, version: Version, kind: str, content: bool
) -> None:
    path, change, what = QUICK[kind]
    change(damageable.tree(CACHE, version.id) / path)
    found = list(verify(damageable, CACHE, version.id, content=content))
    assert [damage.path for damage in found] == [path.encode()]
    assert what in found[0].what
    assert path in str(found[0])


def test_changed_content_of_the_same_size_and_mtime_is_found_by_the_full_check_only(
    damageable: Store, version: Version
) -> None:
    path = damageable.tree(CACHE, version.id) / "d" / "file"
    keeping_mtime(path, lambda path: path.write_bytes(b"CONTENT"))
    assert list(verify(damageable, CACHE, version.id, content=False)) == []
    (damage,) = verify(damageable, CACHE, version.id, content=True)
    assert damage.path == b"d/file"
    assert "has content sha256:" in damage.what


def test_everything_below_a_directory_that_is_gone_is_missing(damageable: Store, version: Version) -> None:
    shutil.rmtree(damageable.tree(CACHE, version.id) / "d")
    found = list(verify(damageable, CACHE, version.id))
    assert {(damage.path, damage.what) for damage in found} == {
        (path, "is missing") for path in (b"d", b"d/file", b"d/run", b"d/link")
    }


def test_below_a_directory_that_loops_is_nothing(damageable: Store, version: Version) -> None:
    replaced(damageable.tree(CACHE, version.id) / "d", lambda path: path.symlink_to("d"))
    assert [damage.path for damage in verify(damageable, CACHE, version.id)] == [b"d", b"d/file", b"d/link", b"d/run"]


def test_one_missing_and_one_extra_are_both_named(damageable: Store, version: Version) -> None:
    tree = damageable.tree(CACHE, version.id)
    in_directory(tree / "d" / "file", lambda path: path.rename(path.with_name("moved")))
    assert set(verify(damageable, CACHE, version.id)) == {
        Damage(b"d/file", "is missing"),
        Damage(b"d/moved", "is not in the manifest"),
    }


@pytest.mark.parametrize("change", [lambda path: path.chmod(0o700), lambda path: os.chown(path, 1, 1)])
def test_a_root_that_pods_cannot_read_is_damage(
    damageable: Store, version: Version, change: Callable[[Path], object]
) -> None:
    change(damageable.tree(CACHE, version.id))
    assert [damage.path for damage in verify(damageable, CACHE, version.id)] == [b"."]


@pytest.mark.parametrize("position", [0, 30, -2])
def test_a_changed_manifest_is_named_before_anything_else(damageable: Store, version: Version, position: int) -> None:
    path = damageable.manifest(CACHE, version.id)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    (damage,) = verify(damageable, CACHE, version.id)
    assert "the manifest of deps@" in damage.what


def test_a_manifest_of_another_version_is_named(damageable: Store, version: Version) -> None:
    """Each of the two is sound by itself."""
    other = publish(damageable, [File(b"other")])
    durable.replace(
        damageable.manifest(CACHE, version.id), damageable.manifest(CACHE, other.id).read_bytes(), durable=False
    )
    assert [damage.path for damage in verify(damageable, CACHE, version.id)] == [b""]


@pytest.mark.parametrize("part", ["manifest", "tree"])
def test_what_is_missing_as_a_whole_is_named(damageable: Store, version: Version, part: str) -> None:
    place = damageable.tree(CACHE, version.id).parent
    (place / part).rename(place / "elsewhere")
    (damage,) = verify(damageable, CACHE, version.id)
    assert damage.what.endswith(f"{part} is missing")


def test_a_version_that_was_never_there_is_damage_not_soundness(damageable: Store) -> None:
    assert len(list(verify(damageable, CACHE, "0a" * 32))) == 1


def test_the_bytes_read_are_told(damageable: Store, version: Version) -> None:
    heard: list[int] = []
    assert list(verify(damageable, CACHE, version.id, on_bytes=heard.append)) == []
    assert sum(heard) == version.totals.bytes == 9
    assert list(verify(damageable, CACHE, version.id, content=False, on_bytes=heard.append)) == []
    assert sum(heard) == 9


def test_verifying_changes_no_inode(damageable: Store, version: Version) -> None:
    tree = damageable.tree(CACHE, version.id)
    before = {path: path.lstat().st_ctime_ns for path in tree.rglob("*")}
    assert list(verify(damageable, CACHE, version.id)) == []
    assert {path: path.lstat().st_ctime_ns for path in tree.rglob("*")} == before
