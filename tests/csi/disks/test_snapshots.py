from __future__ import annotations

import pytest

from cachefetch.errors import Conflict, InvalidRequest, Precondition, UnknownVolume
from csi.disks.backend import Wanted
from csi.disks.errors import UnknownSnapshot
from csi.disks.ids import group_id, snapshot_id
from csi.disks.model import Origin
from tests.csi.disks.kit import SECONDS, Kit, no_version, reader, writer


def test_snapshot_outlives_its_disk_and_restores_its_content(kit: Kit) -> None:
    disk = kit.create()
    snapshot = kit.snapshots.create("snap", disk.id, SECONDS)
    assert snapshot == kit.snapshots.create("snap", disk.id, SECONDS) == kit.snapshots.get(snapshot.id)
    kit.images.delete(disk.id)
    shared = kit.images.create(
        Wanted("shared", origin=Origin(snapshot=snapshot.id), reads_only=True), no_version, SECONDS
    )
    assert shared.seal == snapshot.seal
    writable = kit.images.create(Wanted("writable", origin=Origin(snapshot=snapshot.id)), no_version, SECONDS)
    assert writable.seal is None
    kit.snapshots.delete(snapshot.id)
    assert kit.files.image(shared).exists()
    kit.images.delete(shared.id)
    assert kit.shown() == [f"disks/{writable.id}"]


def test_snapshots_of_equal_content_share_one_image(kit: Kit) -> None:
    disk = kit.create()
    one, other = (kit.snapshots.create(name, disk.id, SECONDS) for name in ("one", "other"))
    again = kit.images.create(Wanted("again", origin=Origin(snapshot=one.id), reads_only=True), no_version, SECONDS)
    assert kit.snapshots.create("of-sealed", again.id, SECONDS).seal == one.seal
    assert len({one.seal.key, other.seal.key}) == len(list(kit.files.sealed.iterdir()))


def test_name_of_another_disks_snapshot_is_a_conflict(kit: Kit) -> None:
    one, other = kit.create("one"), kit.create("other")
    kit.snapshots.create("snap", one.id, SECONDS)
    with pytest.raises(Conflict, match=one.id):
        kit.snapshots.create("snap", other.id, SECONDS)
    with pytest.raises(UnknownVolume):
        kit.snapshots.create("none", "disk-x", SECONDS)


def test_only_quiet_disks_are_sealed(kit: Kit) -> None:
    disk = kit.create()
    kit.images.attach(disk.id, writer(readonly=True))
    kit.snapshots.create("readonly", disk.id, SECONDS)
    kit.images.detach(disk.id, "n1")
    kit.images.attach(disk.id, writer())
    with pytest.raises(Precondition, match="n1"):
        kit.snapshots.create("busy", disk.id, SECONDS)
    with pytest.raises(Precondition, match=disk.id):
        kit.snapshots.create_group("busy", [disk.id], SECONDS)


def test_damaged_file_system_is_not_sealed(kit: Kit) -> None:
    disk = kit.create()
    with kit.files.image(disk).open("r+b") as image:
        image.write(b"\xff" * 300_000)
    with pytest.raises(Precondition, match="damaged"):
        kit.snapshots.create("snap", disk.id, SECONDS)
    assert kit.shown() == [f"disks/{disk.id}"]


def test_group_is_all_or_nothing(kit: Kit) -> None:
    disks = [kit.create(f"disk-{number}") for number in range(3)]
    ids = [disk.id for disk in disks]
    with pytest.raises(UnknownVolume):
        kit.snapshots.create_group("set", [*ids, "disk-x"], SECONDS)
    group = kit.snapshots.create_group("set", ids, SECONDS)
    assert group.id == group_id("set")
    assert kit.snapshots.create_group("set", [*reversed(ids), ids[0]], SECONDS) == group
    assert [kit.snapshots.get(member).source for member in group.snapshots] == sorted(ids)
    with pytest.raises(InvalidRequest, match=group.id):
        kit.snapshots.delete(group.snapshots[0])
    with pytest.raises(Conflict):
        kit.snapshots.create_group("set", ids[:1], SECONDS)
    for _ in range(2):
        kit.snapshots.delete_group(group.id)
    with pytest.raises(UnknownSnapshot):
        kit.snapshots.get_group(group.id)
    assert list(kit.snapshots.list()) == []


def test_members_of_an_unfinished_group_are_not_shown_and_made_anew(kit: Kit) -> None:
    """A crash between two members: the first may be older than what its disk holds by now."""
    disk = kit.create()
    group = kit.snapshots.create_group("set", [disk.id], SECONDS)
    before = kit.snapshots.get(group.snapshots[0])
    kit.files.discard(kit.files.groups.place(group.id))
    assert list(kit.snapshots.list()) == []
    kit.snapshots.create_group("set", [disk.id], SECONDS)
    after = kit.snapshots.get(snapshot_id("set", disk.id))
    assert after.created > before.created


def test_sealed_disks_are_sealed_while_they_are_read(kit: Kit) -> None:
    disk = kit.create()
    snapshot = kit.snapshots.create("snap", disk.id, SECONDS)
    shared = kit.images.create(
        Wanted("shared", origin=Origin(snapshot=snapshot.id), reads_only=True), no_version, SECONDS
    )
    kit.images.attach(shared.id, reader())
    assert kit.snapshots.create("again", shared.id, SECONDS).seal == snapshot.seal
