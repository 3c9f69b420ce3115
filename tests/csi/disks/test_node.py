"""The disks of one node, with real mounts; several nodes and the service are in test_cluster.py."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from cachefetch.errors import Busy, Conflict, InvalidRequest, NotAllowed, Precondition, UnknownVolume
from csi import syscalls
from csi.disks.errors import OutOfRange
from csi.disks.model import Filesystem, Mode
from csi.disks.mounts import KernelImages
from csi.disks.node import NodeDisks
from csi.disks.stages import Stages, Target
from csi.mount import KernelMounter
from csi.targets import Targets
from tests.cachefetch.fakes import File, publish
from tests.conftest import mounts_below
from tests.csi.disks.kit import Kit, MiB

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root
W, R, MW = Mode.SINGLE_NODE_WRITER, Mode.MULTI_NODE_READER_ONLY, Mode.SINGLE_NODE_MULTI_WRITER


class Failing(KernelImages):
    """Real mounts, of which the next one fails after it was made or before."""

    failures: list[OSError]

    def mount(self, image: Path, filesystem: Filesystem, target: Path, *, readonly: bool) -> None:
        if self.failures:
            raise self.failures.pop()
        super().mount(image, filesystem, target, readonly=readonly)

    def bind(self, source: Path, target: Path, *, readonly: bool) -> None:
        if self.failures:
            raise self.failures.pop()
        super().bind(source, target, readonly=readonly)


class Node:
    """A node of the kit; a second one on the same place is the same node after a restart."""

    def __init__(self, kit: Kit, place: Path, name: str = "n1", boot_id: str = "boot") -> None:
        self.place = place
        mounter = KernelMounter(place / "workshop")
        self.images = Failing(mounter)
        self.images.failures = []
        self.stages = Stages(place / "run", boot_id)
        self.disks = NodeDisks(
            kit.files,
            self.stages,
            kit.inspector,
            mounter=mounter,
            images=self.images,
            targets=Targets(mounter),
            node_id=name,
        )
        self.staging = place / "staging"
        self.staging.mkdir(exist_ok=True)

    def target(self, pod: str = "pod", mode: Mode = W, *, readonly: bool = False) -> Target:
        path = self.place / pod / "mount"
        path.parent.mkdir(exist_ok=True)
        return Target(path=str(path), mode=mode, readonly=readonly)

    def publish(self, disk_id: str, target: Target) -> bool:
        return self.disks.publish(disk_id, target, self.staging, lambda _cache: None)


@pytest.fixture
def node(kit: Kit, tmp_path: Path) -> Iterator[Node]:
    place = tmp_path / "node"
    place.mkdir()
    yield Node(kit, place)
    for point in reversed(mounts_below(place)):
        syscalls.umount(Path(point), syscalls.MNT_DETACH)


def test_repeats_change_nothing(kit: Kit, node: Node) -> None:
    disk = kit.create().id
    for _ in range(3):
        node.disks.stage(disk, node.staging, W, readonly=False)
    assert [node.publish(disk, node.target()) for _ in range(3)] == [False, True, True]
    assert len(mounts_below(node.place)) == 2
    for _ in range(3):
        node.disks.unpublish(disk, node.target().place)
    for _ in range(3):
        node.disks.unstage(disk, node.staging)
    assert mounts_below(node.place) == []
    assert kit.images.get(disk).holds == ()
    assert node.stages.ids() == []


def test_another_way_is_a_conflict_and_another_place_refused(kit: Kit, node: Node) -> None:
    disk = kit.create().id
    node.disks.stage(disk, node.staging, MW, readonly=False)
    with pytest.raises(Conflict):
        node.disks.stage(disk, node.staging, W, readonly=False)
    with pytest.raises(Precondition, match=str(node.staging)):
        node.disks.stage(disk, node.place, MW, readonly=False)
    node.publish(disk, node.target(mode=MW))
    with pytest.raises(Conflict, match="readonly"):
        node.publish(disk, node.target(mode=MW, readonly=True))
    with pytest.raises(Precondition, match="is published at"):
        node.publish(disk, node.target("other", W))
    assert not node.target("other").place.exists()
    node.publish(disk, node.target("other", MW, readonly=True))
    with pytest.raises(OSError) as caught:
        (node.target("other").place / "x").touch()
    assert caught.value.errno == errno.EROFS
    (node.target().place / "x").touch()
    with pytest.raises(Precondition, match="still published"):
        node.disks.unstage(disk, node.staging)


def test_readonly_attachment_is_mounted_read_only(kit: Kit, node: Node) -> None:
    """A building disk that was attached read-only cannot be written by any path, nor its journal replayed."""
    disk = kit.create()
    before = kit.files.image(disk).read_bytes()
    node.disks.stage(disk.id, node.staging, W, readonly=True)
    node.publish(disk.id, node.target())
    for place in (node.staging, node.target().place):
        with pytest.raises(OSError) as caught:
            (place / "x").touch()
        assert caught.value.errno == errno.EROFS
    node.disks.unpublish(disk.id, node.target().place)
    node.disks.unstage(disk.id, node.staging)
    assert kit.files.image(disk).read_bytes() == before


def test_failed_mount_gives_everything_back(kit: Kit, node: Node) -> None:
    """Kubelet may never call again after an error."""
    disk = kit.create().id
    node.images.failures = [OSError(errno.EIO, "broken")]
    with pytest.raises(OSError, match="broken"):
        node.disks.stage(disk, node.staging, W, readonly=False)
    assert kit.images.get(disk).holds == ()
    assert node.stages.ids() == []
    node.disks.stage(disk, node.staging, W, readonly=False)
    node.images.failures = [OSError(errno.EIO, "broken")]
    with pytest.raises(OSError, match="broken"):
        node.publish(disk, node.target())
    assert not node.target().place.exists()
    node.publish(disk, node.target())


def test_what_is_not_there_or_in_the_way_is_named(kit: Kit, node: Node) -> None:
    disk = kit.create().id
    with pytest.raises(UnknownVolume):
        node.disks.stage("disk-x", node.staging, W, readonly=False)
    with pytest.raises(InvalidRequest, match="building"):
        node.disks.stage(disk, node.staging, R, readonly=False)
    with pytest.raises(Precondition, match="not staged"):
        node.publish(disk, node.target())
    syscalls.mount("tmpfs", node.staging, 0, fstype="tmpfs")
    with pytest.raises(Precondition, match="has a mount already"):
        node.disks.stage(disk, node.staging, W, readonly=False)
    with pytest.raises(Precondition, match="foreign mount"):
        node.disks.unstage(disk, node.staging)
    syscalls.umount(node.staging, 0)
    node.disks.stage(disk, node.staging, W, readonly=False)
    target = node.target().place
    target.mkdir()
    (target / "foreign").touch()
    with pytest.raises(Precondition, match="foreign"):
        node.publish(disk, node.target())
    assert (target / "foreign").exists()
    (target / "foreign").unlink()
    with pytest.raises(Precondition, match="no parent"):
        node.publish(disk, Target(path=str(node.place / "a" / "b"), mode=W, readonly=False))


def test_disk_in_use_stays(kit: Kit, node: Node) -> None:
    disk = kit.create().id
    node.disks.stage(disk, node.staging, W, readonly=False)
    node.publish(disk, node.target())
    with (node.target().place / "open").open("w"), pytest.raises(Precondition, match="still uses it"):
        node.disks.unpublish(disk, node.target().place)
    node.disks.unpublish(disk, node.target().place)


def test_authorisation_is_asked_for_caches_before_anything_is_shown(kit: Kit, node: Node) -> None:
    disk = kit.cached("disk", publish(kit.store, (File(b"a", b"1"),)).id).id
    node.disks.stage(disk, node.staging, R, readonly=False)
    asked: list[str] = []

    def refuse(cache: str) -> None:
        asked.append(cache)
        raise NotAllowed("no")

    target = node.target(mode=R)
    with pytest.raises(NotAllowed):
        node.disks.publish(disk, target, node.staging, refuse)
    assert asked == ["deps"]
    assert not target.place.exists()
    node.publish(disk, target)
    assert node.disks.publish(disk, target, node.staging, refuse)  # a volume that lives stays
    assert (target.place / "a").read_bytes() == b"1"


def test_usage_and_condition_at_every_path_of_the_disk(kit: Kit, node: Node) -> None:
    disk = kit.create(size=8 * MiB).id
    node.disks.stage(disk, node.staging, W, readonly=False)
    node.publish(disk, node.target())
    before = node.disks.usage(disk, node.target().place)
    (node.target().place / "data").write_bytes(b"x" * MiB)
    after = node.disks.usage(disk, node.staging)
    assert after.bytes[1] - before.bytes[1] == MiB
    assert after.inodes[1] - before.inodes[1] == 1
    assert not after.condition.abnormal
    for place in (Path("some/path"), node.place):
        with pytest.raises(UnknownVolume):
            node.disks.usage(disk, place)
    syscalls.umount(node.target().place, 0)
    assert node.disks.usage(disk, node.target().place).condition.abnormal
    assert node.disks.expand(disk, node.staging, 8 * MiB) == 8 * MiB
    with pytest.raises(OutOfRange, match="controller"):
        node.disks.expand(disk, node.staging, 9 * MiB)
    kit.files.discard(kit.files.disks.place(disk))
    assert "record" in node.disks.usage(disk, node.staging).condition.message


def test_restart_keeps_what_lives_and_gives_back_what_does_not(kit: Kit, node: Node) -> None:
    lives, gone, lost = (kit.create(name).id for name in ("lives", "gone", "lost"))
    for disk in (gone, lost):
        node.disks.stage(disk, node.staging, W, readonly=False)
        syscalls.umount(node.staging, 0)
    node.stages.remove(lost)
    node.disks.stage(lives, node.staging, W, readonly=False)
    node.publish(lives, node.target())
    again = Node(kit, node.place)
    assert again.disks.recover() == 1
    assert again.stages.ids() == [lives]
    assert [bool(kit.images.get(disk).holds) for disk in (lives, gone, lost)] == [True, False, False]
    assert again.publish(lives, again.target())


def test_restart_ends_a_stage_that_was_not_noted_as_done(kit: Kit, node: Node) -> None:
    """The process ended between the mount and the note of it: nobody was told that the disk is there."""
    disk = kit.create().id
    node.disks.stage(disk, node.staging, W, readonly=False)
    stage = node.stages.read(disk)
    assert stage
    node.stages.write(msgspec.structs.replace(stage, identity=None))
    again = Node(kit, node.place)
    assert again.disks.recover() == 0
    assert mounts_below(node.place) == []
    assert kit.images.get(disk).holds == ()


def test_after_a_reboot_nothing_is_held(kit: Kit, node: Node) -> None:
    disk = kit.create().id
    node.disks.stage(disk, node.staging, W, readonly=False)
    syscalls.umount(node.staging, 0)
    again = Node(kit, node.place, boot_id="next")
    assert again.disks.recover() == 0
    assert kit.images.get(disk).holds == ()


def test_mount_whose_record_was_lost_is_taken_away_all_the_same(kit: Kit, node: Node) -> None:
    """Found by its image; kubelet would repeat the call for ever."""
    disk = kit.create().id
    node.disks.stage(disk, node.staging, W, readonly=False)
    node.publish(disk, node.target())
    node.stages.remove(disk)
    node.disks.unpublish(disk, node.target().place)
    node.disks.unstage(disk, node.staging)
    assert mounts_below(node.place) == []
    assert not node.target().place.exists()
    assert kit.images.get(disk).holds == ()
    assert node.staging.is_dir()


def test_start_is_not_kept_up_by_a_busy_disk(kit: Kit, node: Node) -> None:
    disk = kit.create().id
    node.disks.stage(disk, node.staging, W, readonly=False)
    syscalls.umount(node.staging, 0)
    with kit.files.disks.lock(disk):
        with pytest.raises(Busy):
            kit.images.attach(disk, kit.images.get(disk).staged[0])
        assert Node(kit, node.place).disks.recover() == 0
    assert Node(kit, node.place).disks.recover() == 0
    assert kit.images.get(disk).holds == ()
