"""The disk backend that needs nothing but a directory: every disk is an image file. See docs/adr/0010."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from cachefetch import durable
from cachefetch.errors import InvalidRequest, OutOfSpace, Precondition, UnknownVolume
from csi.disks import rules, seal, tools
from csi.disks.errors import UnknownSnapshot
from csi.disks.ids import disk_id
from csi.disks.model import Disk, Filesystem, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cachefetch.store import Store
    from csi.disks.backend import Wanted
    from csi.disks.condition import Inspector
    from csi.disks.files import DiskFiles
    from csi.disks.jobs import Jobs, Task
    from csi.disks.model import Condition, Hold, Seal
    from csi.disks.references import References
    from csi.disks.rules import Range
    from csi.registry import NodeRegistry


class ImageBackend:
    """The `DiskBackend` of one disk directory."""

    def __init__(
        self,
        files: DiskFiles,
        references: References,
        inspector: Inspector,
        *,
        store: Store,
        jobs: Jobs,
        nodes: NodeRegistry,
    ) -> None:
        """Keep disks in `files`; caches are sealed from the golden trees of `store`."""
        self._files = files
        self._references = references
        self._inspector = inspector
        self._store = store
        self._jobs = jobs
        self._nodes = nodes

    def create(self, wanted: Wanted, choose: Callable[[], str], seconds: float) -> Disk:
        """See `DiskBackend.create`."""
        id_ = disk_id(wanted.name)
        disk = self._files.disks.read(id_)
        if disk is None:
            version = self._version(wanted, choose)
            # Calls that ask for the same join one job; one that asks for something else must get its own answer.
            request = hashlib.sha256(repr((wanted, version)).encode()).hexdigest()
            disk = self._jobs.run(f"create:{id_}:{request}", lambda task: self._make(wanted, version, task), seconds)
        rules.check_same_disk(disk, wanted.name, wanted.capacity, wanted.origin, reads_only=wanted.reads_only)
        return disk

    def delete(self, disk_id: str) -> None:
        """See `DiskBackend.delete`."""
        with self._files.disks.lock(disk_id) as there:
            disk = self._files.disks.read(disk_id) if there else None
            if disk is None:
                return
            rules.check_unused(disk, "delete")
            if disk.settings.get("pin") == "true":
                raise Precondition(f"disk {disk_id} is pinned: set its parameter pin to 'false' before you delete it")
            self._references.discard(self._files.disks.place(disk_id))
        if disk.seal:
            self._references.release(disk.seal, rules.retention_seconds(disk.settings.get("retention", "")))

    def get(self, disk_id: str) -> Disk:
        """See `DiskBackend.get`."""
        return known(self._files, disk_id)

    def list(self) -> Iterator[Disk]:
        """See `DiskBackend.list`."""
        return self._files.disks.all()

    def attach(self, disk_id: str, hold: Hold) -> Disk:
        """See `DiskBackend.attach`."""
        known(self._files, disk_id)
        node = self._nodes.get(hold.node)
        with ExitStack() as holding:
            if node.max_volumes:
                busy = f"another disk is being attached to node {hold.node!r}: try again when that is done"
                holding.enter_context(durable.exclusive(self._nodes.lock(hold.node), busy))
            holding.enter_context(self._files.disks.lock(disk_id))
            disk = known(self._files, disk_id)
            rules.check_mode(disk, hold.mode)
            elsewhere = [other for other in disk.staged if other.node != hold.node]
            rules.check_holders(disk, [*disk.attached, *elsewhere], hold)
            if hold in disk.attached:
                return disk
            if node.max_volumes and self._count(hold.node) >= node.max_volumes:
                raise OutOfSpace(
                    f"node {hold.node!r} has {node.max_volumes} disks, as many as it may have: unpublish one, or raise "
                    "its --max-volumes"
                )
            return self._write(msgspec.structs.replace(disk, attached=(*disk.attached, hold)))

    def detach(self, disk_id: str, node: str) -> None:
        """See `DiskBackend.detach`."""
        with self._files.disks.lock(disk_id) as there:
            disk = self._files.disks.read(disk_id) if there else None
            if disk is None or not any(hold.node == node or not node for hold in disk.holds):
                return
            self._write(
                msgspec.structs.replace(
                    disk,
                    attached=tuple(hold for hold in disk.attached if node and hold.node != node),
                    staged=tuple(hold for hold in disk.staged if node and hold.node != node),
                )
            )

    def expand(self, disk_id: str, capacity: Range, seconds: float) -> Disk:
        """See `DiskBackend.expand`."""
        known(self._files, disk_id)
        request = f"expand:{disk_id}:{capacity}"
        return self._jobs.run(request, lambda task: self._expand(disk_id, capacity, task), seconds)

    def modify(self, disk_id: str, settings: Mapping[str, str]) -> None:
        """See `DiskBackend.modify`."""
        known(self._files, disk_id)
        with self._files.disks.lock(disk_id):
            disk = known(self._files, disk_id)
            self._write(msgspec.structs.replace(disk, settings={**disk.settings, **settings}))

    def condition(self, disk: Disk, seconds: float) -> Condition:
        """See `DiskBackend.condition`."""
        return self._inspector.condition(disk, seconds)

    def capacity(self) -> int:
        """See `DiskBackend.capacity`."""
        return min(self._files.free_bytes(), rules.CEILING)

    def _count(self, node: str) -> int:
        return sum(any(hold.node == node for hold in disk.attached) for disk in self._files.disks.all())

    def _write(self, disk: Disk) -> Disk:
        self._files.disks.write(disk)
        return disk

    def _expand(self, disk_id: str, capacity: Range, task: Task) -> Disk:
        """Grow a copy and put it in the image's place: resize2fs that is interrupted leaves a broken file system."""
        with self._files.disks.lock(disk_id):
            disk = known(self._files, disk_id)
            if disk.seal:
                raise InvalidRequest(f"disk {disk_id} is sealed and cannot grow: make a writable clone of it")
            if capacity.admits(disk.size):
                return disk
            rules.check_unused(disk, "expand")
            most = min(disk.size + self.capacity(), rules.CEILING)
            size = rules.choose_size(capacity, least=disk.size, default=disk.size, most=most)
            image = self._files.image(disk)
            with self._files.making() as place:
                _copy_grown(image, place / "image", size, task)
                (place / "image").rename(image)
            return self._write(msgspec.structs.replace(disk, size=size))

    def _version(self, wanted: Wanted, choose: Callable[[], str]) -> str:
        """The version to show; one that is sealed already need not be in the store any more."""
        origin = wanted.origin
        if not origin.cache or origin.disk or origin.snapshot:
            return ""
        if origin.version and seal.find(self._files, origin.version, Filesystem.EROFS):
            return origin.version
        return choose()

    # Making one

    def _make(self, wanted: Wanted, version: str, task: Task) -> Disk:
        origin = wanted.origin
        if origin.snapshot:
            snapshot = self._files.snapshots.read(origin.snapshot)
            if snapshot is None:
                raise UnknownSnapshot(f"there is no snapshot {origin.snapshot!r}: it was deleted, or never was")
            return self._from_seal(wanted, snapshot, snapshot.seal, task)
        if origin.disk:
            return self._clone(wanted, task)
        if origin.cache:
            sealed = seal.seal_version(self._files, self._store, origin.cache, version, task)
            return self._refer(wanted, sealed, origin.cache, version, sealed.size)
        if wanted.reads_only:
            raise InvalidRequest(
                f"volume {wanted.name!r} would be empty and read-only for ever: give it a snapshot or a volume as data "
                "source, or use a StorageClass with the parameter 'cache'"
            )
        return self._empty(wanted, task)

    def _empty(self, wanted: Wanted, task: Task) -> Disk:
        most = self.capacity()
        size = rules.choose_size(wanted.capacity, least=rules.MINIMUM, default=rules.DEFAULT, most=most)
        with self._files.making() as place:
            _allot(place / "image", size)
            task.begin("the file system is being made")
            tools.make_ext4(place / "image", task)
            return self._appear(place, self._record(wanted, size))

    def _clone(self, wanted: Wanted, task: Task) -> Disk:
        """A disk with the content of another one, which nobody may write to meanwhile."""
        known(self._files, wanted.origin.disk)
        with self._files.disks.lock(wanted.origin.disk):
            source = known(self._files, wanted.origin.disk)
            if source.seal:
                return self._from_seal(wanted, source, source.seal, task)
            check_same_cache(wanted, source)
            rules.check_quiet(source, "clone")
            if wanted.reads_only:
                sealed = seal.seal_image(self._files, self._files.image(source), task)
                return self._refer(wanted, sealed, source.cache, source.version, source.size)
            return self._copy(wanted, self._files.image(source), source, task)

    def _from_seal(self, wanted: Wanted, source: Disk | Snapshot, sealed: Seal, task: Task) -> Disk:
        check_same_cache(wanted, source)
        if wanted.reads_only:
            return self._refer(wanted, sealed, source.cache, source.version, source.size)
        if sealed.filesystem is not Filesystem.EXT4:
            raise InvalidRequest(
                f"{source.id} shows cache {source.cache!r}, which nobody can write to: use accessModes [ReadOnlyMany], "
                "or an inline volume with access 'private'"
            )
        return self._copy(wanted, self._files.sealed_image(sealed.key), source, task)

    def _refer(self, wanted: Wanted, sealed: Seal, cache: str, version: str, least: int) -> Disk:
        if not wanted.reads_only:
            raise InvalidRequest(
                f"volume {wanted.name!r} shows cache {cache!r} and is read-only: use accessModes [ReadOnlyMany]"
            )
        size = rules.choose_size(wanted.capacity, least=least, default=least, most=max(least, rules.CEILING))
        disk = self._record(wanted, size, sealed=sealed, cache=cache, version=version)
        with self._files.making() as place:
            if self._references.add(self._files.disks, place, disk, sealed):
                return disk
        return known(self._files, disk.id)

    def _copy(self, wanted: Wanted, image: Path, source: Disk | Snapshot, task: Task) -> Disk:
        size = rules.choose_size(
            wanted.capacity, least=source.size, default=source.size, most=max(source.size, self.capacity())
        )
        with self._files.making() as place:
            _copy_grown(image, place / "image", size, task)
            return self._appear(place, self._record(wanted, size, cache=source.cache, version=source.version))

    def _appear(self, place: Path, disk: Disk) -> Disk:
        return disk if self._files.disks.add(place, disk) else known(self._files, disk.id)

    def _record(
        self, wanted: Wanted, size: int, *, sealed: Seal | None = None, cache: str = "", version: str = ""
    ) -> Disk:
        return Disk(
            id=disk_id(wanted.name),
            name=wanted.name,
            size=size,
            created=time.time(),
            origin=wanted.origin,
            seal=sealed,
            cache=cache,
            version=version,
            settings=dict(wanted.settings),
        )


def known(files: DiskFiles, disk_id: str) -> Disk:
    """The disk.

    Raises:
        UnknownVolume: there is none.
    """
    disk = files.disks.read(disk_id)
    if disk is None:
        raise UnknownVolume(f"there is no volume {disk_id!r}: it was deleted, or never was")
    return disk


def check_same_cache(wanted: Wanted, source: Disk | Snapshot) -> None:
    """Return if the data source shows the cache that the StorageClass names, if it names one.

    Raises:
        InvalidRequest: it does not.
    """
    if wanted.origin.cache and wanted.origin.cache != source.cache:
        raise InvalidRequest(
            f"{source.id} does not show cache {wanted.origin.cache!r}: use a StorageClass without 'cache' for it"
        )


def _copy_grown(source: Path, target: Path, size: int, task: Task) -> None:
    """Copy an ext4 image, clean and of the given size."""
    seal.copy(source, target, task)
    target.chmod(0o600)
    task.begin("the file system of the copy is being checked")
    tools.mend_ext4(target, task)
    if size > target.stat().st_size:
        with target.open("r+b") as file:
            file.truncate(size)
        tools.grow_ext4(target, task)
    with target.open("r+b") as file:
        file.truncate(size)  # resize2fs cuts the file to whole blocks
        os.fsync(file.fileno())


def _allot(image: Path, size: int) -> None:
    with image.open("xb") as file:
        file.truncate(size)
    image.chmod(0o600)
