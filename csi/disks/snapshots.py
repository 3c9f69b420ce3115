"""Snapshots of disks: records that refer to sealed images, alone or in groups."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cachefetch.errors import Conflict, InvalidRequest
from csi.disks import rules, seal
from csi.disks.errors import UnknownSnapshot
from csi.disks.ids import group_id, snapshot_id
from csi.disks.images import known
from csi.disks.model import Group, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from csi.disks.files import DiskFiles
    from csi.disks.jobs import Jobs, Task
    from csi.disks.model import Disk
    from csi.disks.references import References


class ImageSnapshots:
    """The `SnapshotBackend` of one disk directory."""

    def __init__(self, files: DiskFiles, references: References, jobs: Jobs) -> None:
        self._files = files
        self._references = references
        self._jobs = jobs

    def create(self, name: str, source: str, seconds: float) -> Snapshot:
        """See `SnapshotBackend.create`."""
        id_ = snapshot_id(name)
        snapshot = self._files.snapshots.read(id_)
        if snapshot is None:
            snapshot = self._jobs.run(f"{id_}:{source}", lambda task: self._seal_one(name, source, task), seconds)
        if snapshot.source != source or snapshot.name != name:
            raise Conflict(f"snapshot {name!r} exists and is of disk {snapshot.source}: use another name")
        return snapshot

    def create_group(self, name: str, sources: Sequence[str], seconds: float) -> Group:
        """See `SnapshotBackend.create_group`."""
        wanted = tuple(sorted(set(sources)))
        group = self._files.groups.read(group_id(name))
        if group is None:
            key = ":".join((group_id(name), *wanted))
            group = self._jobs.run(key, lambda task: self._seal_group(name, wanted, task), seconds)
        if group.sources != wanted or group.name != name:
            raise Conflict(f"group snapshot {name!r} exists and is of {', '.join(group.sources)}: use another name")
        return group

    def get(self, snapshot_id: str) -> Snapshot:
        """See `SnapshotBackend.get`."""
        snapshot = self._files.snapshots.read(snapshot_id)
        if snapshot is None:
            raise UnknownSnapshot(f"there is no snapshot {snapshot_id!r}: it was deleted, or never was")
        return snapshot

    def list(self) -> Iterator[Snapshot]:
        """See `SnapshotBackend.list`. Those of a group that is not finished are left out."""
        for snapshot in self._files.snapshots.all():
            if not snapshot.group or self._files.groups.read(snapshot.group):
                yield snapshot

    def delete(self, snapshot_id: str) -> None:
        """See `SnapshotBackend.delete`."""
        snapshot = self._files.snapshots.read(snapshot_id)
        if snapshot is not None and snapshot.group:
            raise InvalidRequest(f"snapshot {snapshot_id} belongs to group {snapshot.group}: delete the group")
        self._drop(snapshot_id)

    def get_group(self, group_id: str) -> Group:
        """See `SnapshotBackend.get_group`."""
        group = self._files.groups.read(group_id)
        if group is None:
            raise UnknownSnapshot(f"there is no group snapshot {group_id!r}: it was deleted, or never was")
        return group

    def delete_group(self, group_id: str) -> None:
        """See `SnapshotBackend.delete_group`. The group goes last, so that a repeat finds what is left."""
        group = self._files.groups.read(group_id)
        if group is None:
            return
        for member in group.snapshots:
            self._drop(member)
        with self._files.groups.lock(group_id) as there:
            if there:
                self._references.discard(self._files.groups.place(group_id))

    def _seal_one(self, name: str, source: str, task: Task) -> Snapshot:
        known(self._files, source)
        with self._files.disks.lock(source):
            disk = known(self._files, source)
            rules.check_quiet(disk, "take a snapshot of")
            return self._take(disk, name, snapshot_id(name), "", task)

    def _seal_group(self, name: str, sources: Sequence[str], task: Task) -> Group:
        """All locks first, in one order, so that nobody writes to any of them until the last is sealed."""
        id_ = group_id(name)
        with ExitStack() as holding:
            for source in sources:
                known(self._files, source)
                holding.enter_context(self._files.disks.lock(source))
            disks = [known(self._files, source) for source in sources]
            done = self._files.groups.read(id_)
            if done is not None:
                return done
            for disk in disks:
                rules.check_quiet(disk, "take a snapshot of")
            members = []
            for disk in disks:
                member = snapshot_id(name, disk.id)
                self._drop(member)  # of an attempt that a crash ended: the disk may have changed since
                members.append(self._take(disk, name, member, id_, task).id)
            group = Group(id=id_, name=name, sources=tuple(sources), snapshots=tuple(members), created=time.time())
            with self._files.making() as place:
                self._files.groups.add(place, group)
            return group

    def _take(self, disk: Disk, name: str, id_: str, group: str, task: Task) -> Snapshot:
        """Seal the disk, which is locked, and let the snapshot appear."""
        sealed = disk.seal or seal.seal_image(self._files, self._files.image(disk), task)
        snapshot = Snapshot(
            id=id_,
            name=name,
            source=disk.id,
            size=disk.size,
            created=time.time(),
            seal=sealed,
            cache=disk.cache,
            version=disk.version,
            group=group,
        )
        with self._files.making() as place:
            if self._references.add(self._files.snapshots, place, snapshot, sealed):
                return snapshot
        return self.get(id_)

    def _drop(self, snapshot_id: str) -> None:
        with self._files.snapshots.lock(snapshot_id) as there:
            snapshot = self._files.snapshots.read(snapshot_id) if there else None
            if snapshot is None:
                return
            self._references.discard(self._files.snapshots.place(snapshot_id))
        self._references.release(snapshot.seal, 0)
