"""A disk directory with its backends, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefetch.store import Store
from csi.disks.backend import DiskBackend, SnapshotBackend, Wanted
from csi.disks.condition import Inspector
from csi.disks.files import DiskFiles
from csi.disks.images import ImageBackend
from csi.disks.jobs import Jobs
from csi.disks.model import Hold, Mode, Origin
from csi.disks.references import References
from csi.disks.rules import Range
from csi.disks.snapshots import ImageSnapshots
from csi.registry import NodeEntry, NodeRegistry

if TYPE_CHECKING:
    from pathlib import Path

    from csi.disks.model import Disk

MiB = 1 << 20
SECONDS = 30.0


class Kit:
    """What a controller is made of; a second one on the same root is a second controller."""

    def __init__(self, root: Path) -> None:
        self.store = Store.open(root / "state")
        self.files = DiskFiles.open(root / "disks")
        self.jobs = Jobs()
        self.discards = 0
        self.references = References(self.files, self._discarded)
        self.inspector = Inspector(self.files, self.jobs)
        self.nodes = NodeRegistry(self.files.nodes)
        self.images = ImageBackend(
            self.files, self.references, self.inspector, store=self.store, jobs=self.jobs, nodes=self.nodes
        )
        self.snapshots = ImageSnapshots(self.files, self.references, self.jobs)
        self.backends: tuple[DiskBackend, SnapshotBackend] = (self.images, self.snapshots)
        self.nodes.announce(NodeEntry(id="n1"))
        self.nodes.announce(NodeEntry(id="n2"))

    def create(self, name: str = "disk", size: int = 2 * MiB) -> Disk:
        """A building disk."""
        return self.images.create(Wanted(name=name, capacity=Range(size)), no_version, SECONDS)

    def cached(self, name: str, version: str) -> Disk:
        """A disk that shows that version of the cache `deps`."""
        wanted = Wanted(name=name, origin=Origin(cache="deps"), reads_only=True)
        return self.images.create(wanted, lambda: version, SECONDS)

    def shown(self) -> list[str]:
        """Everything in the disk directory but nodes, trash and staging."""
        kinds = (self.files.root / kind for kind in ("disks", "snapshots", "groups", "sealed"))
        return sorted(f"{kind.name}/{path.name}" for kind in kinds for path in kind.iterdir())

    def _discarded(self) -> None:
        self.discards += 1


def writer(node: str = "n1", *, readonly: bool = False) -> Hold:
    return Hold(node=node, mode=Mode.SINGLE_NODE_WRITER, readonly=readonly)


def reader(node: str = "n1") -> Hold:
    return Hold(node=node, mode=Mode.MULTI_NODE_READER_ONLY, readonly=False)


def no_version() -> str:
    """What only disks of caches need."""
    raise AssertionError("no version is needed")
