"""Disks on a node: staged once, published at any number of target paths.

    <state-dir>/run/disks/<disk-id>.json    where a disk is staged and published; written before each mount

A stage is also entered into the disk's own record, so that other nodes and the controller see who has it. What is
mounted is plain kernel state and needs this process no more.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cachefetch.errors import Busy, NotReady, Precondition, UnknownVolume
from cachefetch.logs import fields
from csi.disks import rules
from csi.disks.errors import OutOfRange
from csi.disks.images import known
from csi.disks.jobs import PATIENCE
from csi.disks.model import Condition, Filesystem, Hold
from csi.disks.stages import Stage, check_same_stage, check_targets
from csi.inflight import InFlight
from csi.mount import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from csi.disks.condition import Inspector
    from csi.disks.files import DiskFiles
    from csi.disks.model import Disk, Mode
    from csi.disks.mounts import ImageMounter
    from csi.disks.stages import Stages, Target
    from csi.mount import Mounter, Seen
    from csi.targets import Targets

_log = logging.getLogger(__name__)
_STACKED_MOUNTS_MAX = 1000
_DEPTH = 3  # disks/<id>/image, sealed/<key>/image


class DiskUsage(NamedTuple):
    """What is in a disk, and its condition."""

    bytes: tuple[int, int, int]
    """Total, used, available."""
    inodes: tuple[int, int, int]
    condition: Condition


class NodeDisks:
    """The disks of this node. Safe to use from many threads."""

    def __init__(
        self,
        files: DiskFiles,
        stages: Stages,
        inspector: Inspector,
        *,
        mounter: Mounter,
        images: ImageMounter,
        targets: Targets,
        node_id: str,
    ) -> None:
        """Mount the images of `files` as node `node_id`; `stages` remembers where."""
        self._files = files
        self._stages = stages
        self._inspector = inspector
        self._mounter = mounter
        self._images = images
        self._targets = targets
        self._node_id = node_id
        self._inflight = InFlight()

    def stage(self, disk_id: str, path: Path, mode: Mode, *, readonly: bool) -> None:
        """Mount the disk at the staging path.

        Raises:
            UnknownVolume: there is no such disk.
            Conflict: it is staged in another way.
            Precondition: another node has it, or something is in the way.
            Damaged: the sealed image is not what was sealed.
            NotReady: reading it takes longer.
        """
        with self._inflight.claim(disk_id):
            disk = known(self._files, disk_id)
            hold = Hold(node=self._node_id, mode=mode, readonly=readonly)
            stage = self._live(disk_id)
            if stage is not None:
                check_same_stage(stage, path, hold)
                return
            rules.check_mode(disk, mode)
            self._check_free(path)
            if disk.seal:
                self._inspector.check(disk.seal, PATIENCE)
            self._claim(disk_id, hold)
            try:
                self._mount(disk, path, hold)
            except BaseException:
                self._forget(disk_id)
                raise

    def unstage(self, disk_id: str, path: Path) -> None:
        """Unmount the disk; one that is not staged is fine.

        Raises:
            Precondition: it is still published, in use, or something foreign is at the path.
        """
        with self._inflight.claim(disk_id):
            stage = self._stages.read(disk_id)
            for target in stage.targets if stage else ():
                if self._shows(stage, target.place):
                    raise Precondition(f"disk {disk_id} is still published at {target.path}: unpublish it there first")
            self._unmount(path, stage)
            if stage is None or stage.place == path:
                self._forget(disk_id)

    def publish(self, disk_id: str, target: Target, staging: Path, authorise: Callable[[str], None]) -> bool:
        """Show the staged disk at the target path; returns whether it was there already.

        `authorise` is called with the cache that the disk shows before it is shown anew, and raises.

        Raises:
            UnknownVolume: there is no such disk.
            Precondition: it is not staged there, or is at another target and its mode allows one only.
            Conflict: it is at the target in another way.
        """
        with self._inflight.claim(disk_id):
            disk = known(self._files, disk_id)
            stage = self._live(disk_id)
            if stage is None or stage.place != staging:
                raise Precondition(f"disk {disk_id} is not staged at {staging}: stage it there first")
            if stage.hold.readonly or disk.seal:
                target = msgspec.structs.replace(target, readonly=True)
            rules.check_mode(disk, target.mode)
            live = [other for other in stage.targets if self._shows(stage, other.place)]
            if check_targets(disk_id, live, target):
                return True
            if disk.cache:
                authorise(disk.cache)
            self._targets.check_free(target.place)
            self._stages.write(msgspec.structs.replace(stage, targets=(*live, target)))
            self._show(stage, target)
            return False

    def unpublish(self, disk_id: str, target: Path) -> None:
        """Take the disk away from the target; one that is not there is fine.

        Raises:
            Precondition: it is in use, or something foreign is at the path.
        """
        with self._inflight.claim(disk_id):
            stage = self._stages.read(disk_id)
            self._unmount(target, stage)
            self._targets.hide(target, self._files.root, None)
            if stage is not None:
                left = tuple(other for other in stage.targets if other.place != target)
                self._stages.write(msgspec.structs.replace(stage, targets=left))

    def usage(self, disk_id: str, path: Path) -> DiskUsage:
        """What is in the disk that is staged or published at the path.

        Raises:
            UnknownVolume: it is not there.
        """
        stage = self._stage_at(disk_id, path)
        seen = self._mounter.look(path)
        if seen.kind is Kind.DEAD or not self._is(stage, seen):
            gone = Condition(abnormal=True, message=f"the disk is not mounted at {path} any more: delete the pod")
            return DiskUsage((0, 0, 0), (0, 0, 0), gone)
        status = os.statvfs(path)
        size = status.f_frsize
        return DiskUsage(
            (status.f_blocks * size, (status.f_blocks - status.f_bfree) * size, status.f_bavail * size),
            (status.f_files, status.f_files - status.f_ffree, status.f_favail),
            self._condition(disk_id),
        )

    def expand(self, disk_id: str, path: Path, required: int) -> int:
        """The size of the disk, whose file system the controller has grown.

        Raises:
            UnknownVolume: it is not at the path.
            OutOfRange: it is smaller than `required`.
        """
        disk = known(self._files, disk_id)
        self._stage_at(disk_id, path)
        if disk.size < required:
            raise OutOfRange(
                f"disk {disk_id} has {disk.size} bytes, {required} are asked for: unpublish it and expand it in the "
                "controller first"
            )
        return disk.size

    def recover(self) -> int:
        """Give back what this node had and has no more; returns how many disks stay. Before the first call."""
        kept = {disk_id for disk_id in self._stages.ids() if self._recovered(disk_id)}
        for disk in self._files.disks.all():
            if disk.id not in kept and any(hold.node == self._node_id for hold in disk.staged):
                try:
                    self._release(disk.id)
                except Busy as error:  # a long copy of the disk must not keep the whole node from starting
                    _log.warning("hold_stays", extra=fields(disk=disk.id, error=str(error)))
        return len(kept)

    def _recovered(self, disk_id: str) -> bool:
        """Whether the disk is still mounted somewhere; if not, it is forgotten."""
        stage = self._stages.read(disk_id)
        if stage is not None and stage.boot_id == self._stages.boot_id:
            paths = (stage.place, *(target.place for target in stage.targets))
            if any(self._shows(stage, path) and self._is_image_of(disk_id, path) for path in paths):
                return True
            seen = self._mounter.look(stage.place)
            if stage.identity is None and seen.mount_root and self._is_ours(seen):
                self._mounter.unmount(stage.place)  # the process ended between the mount and the note of it
        self._stages.remove(disk_id)
        return False

    # Mounts

    def _mount(self, disk: Disk, path: Path, hold: Hold) -> None:
        stage = Stage(id=disk.id, path=str(path), hold=hold, boot_id=self._stages.boot_id)
        self._stages.write(stage)
        filesystem = disk.seal.filesystem if disk.seal else Filesystem.EXT4
        self._images.mount(self._files.image(disk), filesystem, path, readonly=not hold.writes)
        identity = self._mounter.look(path).identity
        self._stages.write(msgspec.structs.replace(stage, identity=identity))

    def _show(self, stage: Stage, target: Target) -> None:
        try:
            target.place.mkdir(mode=0o750)
            made = True
        except FileExistsError:
            made = False
        except FileNotFoundError as error:
            raise Precondition(
                f"target {target.path} has no parent directory: the caller must make it (CSI)"
            ) from error
        try:
            self._images.bind(stage.place, target.place, readonly=target.readonly)
        except BaseException:
            if made:
                target.place.rmdir()
            raise

    def _unmount(self, path: Path, stage: Stage | None) -> None:
        for _ in range(_STACKED_MOUNTS_MAX):
            seen = self._mounter.look(path)
            if not seen.mount_root:
                return
            if not self._is(stage, seen) and not self._is_ours(seen):
                raise Precondition(f"{path} has a foreign mount: unmount it yourself")
            self._mounter.unmount(path)

    def _check_free(self, path: Path) -> None:
        if self._mounter.look(path).mount_root:
            raise Precondition(f"staging path {path} has a mount already: unmount it, then try again")

    def _live(self, disk_id: str) -> Stage | None:
        """The stage of the disk, if it is mounted."""
        stage = self._stages.read(disk_id)
        if stage is None or stage.boot_id != self._stages.boot_id or not self._shows(stage, stage.place):
            return None
        return stage

    def _shows(self, stage: Stage | None, path: Path) -> bool:
        return self._is(stage, self._mounter.look(path))

    def _is(self, stage: Stage | None, seen: Seen) -> bool:
        return seen.mount_root and stage is not None and stage.identity is not None and seen.identity == stage.identity

    def _is_ours(self, seen: Seen) -> bool:
        """Whether the mount shows an image of ours, also when nothing is recorded of it any more."""
        backing = self._images.backing(seen.mount_id)
        return backing is not None and _place_of(backing)[0] in {"disks", "sealed", "trash"}

    def _is_image_of(self, disk_id: str, path: Path) -> bool:
        """Whether the disk's own image is mounted at the path: another one may have got the same loop device since."""
        disk = self._files.disks.read(disk_id)
        backing = self._images.backing(self._mounter.look(path).mount_id)
        return disk is None or backing is None or _place_of(backing) == _place_of(self._files.image(disk))

    def _stage_at(self, disk_id: str, path: Path) -> Stage:
        stage = self._stages.read(disk_id)
        if stage is None or path not in {stage.place, *(target.place for target in stage.targets)}:
            raise UnknownVolume(f"disk {disk_id!r} is not at {path}: it was unpublished, or never was")
        return stage

    def _condition(self, disk_id: str) -> Condition:
        disk = self._files.disks.read(disk_id)
        if disk is None:
            return Condition(abnormal=True, message=f"the record of {disk_id} is missing from {self._files.root}")
        try:
            return self._inspector.condition(disk, PATIENCE)
        except NotReady as error:
            return Condition(abnormal=False, message=str(error))

    # Holds

    def _claim(self, disk_id: str, hold: Hold) -> None:
        with self._files.disks.lock(disk_id):
            disk = known(self._files, disk_id)
            rules.check_holders(disk, [other for other in disk.holds if other.node != hold.node], hold)
            mine = (*(other for other in disk.staged if other.node != hold.node), hold)
            self._files.disks.write(msgspec.structs.replace(disk, staged=mine))

    def _forget(self, disk_id: str) -> None:
        self._release(disk_id)
        self._stages.remove(disk_id)

    def _release(self, disk_id: str) -> None:
        with self._files.disks.lock(disk_id) as there:
            disk = self._files.disks.read(disk_id) if there else None
            if disk is None:
                return
            left = tuple(hold for hold in disk.staged if hold.node != self._node_id)
            if left != disk.staged:
                self._files.disks.write(msgspec.structs.replace(disk, staged=left))


def _place_of(image: Path) -> tuple[str, ...]:
    """Where in a disk directory the image is. What is above it depends on the container that mounted it."""
    return image.parts[-3:] if len(image.parts) > _DEPTH and image.name == "image" else ("", "", "")
