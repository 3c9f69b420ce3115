from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import Busy, InvalidRequest, NotReady, OutOfSpace, Precondition, UnknownVolume
from csi.disks import ext4
from csi.disks.backend import Wanted
from csi.disks.errors import OutOfRange, UnknownNode, UnknownSnapshot
from csi.disks.model import Origin
from csi.disks.rules import Range
from csi.registry import NodeEntry
from tests.cachefetch.fakes import File, publish
from tests.csi.disks.kit import SECONDS, Kit, MiB, no_version, reader, writer

if TYPE_CHECKING:
    from pathlib import Path

ITEMS = (File(b"a", b"1"), File(b"b", b"2" * 100_000))


def test_one_sealed_image_serves_all_disks_of_a_version_and_goes_with_the_last(kit: Kit) -> None:
    version = publish(kit.store, ITEMS)
    disks = [kit.cached(f"disk-{number}", version.id) for number in range(3)]
    snapshot = kit.snapshots.create("snap", disks[0].id, SECONDS)
    assert [path.name for path in kit.files.sealed.iterdir()] == [version.id]
    for disk in disks:
        assert f"sealed/{version.id}" in kit.shown()
        kit.images.delete(disk.id)
    assert kit.shown() == [f"sealed/{version.id}", f"snapshots/{snapshot.id}"]
    kit.snapshots.delete(snapshot.id)
    assert kit.shown() == []


def test_two_controllers_seal_the_same_bytes(tmp_path: Path) -> None:
    kits = [Kit(tmp_path / name) for name in ("one", "other")]
    digests = set()
    for kit in kits:
        disk = kit.cached("disk", publish(kit.store, ITEMS).id)
        assert disk.seal
        digests.add((disk.seal.key, disk.seal.blocks, hashlib.sha256(kit.files.image(disk).read_bytes()).hexdigest()))
        kit.jobs.close()
    assert len(digests) == 1


def test_version_that_went_meanwhile_is_tried_again(kit: Kit) -> None:
    with pytest.raises(NotReady, match="dropped meanwhile"):
        kit.cached("disk", "0" * 64)
    assert kit.shown() == []


def test_sealed_image_that_lost_its_file_is_made_anew(kit: Kit) -> None:
    version = publish(kit.store, ITEMS)
    first = kit.cached("first", version.id)
    kit.files.image(first).unlink()
    assert kit.inspector.condition(first, SECONDS).abnormal
    kit.cached("second", version.id)
    assert not kit.inspector.condition(first, SECONDS).abnormal


def test_clone_has_a_file_of_its_own(kit: Kit) -> None:
    source = kit.create()
    clone = kit.images.create(Wanted("clone", Range(5 * MiB + 3), Origin(disk=source.id)), no_version, SECONDS)
    assert clone.size == kit.files.image(clone).stat().st_size == 5 * MiB + 3
    head = ext4.read_head(kit.files.image(clone))
    assert head
    assert head.blocks == (5 * MiB + 3) // head.block_size
    before = kit.files.image(source).read_bytes()
    with kit.files.image(clone).open("r+b") as file:
        file.write(b"changed")
    assert kit.files.image(source).read_bytes() == before
    kit.images.delete(source.id)
    assert kit.images.get(clone.id) == clone


def test_sources_that_are_not_there_or_do_not_fit(kit: Kit) -> None:
    source = kit.create(size=4 * MiB)
    for origin, error in (
        (Origin(disk="disk-x"), UnknownVolume),
        (Origin(snapshot="snap-x"), UnknownSnapshot),
        (Origin(disk=source.id, cache="deps"), InvalidRequest),
    ):
        with pytest.raises(error):
            kit.images.create(Wanted("clone", origin=origin), no_version, SECONDS)
    with pytest.raises(OutOfRange, match="at least 4194304"):
        kit.images.create(Wanted("clone", Range(0, 3 * MiB), Origin(disk=source.id)), no_version, SECONDS)
    kit.images.attach(source.id, writer())
    with pytest.raises(Precondition, match="writable on node 'n1'"):
        kit.images.create(Wanted("clone", origin=Origin(disk=source.id)), no_version, SECONDS)
    assert kit.shown() == [f"disks/{source.id}"]


def test_empty_disks_cannot_be_read_only(kit: Kit) -> None:
    with pytest.raises(InvalidRequest, match="StorageClass"):
        kit.images.create(Wanted("empty", reads_only=True), no_version, SECONDS)


def test_disk_is_attached_by_the_rules(kit: Kit) -> None:
    disk = kit.create()
    with pytest.raises(UnknownVolume):
        kit.images.attach("disk-x", writer())
    with pytest.raises(UnknownNode, match="nowhere"):
        kit.images.attach(disk.id, writer("nowhere"))
    with pytest.raises(InvalidRequest, match="building"):
        kit.images.attach(disk.id, reader())
    assert kit.images.attach(disk.id, writer()) == kit.images.attach(disk.id, writer())
    assert kit.images.get(disk.id).attached == (writer(),)
    for action in (kit.images.delete, lambda id_: kit.images.expand(id_, Range(9 * MiB), SECONDS)):
        with pytest.raises(Precondition, match="n1"):
            action(disk.id)
    kit.images.detach(disk.id, "n2")
    assert kit.images.get(disk.id).attached
    for _ in range(2):
        kit.images.detach(disk.id, "n1")
    kit.images.detach("disk-x", "")
    assert kit.images.get(disk.id).holds == ()


def test_node_takes_as_many_as_it_may_even_when_all_come_at_once(kit: Kit) -> None:
    kit.nodes.announce(NodeEntry(id="n1", max_volumes=3))
    disks = [kit.create(f"disk-{number}") for number in range(8)]

    def attach(id_: str) -> str:
        while True:
            try:
                kit.images.attach(id_, writer())
            except Busy:
                continue
            except OutOfSpace:
                return "full"
            return "ok"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attach, [disk.id for disk in disks]))
    assert sorted(answers) == ["full"] * 5 + ["ok"] * 3


def test_growing_replaces_the_image_in_one_step(kit: Kit) -> None:
    disk = kit.create()
    before = kit.files.image(disk).stat().st_ino
    grown = kit.images.expand(disk.id, Range(7 * MiB), SECONDS)
    assert grown.size == kit.files.image(disk).stat().st_size == 7 * MiB
    assert kit.files.image(disk).stat().st_ino != before
    assert kit.images.expand(disk.id, Range(3 * MiB), SECONDS) == grown
    with pytest.raises(OutOfRange):
        kit.images.expand(disk.id, Range(2**60), SECONDS)
    with pytest.raises(UnknownVolume):
        kit.images.expand("disk-x", Range(1), SECONDS)


def test_modify_changes_named_settings_only(kit: Kit) -> None:
    disk = kit.create()
    kit.images.modify(disk.id, {"pin": "true", "retention": "1h"})
    kit.images.modify(disk.id, {"pin": "false"})
    assert kit.images.get(disk.id).settings == {"pin": "false", "retention": "1h"}
    with pytest.raises(UnknownVolume):
        kit.images.modify("disk-x", {})


def test_disk_that_is_being_copied_is_busy(kit: Kit) -> None:
    disk = kit.create()
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with kit.files.disks.lock(disk.id):
            held.set()
            go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with pytest.raises(Busy, match=disk.id):
        kit.images.attach(disk.id, writer())
    go.set()
    thread.join()
    kit.images.attach(disk.id, writer())


def test_capacity_is_what_can_be_written(kit: Kit) -> None:
    status = os.statvfs(kit.files.root)
    assert kit.images.capacity() <= status.f_blocks * status.f_frsize
