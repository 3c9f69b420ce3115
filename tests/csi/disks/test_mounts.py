from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import Precondition
from csi import syscalls
from csi.disks import tools
from csi.disks.jobs import Task
from csi.disks.model import Filesystem
from csi.disks.mounts import ImageMounter, KernelImages
from csi.mount import KernelMounter
from tests.csi.disks.cluster import loops_below

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root
MiB = 1 << 20


@pytest.fixture(params=[True, False], ids=["from-file", "by-loop"])
def images(tmp_path: Path, request: pytest.FixtureRequest) -> ImageMounter:
    return KernelImages(KernelMounter(tmp_path / "workshop"), from_file=request.param)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "target"
    path.mkdir()
    yield path
    assert loops_below(tmp_path) == []


@pytest.fixture
def erofs(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"content")
    tools.make_erofs(tree, tmp_path / "erofs", Task(threading.Event()))
    return tmp_path / "erofs"


@pytest.fixture
def ext4(tmp_path: Path) -> Path:
    path = tmp_path / "ext4"
    path.touch()
    os.truncate(path, 8 * MiB)
    tools.make_ext4(path, Task(threading.Event()))
    return path


def test_erofs_shows_its_tree_and_nobody_writes(images: ImageMounter, erofs: Path, target: Path) -> None:
    mounter = KernelMounter(target.parent / "w")
    images.mount(erofs, Filesystem.EROFS, target, readonly=True)
    try:
        assert (target / "a").read_bytes() == b"content"
        flags = os.statvfs(target).f_flag
        assert flags & os.ST_RDONLY
        assert flags & os.ST_NOSUID
        assert flags & os.ST_NODEV
        with pytest.raises(OSError) as caught:
            (target / "b").touch()
        assert caught.value.errno == errno.EROFS
        assert images.backing(mounter.look(target).mount_id) == erofs
    finally:
        syscalls.umount(target, 0)


def test_file_itself_is_the_source_where_the_kernel_can(erofs: Path, target: Path) -> None:
    """No loop device is taken; this kernel is 6.12 or later."""
    images = KernelImages(KernelMounter(target.parent / "workshop"))
    images.mount(erofs, Filesystem.EROFS, target, readonly=True)
    try:
        assert not list_loops(target.parent)
    finally:
        syscalls.umount(target, 0)


def list_loops(directory: Path) -> list[str]:
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return [text for file in backing if (text := file.read_text()).startswith(f"{directory}/")]


def test_readonly_ext4_does_not_change_one_byte_of_its_file(images: ImageMounter, ext4: Path, target: Path) -> None:
    images.mount(ext4, Filesystem.EXT4, target, readonly=False)
    (target / "a").write_text("a")
    os.sync()
    dirty = ext4.read_bytes()
    syscalls.umount(target, 0)
    ext4.write_bytes(dirty)
    digest = hashlib.sha256(dirty).hexdigest()
    images.mount(ext4, Filesystem.EXT4, target, readonly=True)
    list(target.rglob("*"))
    syscalls.umount(target, 0)
    assert hashlib.sha256(ext4.read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("readonly", [True, False])
def test_bind_is_as_writable_as_asked(images: ImageMounter, ext4: Path, target: Path, readonly: bool) -> None:
    other = target.parent / "other"
    other.mkdir()
    images.mount(ext4, Filesystem.EXT4, target, readonly=False)
    images.bind(target, other, readonly=readonly)
    try:
        flags = os.statvfs(other).f_flag
        assert bool(flags & os.ST_RDONLY) is readonly
        assert flags & os.ST_NOSUID
        assert flags & os.ST_NODEV
        (target / "through").touch()
        assert (other / "through").exists()
    finally:
        syscalls.umount(other, 0)
        syscalls.umount(target, 0)


@pytest.mark.parametrize("filesystem", list(Filesystem))
def test_damaged_and_missing_images_are_explained(
    images: ImageMounter, filesystem: Filesystem, target: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    with pytest.raises(Precondition, match="missing"):
        images.mount(image, filesystem, target, readonly=True)
    image.write_bytes(os.urandom(MiB))
    with pytest.raises(Precondition, match="damaged"):
        images.mount(image, filesystem, target, readonly=True)
    with pytest.raises(Precondition, match="NodeStageVolume"):
        images.mount(image, filesystem, target / "none", readonly=True)


def test_foreign_mounts_have_no_image_of_ours(images: ImageMounter, target: Path) -> None:
    syscalls.mount("tmpfs", target, 0, fstype="tmpfs")
    try:
        backing = images.backing(KernelMounter(target.parent / "w").look(target).mount_id)
        assert backing is None or not backing.is_absolute()
    finally:
        syscalls.umount(target, 0)
    assert images.backing(2**31 - 1) is None
