"""Is an image what it should be? Sealed ones are compared with their block list, building ones as far as can be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cachefetch.errors import NotReady
from cachefetch.model import short_id
from csi.disks import blocks, ext4
from csi.disks.errors import Damaged
from csi.disks.jobs import PATIENCE
from csi.disks.model import Condition

if TYPE_CHECKING:
    from pathlib import Path

    from csi.disks.files import DiskFiles
    from csi.disks.jobs import Jobs, Task
    from csi.disks.model import Disk, Seal


class Inspector:
    """Reads sealed images, each once as long as its file stays the same. Safe to use from many threads."""

    def __init__(self, files: DiskFiles, jobs: Jobs) -> None:
        self._files = files
        self._jobs = jobs
        self._lock = threading.Lock()
        self._known: dict[str, tuple[blocks.Identity, str]] = {}

    def check(self, seal: Seal, seconds: float) -> None:
        """Return if the sealed image is whole.

        Raises:
            Damaged: it is not; names the image and the block or file.
            NotReady: reading it takes longer than `seconds`.
        """
        found = self.damage(seal, seconds)
        if found:
            raise Damaged(
                f"image {seal.key} is not what was sealed: {found}; delete the volumes of it and make them anew"
            )

    def damage(self, seal: Seal, seconds: float) -> str:
        """What is wrong with the sealed image; empty: nothing.

        Raises:
            NotReady: reading it takes longer than `seconds`; with 0 it is not begun.
        """
        image = self._files.sealed_image(seal.key)
        try:
            now = blocks.identity(image)
        except FileNotFoundError:
            return f"file {image} is missing"
        known = self._known.get(seal.blocks)
        if known and known[0] == now:
            return known[1]
        if not seconds:
            raise NotReady(f"sealed image {short_id(seal.key)} was not read yet: ask for this volume alone")
        return self._jobs.run(f"inspect:{seal.blocks}", lambda task: self._read(seal, image, now, task), seconds)

    def condition(self, disk: Disk, seconds: float) -> Condition:
        """The condition of the disk's image.

        Raises:
            NotReady: reading it takes longer than `seconds`.
        """
        if disk.seal:
            found = self.damage(disk.seal, seconds)
            name = f"sealed image {short_id(disk.seal.key)}"
            return Condition(bool(found), f"{name}: {found}" if found else f"{name} is what was sealed")
        found = _building_damage(self._files.image(disk), disk.size)
        return Condition(bool(found), found or "building")

    def _read(self, seal: Seal, image: Path, now: blocks.Identity, task: Task) -> str:
        task.begin(f"image {short_id(seal.key)} is being read", seal.size)
        found = blocks.damage(image, self._files.sealed_blocks(seal.key), seal.blocks, task.advance)
        with self._lock:
            self._known[seal.blocks] = (now, found)
        return found


def _building_damage(image: Path, size: int) -> str:
    try:
        found = image.stat().st_size
        head = ext4.read_head(image)
    except FileNotFoundError:
        return f"file {image} is missing"
    if found < size:
        return f"file {image} has {found} bytes instead of {size}"
    if head is None:
        return f"file {image} holds no ext4: its superblock (bytes 1024 to 2047) is damaged"
    if head.errors:
        return f"the kernel found errors in the file system of {image}: unpublish the disk and take a snapshot"
    return ""


def check_ahead(files: DiskFiles, inspector: Inspector) -> None:
    """Read the sealed images of disks with `prefetch: always`, so that their first use on this node waits for nothing.

    Raises:
        NotReady: one takes longer; it goes on, and is found done the next time.
    """
    for disk in files.disks.all():
        if disk.seal and disk.settings.get("prefetch") == "always":
            inspector.damage(disk.seal, PATIENCE)
