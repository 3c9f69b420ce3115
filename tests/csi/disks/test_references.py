from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import Busy
from csi.disks.ids import disk_id
from csi.disks.references import GRACE
from tests.cachefetch.fakes import File, publish
from tests.csi.disks.kit import SECONDS, Kit

if TYPE_CHECKING:
    from pathlib import Path

ITEMS = (File(b"a", b"1"),)


def age(place: Path) -> None:
    old = time.time() - GRACE - 5
    os.utime(place, (old, old))


def test_retention_keeps_the_image_until_it_is_over(kit: Kit) -> None:
    version = publish(kit.store, ITEMS)
    disk = kit.cached("disk", version.id)
    kit.images.modify(disk.id, {"retention": "1h"})
    kit.images.delete(disk.id)
    place = kit.files.sealed / version.id
    age(place)
    assert kit.references.sweep() == 0
    (place / "keep").write_text(repr(time.time() - 1))
    age(place)
    assert kit.references.sweep() == 1
    assert kit.shown() == []


def test_sweep_takes_what_nobody_refers_to_after_a_while(kit: Kit) -> None:
    version = publish(kit.store, ITEMS)
    disk = kit.cached("disk", version.id)
    kit.files.discard(kit.files.disks.place(disk.id))  # as a crash between the record and the image
    assert kit.references.sweep() == 0
    age(kit.files.sealed / version.id)
    assert kit.references.sweep() == 1
    assert kit.discards == 1


def test_sweep_leaves_what_is_referred_to(kit: Kit) -> None:
    version = publish(kit.store, ITEMS)
    disk = kit.cached("disk", version.id)
    age(kit.files.sealed / version.id)
    assert kit.references.sweep() == 0
    assert kit.inspector.condition(disk, SECONDS).abnormal is False


def test_sweep_takes_members_of_groups_that_were_never_finished(kit: Kit) -> None:
    disk = kit.create()
    group = kit.snapshots.create_group("set", [disk.id], SECONDS)
    kit.files.discard(kit.files.groups.place(group.id))
    assert kit.references.sweep() == 0
    age(kit.files.snapshots.place(group.snapshots[0]))
    assert kit.references.sweep() == 1
    assert kit.shown() == [f"disks/{disk.id}"]


def test_record_never_appears_without_its_image(kit: Kit) -> None:
    version = publish(kit.store, ITEMS)
    disk = kit.cached("disk", version.id)
    assert disk.seal
    kit.files.discard(kit.files.sealed / version.id)
    with kit.files.making() as place, pytest.raises(Busy, match="dropped meanwhile"):
        kit.references.add(kit.files.disks, place, disk, disk.seal)


def test_no_image_is_dropped_under_a_record_that_appears(kit: Kit) -> None:
    """Disks of one version come and go at once: each that is there has its image."""
    version = publish(kit.store, ITEMS)
    stop = threading.Event()

    def live(number: int) -> None:
        for turn in range(15):
            name = f"disk-{number}-{turn}"
            try:
                disk = kit.cached(name, version.id)
            except Busy:
                continue
            assert kit.files.image(disk).exists()
            kit.images.delete(disk_id(name))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(live, range(4)))
    stop.set()
    assert [path for path in kit.shown() if path.startswith("disks/")] == []
    for place in kit.files.sealed.iterdir():
        age(place)
    kit.references.sweep()
    assert kit.shown() == []
