"""The node's calls about disks, on mounts that exist in a fake only; real ones: tests/csi/disks/test_node.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cachefetch.config import parse
from cachefetch.errors import InvalidRequest, NotAllowed
from csi.disk_calls import DiskCalls
from csi.disks.ids import disk_id
from csi.disks.model import Mode
from csi.disks.mounts import KernelImages
from csi.disks.node import NodeDisks
from csi.disks.stages import Stages
from csi.pb import csi_pb2
from csi.targets import Targets
from tests.cachefetch.fakes import File, publish
from tests.csi.disks.cluster import READERS, WRITER
from tests.csi.disks.kit import Kit
from tests.csi.fakes import FakeMounter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi.disks.model import Filesystem

CONFIG = parse("caches:\n- {name: deps, source: {type: directory, path: /srv}, access: {namespaces: [team-a]}}\n")


class FakeImages(KernelImages):
    """An ImageMounter whose mounts exist in a FakeMounter only."""

    def __init__(self, mounter: FakeMounter) -> None:
        self.mounter = mounter
        self.readonly: list[bool] = []

    def mount(self, image: Path, filesystem: Filesystem, target: Path, *, readonly: bool) -> None:
        self.readonly.append(readonly)
        self.mounter.mount_foreign(target, target, readonly=readonly)

    def bind(self, source: Path, target: Path, *, readonly: bool) -> None:
        self.readonly.append(readonly)
        self.mounter.mount_foreign(source, target, readonly=readonly)

    def backing(self, mount_id: int) -> Path | None:
        return None


class Calls:
    """DiskCalls on a fake node, with the paths of one volume."""

    def __init__(self, kit: Kit, place: Path) -> None:
        self.kit = kit
        mounter = FakeMounter()
        self.images = FakeImages(mounter)
        disks = NodeDisks(
            kit.files,
            Stages(place / "run", "boot"),
            kit.inspector,
            mounter=mounter,
            images=self.images,
            targets=Targets(mounter),
            node_id="n1",
        )
        self.calls = DiskCalls(disks, lambda: CONFIG)
        self.staging = place / "staging"
        self.staging.mkdir()
        self.target = place / "target"

    def stage(self, volume_id: str, capability: Any = WRITER, **context: str) -> None:
        self.calls.stage(
            csi_pb2.NodeStageVolumeRequest(
                volume_id=volume_id,
                staging_target_path=str(self.staging),
                volume_capability=capability,
                publish_context=context,
            )
        )

    def publish(self, volume_id: str, capability: Any = WRITER, **given: Any) -> None:
        request = csi_pb2.NodePublishVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(self.staging),
            target_path=str(self.target),
            volume_capability=capability,
            **given,
        )
        self.calls.publish(request)


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Calls]:
    kit = Kit(tmp_path)
    yield Calls(kit, tmp_path)
    kit.jobs.close()


def flagged(flag: str) -> csi_pb2.VolumeCapability:
    capability = csi_pb2.VolumeCapability()
    capability.CopyFrom(WRITER)
    capability.mount.mount_flags.append(flag)
    return capability


@pytest.mark.parametrize(
    ("context", "given", "shown"),
    [
        ({}, {}, [False, False]),
        ({"readonly": "false"}, {"readonly": True}, [False, True]),
        ({}, {"capability": flagged("ro")}, [False, True]),
        ({"readonly": "true"}, {}, [True, True]),
    ],
)
def test_every_way_to_ask_for_read_only_counts(
    calls: Calls, context: dict[str, str], given: dict[str, Any], shown: list[bool]
) -> None:
    disk = calls.kit.create().id
    calls.stage(disk, **context)
    calls.publish(disk, **given)
    assert calls.images.readonly == shown


def test_pod_is_judged_for_the_cache_that_the_disk_shows(calls: Calls) -> None:
    disk = calls.kit.cached("disk", publish(calls.kit.store, (File(b"a", b"1"),)).id).id
    calls.stage(disk, READERS)
    for namespace, error in (("", InvalidRequest), ("team-b", NotAllowed)):
        with pytest.raises(error):
            calls.publish(disk, READERS, volume_context={"csi.storage.k8s.io/pod.namespace": namespace, "cache": "x"})
    calls.publish(disk, READERS, volume_context={"csi.storage.k8s.io/pod.namespace": "team-a"})


def test_fields_that_are_missing_or_lead_elsewhere_are_named(calls: Calls) -> None:
    disk = disk_id("x")
    for path in ("", "relative", "/a/../b"):
        with pytest.raises(InvalidRequest, match="staging_target_path"):
            calls.calls.unstage(csi_pb2.NodeUnstageVolumeRequest(volume_id=disk, staging_target_path=path))
    with pytest.raises(InvalidRequest, match="volume_capability"):
        calls.calls.publish(csi_pb2.NodePublishVolumeRequest(volume_id=disk, target_path="/x"))
    with pytest.raises(InvalidRequest, match="volume_path"):
        calls.calls.expand(csi_pb2.NodeExpandVolumeRequest(volume_id=disk))


def test_stats_say_bytes_inodes_and_condition(calls: Calls) -> None:
    disk = calls.kit.create().id
    calls.stage(disk)
    request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=disk, volume_path=str(calls.staging))
    answer = calls.calls.stats(request)
    assert [usage.unit for usage in answer.usage] == [csi_pb2.VolumeUsage.BYTES, csi_pb2.VolumeUsage.INODES]
    assert all(usage.total >= usage.used for usage in answer.usage)
    assert answer.volume_condition.message == "building"
    expand = csi_pb2.NodeExpandVolumeRequest(volume_id=disk, volume_path=str(calls.staging))
    assert calls.calls.expand(expand).capacity_bytes == calls.kit.images.get(disk).size
    assert calls.kit.images.get(disk).staged[0].mode is Mode.SINGLE_NODE_WRITER
