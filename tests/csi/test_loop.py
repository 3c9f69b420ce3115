from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import OutOfSpace, Precondition
from csi import loop
from tests.csi.disks.cluster import loops_below

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root
SIZE = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(b"x" * SIZE)
    return path


def test_device_shows_the_file_and_goes_with_its_last_user(image: Path, tmp_path: Path) -> None:
    with loop.attached(image, readonly=False) as device:
        assert loop.backing_file(str(device)) == image
        with device.open("r+b", buffering=0) as block:
            assert block.seek(0, os.SEEK_END) == SIZE
            block.seek(0)
            block.write(b"y" * 512)
            os.fsync(block.fileno())
    assert loops_below(tmp_path) == []
    assert image.read_bytes()[:513] == b"y" * 512 + b"x"


def test_readonly_device_refuses_to_write(image: Path) -> None:
    with loop.attached(image, readonly=True) as device:
        with pytest.raises(OSError) as caught, device.open("r+b", buffering=0) as block:
            block.write(b"y" * 512)
        assert caught.value.errno in {errno.EACCES, errno.EPERM, errno.EROFS}
    assert image.read_bytes() == b"x" * SIZE


def test_many_at_once_get_a_device_each(tmp_path: Path) -> None:
    """The kernel names the same free device to several who ask; each gets one in the end."""

    def attach(number: int) -> None:
        image = tmp_path / f"image-{number}"
        image.write_bytes(bytes((number,)) * 4096)
        for _ in range(10):
            with loop.attached(image, readonly=True) as device:
                assert device.read_bytes()[:4096] == bytes((number,)) * 4096

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attach, range(8)))
    assert loops_below(tmp_path) == []


def test_device_node_that_a_container_does_not_have_is_made(image: Path, tmp_path: Path) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    (devices / "loop-control").symlink_to("/dev/loop-control")
    with loop.attached(image, readonly=True, devices=devices) as device:
        assert device.parent == devices
        assert device.read_bytes()[:10] == b"x" * 10


def test_exhausted_and_forbidden_devices_are_told_apart(image: Path, tmp_path: Path) -> None:
    """The control device that refuses to name a free one is here a file, which refuses every ioctl."""
    with (
        pytest.raises(Precondition, match="run the node privileged"),
        loop.attached(image, readonly=True, devices=tmp_path / "none"),
    ):
        pass
    (tmp_path / "loop-control").touch()
    with (
        pytest.raises(OutOfSpace, match="no loop device is free"),
        loop.attached(image, readonly=True, devices=tmp_path),
    ):
        pass


def test_missing_image_is_no_device(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), loop.attached(tmp_path / "none", readonly=True):
        pass


@pytest.mark.parametrize("device", ["/dev/null", "/dev/loop9999", "/some/file", "proc", ""])
def test_what_is_no_loop_device_has_no_file(device: str) -> None:
    assert loop.backing_file(device) is None
