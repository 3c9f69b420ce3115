"""Who refers to which sealed image, and when one may go.

A record that refers to an image appears while the image's lock is held shared; an image is dropped under the same lock
held alone, after a look at all records. So none is dropped under a record that is about to appear.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cachefetch import durable
from cachefetch.errors import Busy
from cachefetch.model import short_id
from csi.disks import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from csi.disks.files import DiskFiles, Record, Shelf
    from csi.disks.model import Seal

GRACE = 600.0
"""Seconds that something which nobody refers to may be work under way, of another controller too."""
_KEEP = "keep"


class References:
    """The references of one disk directory."""

    def __init__(self, disk_files: DiskFiles, on_discard: Callable[[], None]) -> None:
        """`on_discard` hears that something went to the trash."""
        self._files = disk_files
        self._on_discard = on_discard

    def add(self, shelf: Shelf[Record], made: Path, record: Record, seal: Seal) -> bool:
        """Let the record appear, which refers to the image; False when there is one of its id already.

        Raises:
            Busy: the image was dropped meanwhile.
        """
        with files.using(self._files.sealed / seal.key) as there:
            if not there:
                raise Busy(f"the sealed image {short_id(seal.key)} was dropped meanwhile: try again")
            return shelf.add(made, record)

    def release(self, seal: Seal, retention: float) -> None:
        """A record that referred to the image is gone; the image goes too if it was the last, after `retention` s."""
        place = self._files.sealed / seal.key
        with files.dropping(place) as alone:
            if not alone or seal.key in self._used():
                return
            if retention:
                until = max(time.time() + retention, _kept_until(place))
                durable.replace(place / _KEEP, repr(until).encode())
            elif _kept_until(place) <= time.time():
                self.discard(place)

    def sweep(self) -> int:
        """Discard what crashes left behind and whose retention is over; returns how many things that were."""
        orphans = self._files.discard_orphans()
        if orphans:
            self._on_discard()
        return orphans + len(self._stale_images()) + len(self._stale_snapshots())

    def _stale_images(self) -> list[Path]:
        stale = []
        for place in self._files.sealed.iterdir():
            with files.dropping(place) as alone:
                if alone and _old(place) and place.name not in self._used() and _kept_until(place) <= time.time():
                    stale.append(place)
                    self.discard(place)
        return stale

    def _stale_snapshots(self) -> list[Path]:
        """Snapshots of groups that were never finished."""
        stale = []
        for snapshot in self._files.snapshots.all():
            place = self._files.snapshots.place(snapshot.id)
            if snapshot.group and _old(place) and self._files.groups.read(snapshot.group) is None:
                with self._files.snapshots.lock(snapshot.id):
                    self.discard(place)
                stale.append(place)
                self.release(snapshot.seal, 0)
        return stale

    def _used(self) -> set[str]:
        disks = {disk.seal.key for disk in self._files.disks.all() if disk.seal}
        return disks | {snapshot.seal.key for snapshot in self._files.snapshots.all()}

    def discard(self, place: Path) -> None:
        """Let what is at `place` go."""
        self._files.discard(place)
        self._on_discard()


def _old(place: Path) -> bool:
    try:
        return place.stat().st_mtime < time.time() - GRACE
    except FileNotFoundError:
        return False


def _kept_until(place: Path) -> float:
    try:
        return float((place / _KEEP).read_text("ascii"))
    except FileNotFoundError:
        return 0.0
