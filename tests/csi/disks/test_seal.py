from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachefetch.errors import Busy
from csi.disks import seal
from csi.disks.jobs import Task
from csi.disks.model import Filesystem
from tests.cachefetch.fakes import File, publish
from tests.csi.disks.kit import Kit, MiB

if TYPE_CHECKING:
    from pathlib import Path


def task() -> Task:
    return Task(threading.Event())


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(0, 4 * MiB),
    parts=st.lists(st.tuples(st.integers(0, 4 * MiB), st.binary(min_size=1, max_size=9000)), max_size=5),
)
def test_copy_is_equal_and_keeps_holes(
    tmp_path_factory: pytest.TempPathFactory, size: int, parts: list[tuple[int, bytes]]
) -> None:
    place = tmp_path_factory.mktemp("copy")
    with (place / "source").open("wb") as file:
        file.truncate(size)
        for at, content in parts:
            if at + len(content) <= size:
                file.seek(at)
                file.write(content)
    seal.copy(place / "source", place / "target", task())
    assert (place / "target").read_bytes() == (place / "source").read_bytes()
    written = sum(len(content) + 8192 for _, content in parts)
    assert (place / "target").stat().st_blocks * 512 <= written + 65536


def test_copy_stops_when_the_driver_does(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(os.urandom(MiB))
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Busy, match="stops"):
        seal.copy(tmp_path / "source", tmp_path / "target", Task(stopping))


def test_sealed_image_is_found_by_its_key_and_cannot_be_written(kit: Kit) -> None:
    version = publish(kit.store, (File(b"a", b"1"),))
    made = seal.seal_version(kit.files, kit.store, "deps", version.id, task())
    assert made == seal.find(kit.files, version.id, Filesystem.EROFS)
    assert made == seal.seal_version(kit.files, kit.store, "deps", version.id, task())
    image = kit.files.sealed_image(version.id)
    assert image.stat().st_mode & 0o777 == 0o400
    assert made.size == image.stat().st_size


def test_equal_images_have_equal_keys(kit: Kit) -> None:
    """The key of a sealed disk is that of its content, however the holes of the file lie."""
    image = kit.files.image(kit.create())
    one = seal.seal_image(kit.files, image, task())
    full = kit.files.root / "full"
    full.write_bytes(image.read_bytes())
    sealed_before = len(list(kit.files.sealed.iterdir()))
    other = seal.seal_image(kit.files, full, task())
    full.unlink()
    differ = kit.files.sealed_image(one.key).read_bytes() != kit.files.sealed_image(other.key).read_bytes()
    assert (one.key != other.key) == differ
    assert len(list(kit.files.sealed.iterdir())) == sealed_before + differ
