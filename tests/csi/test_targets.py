"""A target path: what goldlink did not put there stays there, is named, and is never followed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import Code, Precondition
from csi import mountinfo, syscalls
from csi.mount import KernelMounter
from csi.private import OverlayViews
from csi.targets import Targets
from tests.csi.fakes import FakeMounter, FakeViews

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi.mount import Mounter

pytestmark = pytest.mark.root


@pytest.fixture(params=["kernel", "fake"])
def mounter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounter]:
    yield KernelMounter(tmp_path / "workshop") if request.param == "kernel" else FakeMounter()
    for mount in mountinfo.below(tmp_path):
        syscalls.umount(mount.point, syscalls.MNT_DETACH)


@pytest.fixture
def targets(mounter: Mounter) -> Targets:
    return Targets(mounter)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of a volume with its tree, as in a store."""
    place = tmp_path / "volumes" / "v"
    (place / "tree" / "sub").mkdir(parents=True)
    (place / "tree" / "file").write_text("golden")
    return place


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "pod").mkdir()
    return tmp_path / "pod" / "mount"


@contextmanager
def foreign_mount(mounter: Mounter, tmp_path: Path, target: Path) -> Iterator[None]:
    """Another program's mount at the target."""
    other = tmp_path / "other"
    other.mkdir(exist_ok=True)
    (other / "theirs").write_text("x")
    if isinstance(mounter, FakeMounter):
        mount = mounter.mount_foreign(other, target)
        yield
        mounter.mounts.remove(mount)
    else:
        syscalls.mount(other, target, syscalls.MS_BIND)
        yield
        syscalls.umount(target, 0)


def litter(target: Path, what: str) -> None:
    """Put something at the target that goldlink did not make."""
    match what:
        case "file":
            target.write_text("theirs")
        case "symlink":
            (target.parent / "elsewhere").mkdir()
            target.symlink_to("elsewhere")
        case "dangling symlink":
            target.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(target)
        case "a directory with a file":
            target.mkdir()
            (target / "theirs").write_text("x")
        case "a directory with a dangling symlink":
            target.mkdir()
            (target / "theirs").symlink_to("nowhere")


LITTER = (
    "file", "symlink", "dangling symlink", "fifo", "a directory with a file", "a directory with a dangling symlink",
)  # fmt: skip


def inodes(directory: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_ino for path in sorted(directory.rglob("*"))}


def test_shown_and_hidden_leaves_nothing(targets: Targets, place: Path, target: Path, mounter: Mounter) -> None:
    source = place / "tree"
    targets.check_free(target)
    assert not targets.shows(target, source)
    targets.show(source, target)
    assert targets.shows(target, source)
    assert not targets.shows(target, source / "sub")
    targets.hide(target, place, source)
    assert not target.exists()
    assert (source / "file").read_text() == "golden"
    assert not mounter.look(target).mount_root


def test_an_empty_directory_may_be_there(targets: Targets, place: Path, target: Path) -> None:
    target.mkdir()
    targets.check_free(target)
    targets.show(place / "tree", target)
    targets.hide(target, place, place / "tree")
    assert not target.exists()


@pytest.mark.parametrize("what", LITTER)
def test_what_is_in_the_way_is_named_and_stays(targets: Targets, place: Path, target: Path, what: str) -> None:
    litter(target, what)
    before = inodes(target.parent)
    named = "theirs" if "directory" in what else str(target)
    with pytest.raises(Precondition, match=named) as refused:
        targets.check_free(target)
    assert refused.value.code is Code.FAILED_PRECONDITION
    with pytest.raises(Precondition, match=str(target)):
        targets.hide(target, place, place / "tree")
    with pytest.raises(Precondition, match=str(target)):
        targets.hide(target, place, None)
    assert inodes(target.parent) == before


def test_a_foreign_mount_is_named_and_stays(
    targets: Targets, place: Path, target: Path, mounter: Mounter, tmp_path: Path
) -> None:
    target.mkdir()
    with foreign_mount(mounter, tmp_path, target):
        with pytest.raises(Precondition, match=r"foreign mount \(ext4 from .*/other"):
            targets.check_free(target)
        for source in (place / "tree", None):
            with pytest.raises(Precondition, match="foreign mount"):
                targets.hide(target, place, source)
        assert mounter.look(target).mount_root
        assert not targets.shows(target, place / "tree")


def test_a_foreign_mount_over_ours_is_not_taken_away(
    targets: Targets, place: Path, target: Path, mounter: Mounter, tmp_path: Path
) -> None:
    targets.show(place / "tree", target)
    with foreign_mount(mounter, tmp_path, target):
        with pytest.raises(Precondition, match="foreign mount"):
            targets.hide(target, place, place / "tree")
        assert mounter.look(target).mount_root
    targets.hide(target, place, place / "tree")
    assert not target.exists()


def test_stacked_mounts_of_ours_all_come_off(targets: Targets, place: Path, target: Path, mounter: Mounter) -> None:
    targets.show(place / "tree", target)
    mounter.bind_readonly(place / "tree", target)
    mounter.bind_readonly(place / "tree" / "sub", target)
    targets.hide(target, place, place / "tree")
    assert not target.exists()


def test_hiding_nothing_is_fine(targets: Targets, place: Path, target: Path, tmp_path: Path) -> None:
    targets.hide(target, place, place / "tree")
    targets.hide(tmp_path / "no" / "such" / "parent", place, None)


def test_our_mount_is_known_without_a_record(targets: Targets, place: Path, target: Path) -> None:
    targets.show(place / "tree", target)
    targets.hide(target, place, None)
    assert not target.exists()


@pytest.mark.parametrize("deleted", [False, True])
def test_our_mount_is_known_when_its_tree_went_to_the_trash(tmp_path: Path, target: Path, deleted: bool) -> None:
    """A volume whose place was discarded while a mount was left can still be unpublished."""
    targets = Targets(KernelMounter(tmp_path / "workshop"))
    for volume_id in ("v", "a-b " + "x" * 110):
        place = tmp_path / "volumes" / volume_id
        (place / "tree").mkdir(parents=True)
        trash = tmp_path / "trash" / f"0123456789abcdef-{volume_id[:100]}"
        trash.parent.mkdir(exist_ok=True)
        targets.show(place / "tree", target)
        place.rename(trash)
        if deleted:
            shutil.rmtree(trash)
        targets.hide(target, place, place / "tree")
        assert not target.exists()


def test_another_volumes_mount_is_foreign(targets: Targets, place: Path, target: Path, tmp_path: Path) -> None:
    targets.show(place / "tree", target)
    with pytest.raises(Precondition, match="foreign mount"):
        targets.hide(target, tmp_path / "volumes" / "w", tmp_path / "volumes" / "w" / "tree")
    targets.hide(target, place, place / "tree")


def test_a_private_view_is_known_by_its_identity_or_by_its_place(
    targets: Targets, mounter: Mounter, place: Path, target: Path, tmp_path: Path
) -> None:
    """The place is named in the table of mounts; another volume's view is foreign."""
    views = FakeViews(mounter) if isinstance(mounter, FakeMounter) else OverlayViews(mounter, threading.Event())
    for shown in (True, False):
        home = tmp_path / "volumes" / f"known-{shown}"
        home.mkdir()
        with views.make(place / "tree", home, 0) as view:
            targets.put(target, view.attach)
        assert targets.shows(target, view.identity)
        assert not targets.shows(target, place / "tree")
        assert not targets.shows(target, None)
        with pytest.raises(Precondition, match="foreign mount"):
            targets.hide(target, tmp_path / "volumes" / "another", None)
        targets.hide(target, home, view.identity if shown else None)
        assert not target.exists()
        assert not targets.shows(target, view.identity)


def test_a_missing_parent_is_the_callers_fault(targets: Targets, place: Path, tmp_path: Path) -> None:
    with pytest.raises(Precondition, match="no parent directory"):
        targets.show(place / "tree", tmp_path / "nowhere" / "mount")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_failed_mount_leaves_the_target_as_it_was(targets: Targets, place: Path, target: Path, there: bool) -> None:
    if there:
        target.mkdir()
    with pytest.raises(Precondition):
        targets.show(place / "missing", target)
    assert target.exists() == there


def test_what_another_program_mounts_meanwhile_does_not_hide_the_error(place: Path, target: Path) -> None:
    class Crossed(FakeMounter):
        def bind_readonly(self, source: Path, target: Path) -> None:
            (target / "theirs").write_text("x")
            raise OSError(errno.EIO, "the first error")

    with pytest.raises(OSError, match="the first error"):
        Targets(Crossed()).show(place / "tree", target)
    assert (target / "theirs").exists()


def test_a_mount_in_use_stays(tmp_path: Path, place: Path, target: Path) -> None:
    targets = Targets(KernelMounter(tmp_path / "workshop"))
    targets.show(place / "tree", target)
    with (target / "file").open(), pytest.raises(Precondition, match="still uses it"):
        targets.hide(target, place, place / "tree")
    assert targets.shows(target, place / "tree")
    targets.hide(target, place, place / "tree")


def test_children_that_are_being_started_make_no_mount_busy(tmp_path: Path, place: Path, target: Path) -> None:
    """Between fork and exec a child holds what this process had open, also a target that was looked at."""
    targets = Targets(KernelMounter(tmp_path / "workshop"))
    stop = threading.Event()

    def start_children() -> None:
        while not stop.is_set():
            subprocess.run(["true"], check=True)

    thread = threading.Thread(target=start_children)
    thread.start()
    try:
        for _ in range(200):
            targets.show(place / "tree", target)
            targets.hide(target, place, place / "tree")
    finally:
        stop.set()
        thread.join()


def test_a_mount_that_became_writable_is_not_what_was_shown(tmp_path: Path, place: Path, target: Path) -> None:
    targets = Targets(KernelMounter(tmp_path / "workshop"))
    targets.show(place / "tree", target)
    syscalls.mount("", target, syscalls.MS_REMOUNT | syscalls.MS_BIND)
    with pytest.raises(Precondition, match="remounted writable"):
        targets.shows(target, place / "tree")
    targets.hide(target, place, place / "tree")
    assert not target.exists()


@pytest.mark.parametrize("name", ["with space", "ünï", "new\nline", "back\\slash", "tab\t", "-rf", "#hash"])
def test_names_of_any_form_work(targets: Targets, place: Path, tmp_path: Path, name: str, mounter: Mounter) -> None:
    target = tmp_path / name / name
    target.parent.mkdir()
    targets.show(place / "tree", target)
    assert targets.shows(target, place / "tree")
    targets.hide(target, place, None)
    assert not target.exists()
