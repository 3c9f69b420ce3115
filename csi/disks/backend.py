"""What the controller service needs of whoever keeps disks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from csi.disks.model import Origin
from csi.disks.rules import Range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from csi.disks.model import Condition, Disk, Group, Hold, Snapshot


@dataclass(frozen=True)
class Wanted:
    """A disk that somebody asks for."""

    name: str
    capacity: Range = field(default_factory=Range)
    origin: Origin = field(default_factory=Origin)
    reads_only: bool = False
    """Sealed from the start."""
    settings: Mapping[str, str] = field(default_factory=dict)


class DiskBackend(Protocol):
    """Keeps disks. Safe to use from many threads and from several processes at once.

    Every verb may be repeated with the same result, and may raise Busy when another call works on the same disk. Verbs
    that take `seconds` wait so long and then raise NotReady with the progress, while the work goes on.
    """

    def create(self, wanted: Wanted, choose: Callable[[], str], seconds: float) -> Disk:
        """The disk of that name, made when there is none from what `wanted.origin` says.

        `choose` tells the version of its cache, may wait for it, and is called only when one must be sealed.

        Raises:
            Conflict: there is one, and it is another.
            OutOfRange: the capacity cannot be had.
            UnknownVolume, UnknownSnapshot: there is no such source.
            InvalidRequest: the source cannot become such a disk.
            Precondition: the source may be written to now.
        """

    def delete(self, disk_id: str) -> None:
        """Let the disk be gone; unknown ones are.

        Raises:
            Precondition: a node has it, or it is pinned.
        """

    def get(self, disk_id: str) -> Disk:
        """The disk.

        Raises:
            UnknownVolume: there is none.
        """

    def list(self) -> Iterator[Disk]:
        """Every disk, sorted by id."""

    def attach(self, disk_id: str, hold: Hold) -> Disk:
        """Let a node have the disk.

        Raises:
            UnknownVolume, UnknownNode: there is none.
            Conflict: the node has it in another way.
            Precondition: another node has it.
            OutOfSpace: the node has as many as it may have.
        """

    def detach(self, disk_id: str, node: str) -> None:
        """Take the disk away from the node (empty: from all), which is done with it or dead; unknown is fine."""

    def expand(self, disk_id: str, capacity: Range, seconds: float) -> Disk:
        """Let the disk be at least as large.

        Raises:
            UnknownVolume: there is none.
            InvalidRequest: it is sealed.
            Precondition: a node has it.
            OutOfRange: the capacity cannot be had.
        """

    def modify(self, disk_id: str, settings: Mapping[str, str]) -> None:
        """Change these settings of the disk and no others.

        Raises:
            UnknownVolume: there is none.
        """

    def condition(self, disk: Disk, seconds: float) -> Condition:
        """Whether the image is what it should be; a sealed one is read when its file changed since the last time."""

    def capacity(self) -> int:
        """Bytes that the largest new disk may have."""


class SnapshotBackend(Protocol):
    """Keeps snapshots; see `DiskBackend`."""

    def create(self, name: str, source: str, seconds: float) -> Snapshot:
        """The snapshot of that name, of the disk `source`.

        Raises:
            UnknownVolume: there is no such disk.
            Conflict: there is one of another disk.
            Precondition: the disk may be written to now.
        """

    def create_group(self, name: str, sources: Sequence[str], seconds: float) -> Group:
        """Snapshots of all the disks, between which none of them changed; see `create`."""

    def get(self, snapshot_id: str) -> Snapshot:
        """The snapshot.

        Raises:
            UnknownSnapshot: there is none.
        """

    def list(self) -> Iterator[Snapshot]:
        """Every snapshot, sorted by id."""

    def delete(self, snapshot_id: str) -> None:
        """Let the snapshot be gone; unknown ones are.

        Raises:
            InvalidRequest: it belongs to a group.
        """

    def get_group(self, group_id: str) -> Group:
        """The group of snapshots.

        Raises:
            UnknownSnapshot: there is none.
        """

    def delete_group(self, group_id: str) -> None:
        """Let the group and its snapshots be gone; unknown ones are."""
