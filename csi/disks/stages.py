"""What a node remembers of its disks: where each is staged and published, one small file a disk.

Written before each mount, so that nothing that is mounted is unknown. A reboot ends every mount, so no fsync is needed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cachefetch import durable
from cachefetch.decoding import UNREADABLE
from cachefetch.errors import Conflict, Precondition
from csi.disks.ids import is_image
from csi.disks.model import Hold, Mode  # noqa: TC001 - msgspec reads the annotations


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A target path where a disk is published."""

    path: str
    mode: Mode
    readonly: bool

    @property
    def place(self) -> Path:
        """The path."""
        return Path(self.path)


class Stage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A disk on this node."""

    id: str
    path: str
    """The staging path."""
    hold: Hold
    boot_id: str
    """The boot of the kernel that holds the mounts."""
    identity: tuple[int, int] | None = None
    """Device and inode of the mounted root; None: it was not mounted yet."""
    targets: tuple[Target, ...] = ()
    format: int = 1

    @property
    def place(self) -> Path:
        """The staging path."""
        return Path(self.path)


class Stages:
    """The stages below one directory."""

    def __init__(self, directory: Path, boot_id: str) -> None:
        """Keep them in `directory`, which is made when missing; `boot_id` is that of now."""
        self._directory = directory
        self.boot_id = boot_id
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, disk_id: str) -> Stage | None:
        """The stage of the disk; None when there is none, or only a damaged one (the machine lost power)."""
        if not is_image(disk_id, "disk"):
            return None
        try:
            return msgspec.json.decode(self._file(disk_id).read_bytes(), type=Stage)
        except (FileNotFoundError, *UNREADABLE):
            return None

    def write(self, stage: Stage) -> None:
        """Remember the stage instead of an older one."""
        durable.replace(self._file(stage.id), msgspec.json.encode(stage), durable=False)

    def remove(self, disk_id: str) -> None:
        """Forget the stage; absent is fine."""
        self._file(disk_id).unlink(missing_ok=True)

    def ids(self) -> list[str]:
        """The disks that are remembered, sorted."""
        return sorted(path.stem for path in self._directory.glob("disk-*.json"))

    def _file(self, disk_id: str) -> Path:
        return self._directory / f"{disk_id}.json"


def check_same_stage(stage: Stage, path: Path, hold: Hold) -> None:
    """Return if a repeated NodeStageVolume asks for what is there.

    Raises:
        Precondition: it is staged elsewhere.
        Conflict: it is staged in another way.
    """
    if stage.place != path:
        raise Precondition(f"disk {stage.id} is staged at {stage.path}: unstage it before it goes to {path}")
    if stage.hold != hold:
        raise Conflict(
            f"disk {stage.id} is staged with mode {stage.hold.mode} and readonly {stage.hold.readonly}, now "
            f"{hold.mode} and {hold.readonly} are asked for: unstage it first"
        )


def check_targets(disk_id: str, live: list[Target], wanted: Target) -> bool:
    """Whether the disk is at the wanted target already (CSI 1.12, NodePublishVolume: the table of second calls).

    Raises:
        Conflict: it is there, in another way.
        Precondition: it is elsewhere, and one of the modes allows one target only.
    """
    for target in live:
        if target.place == wanted.place:
            if target != wanted:
                raise Conflict(
                    f"disk {disk_id} is at {target.path} with mode {target.mode} and readonly {target.readonly}, now "
                    f"{wanted.mode} and {wanted.readonly} are asked for: unpublish it first"
                )
            return True
        if not (target.mode.many_targets and wanted.mode.many_targets):
            raise Precondition(
                f"disk {disk_id} is published at {target.path} with mode {target.mode}: unpublish it there before it "
                f"goes to {wanted.path}"
            )
    return False
