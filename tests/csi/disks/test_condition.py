from __future__ import annotations

import os

import pytest

from cachefetch.errors import NotReady
from csi.disks.condition import check_ahead
from csi.disks.errors import Damaged
from tests.cachefetch.fakes import File, publish
from tests.csi.disks.kit import SECONDS, Kit, MiB

ITEMS = (File(b"a", os.urandom(3 * MiB)),)


def test_sealed_image_is_read_once_and_again_when_it_changed(kit: Kit) -> None:
    disk = kit.cached("disk", publish(kit.store, ITEMS).id)
    assert disk.seal
    with pytest.raises(NotReady, match="not read yet"):
        kit.inspector.damage(disk.seal, 0.0)
    kit.inspector.check(disk.seal, SECONDS)
    assert kit.inspector.damage(disk.seal, 0.0) == ""
    image = kit.files.image(disk)
    image.chmod(0o600)
    with image.open("r+b") as file:
        file.seek(2 * MiB)
        file.write(b"12345678")
    with pytest.raises(NotReady):
        kit.inspector.damage(disk.seal, 0.0)
    with pytest.raises(Damaged, match=f"{disk.seal.key}.*block 2 "):
        kit.inspector.check(disk.seal, SECONDS)
    assert kit.inspector.condition(disk, SECONDS).abnormal


def test_prefetch_reads_ahead_of_the_first_use(kit: Kit) -> None:
    disk = kit.cached("disk", publish(kit.store, ITEMS).id)
    kit.create("building")
    assert disk.seal
    check_ahead(kit.files, kit.inspector)
    with pytest.raises(NotReady):
        kit.inspector.damage(disk.seal, 0.0)
    kit.images.modify(disk.id, {"prefetch": "always"})
    check_ahead(kit.files, kit.inspector)
    assert kit.inspector.damage(disk.seal, 0.0) == ""


def test_building_image_is_checked_as_far_as_can_be(kit: Kit) -> None:
    disk = kit.create()
    image = kit.files.image(disk)
    assert kit.inspector.condition(disk, 0.0) == (False, "building")
    with image.open("r+b") as file:
        file.seek(1024 + 0x3A)
        file.write(b"\x02")
    assert "found errors" in kit.inspector.condition(disk, 0.0).message
    with image.open("r+b") as file:
        file.write(b"\xff" * 2048)
    assert "holds no ext4" in kit.inspector.condition(disk, 0.0).message
    os.truncate(image, 5000)
    assert "has 5000 bytes instead of 2097152" in kit.inspector.condition(disk, 0.0).message
    os.truncate(image, 100)
    assert kit.inspector.condition(disk, 0.0).abnormal
    image.unlink()
    assert "is missing" in kit.inspector.condition(disk, 0.0).message
