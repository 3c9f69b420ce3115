"""The controller service as its callers see it: capacities, names, lists, settings, a full disk directory."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from cachefetch.verify import verify
from csi.pb import csi_pb2
from tests.cachefetch.conftest import image, mount
from tests.cachefetch.fakes import File, publish
from tests.csi.disks.cluster import POD, READERS, WRITER, Cluster, MiB
from tests.csi.disks.test_cluster import ITEMS, equals_manifest, refused
from tests.csi.driver import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ("image", "mount")
pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_without_a_disk_directory_caches_are_delivered_by_each_node(cluster: Callable[..., Cluster]) -> None:
    """The handle says all; several pods of one claim; writable disks are refused with the remedy."""
    one = cluster(nodes=2, shared=False)
    (controller,), (first, second) = one.controllers, one.nodes
    version = publish(controller.store, ITEMS)
    refused(lambda: controller.create("w"), "FAILED_PRECONDITION", "--disk-dir")
    refused(lambda: controller.create("c", wanted=WRITER, cache="deps"), "INVALID_ARGUMENT", "ReadOnlyMany")
    refused(lambda: controller.create("c", wanted=READERS, cache="vault"), "PERMISSION_DENIED")
    volume = controller.create("c", 5, wanted=READERS, cache="deps")
    assert volume == controller.create("c", 5, wanted=READERS, cache="deps")
    assert len(volume.volume_id) <= 128
    assert volume.volume_id != controller.create("d", 5, wanted=READERS, cache="deps").volume_id
    refused(lambda: first.publish(volume.volume_id), "ABORTED", "not on this node yet")
    assert not first.target(volume.volume_id).exists()
    for node in (first, second):
        publish(node.store, ITEMS)
        for pod in ("one", "two"):
            target = node.publish(volume.volume_id, pod=pod)
            assert node.publish(volume.volume_id, pod=pod) == target
            equals_manifest(target, node.store, "deps", version.id)
            assert os.statvfs(target).f_flag & os.ST_RDONLY
            assert node.stats(volume.volume_id, target).usage[0].total == version.totals.bytes
        assert node.store.users("deps") == {version.id: 2}
    refused(lambda: first.publish(volume.volume_id, pod="x", context={}), "INVALID_ARGUMENT", "podInfoOnMount")
    refused(lambda: first.publish(volume.volume_id, WRITER, pod="x"), "INVALID_ARGUMENT", "ReadOnlyMany")
    vault = volume.volume_id.replace("deps@", "vault@")
    refused(lambda: first.publish(vault, pod="x", context=POD), "PERMISSION_DENIED", "vault")
    for node in (first, second):
        for pod in ("two", "one"):
            node.withdraw(volume.volume_id, pod)
        assert node.store.users("deps") == {}
        assert list(verify(node.store, "deps", version.id)) == []
    controller.delete(volume.volume_id)
    disk = "disk-" + "0" * 40
    refused(lambda: first.publish(disk), "FAILED_PRECONDITION", "--disk-dir")
    refused(lambda: controller.delete(disk), "FAILED_PRECONDITION", "--disk-dir")


def test_names_and_capacities_at_their_limits(cluster: Callable[..., Cluster]) -> None:
    """Names of 128 bytes and odd characters; 0 and 8 EiB; exact to the byte in between."""
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    names = ("x" * 128, "../../etc/passwd", "a/b", ". .", "ü" * 64, "'; rm -rf /", "%2e%2e")
    ids = {controller.create(name, 2 * MiB).volume_id for name in names}
    assert len(ids) == len(names)
    for volume_id in ids:
        node.publish(volume_id, WRITER)
        node.withdraw(volume_id)
    refused(lambda: controller.create("y" * 129), "INVALID_ARGUMENT", "128")
    refused(lambda: controller.create("a\nb"), "INVALID_ARGUMENT", "control characters")
    refused(lambda: controller.create("huge", 2**63 - 1), "OUT_OF_RANGE", str(2**63 - 1))
    refused(lambda: controller.create("minus", -1), "INVALID_ARGUMENT")
    refused(lambda: controller.create("small", 1, limit=1000), "OUT_OF_RANGE")
    for size in (MiB, MiB + 1, 3_000_000, 3_000_001):
        volume = controller.create(f"size-{size}", size, limit=size)
        assert volume.capacity_bytes == size
        assert (one.disks / "disks" / volume.volume_id / "image").stat().st_size == size
        assert controller.get(volume.volume_id).volume.capacity_bytes == size
    assert controller.create("default", 0).capacity_bytes == 1 << 30
    assert controller.create("limited", 0, limit=5 * MiB).capacity_bytes == 5 * MiB
    answer = controller.controller.GetCapacity(csi_pb2.GetCapacityRequest())
    status = os.statvfs(one.disks)
    assert abs(answer.available_capacity - status.f_bavail * status.f_frsize) < 500 * MiB
    for volume_id in ("..", "../disks", "disk-../x", "/etc", "disk-" + "0" * 40):
        controller.delete(volume_id)
        refused(partial(controller.get, volume_id), "NOT_FOUND")
        refused(partial(controller.attach, volume_id, node.name), "NOT_FOUND")


def test_pages_stay_right_while_disks_come_and_go(cluster: Callable[..., Cluster]) -> None:
    """Nothing is shown twice, and nothing that is there all the time is left out."""
    one = cluster(nodes=0)
    (controller,) = one.controllers
    stay = {controller.create(f"stay-{number}", MiB).volume_id for number in range(10)}
    go = [controller.create(f"go-{number}", MiB).volume_id for number in range(6)]
    seen: list[str] = []
    token = ""
    for step in range(100):
        request = csi_pb2.ListVolumesRequest(max_entries=3, starting_token=token)
        answer = controller.controller.ListVolumes(request)
        seen += [entry.volume.volume_id for entry in answer.entries]
        token = answer.next_token
        if not token:
            break
        if go:
            controller.delete(go.pop())
        controller.create(f"new-{step}", MiB)
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)
    for bad in ("invalid-token", "snap-" + "0" * 40, "../x"):
        request = csi_pb2.ListVolumesRequest(starting_token=bad)
        refused(partial(controller.controller.ListVolumes, request), "ABORTED", "from the start")
    minus = csi_pb2.ListVolumesRequest(max_entries=-1)
    refused(lambda: controller.controller.ListVolumes(minus), "INVALID_ARGUMENT")


def test_settings_mean_something(cluster: Callable[..., Cluster]) -> None:
    """Pin refuses deletion, retention keeps the sealed image, prefetch reads it ahead; nothing else is taken."""
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    publish(controller.store, ITEMS)
    disk = controller.create("set", 0, wanted=READERS, cache="deps", settings={"pin": "true"}).volume_id
    refused(lambda: controller.delete(disk), "FAILED_PRECONDITION", "pinned")
    for settings in ({"pin": "maybe"}, {"pin": "false", "color": "red"}, {"retention": "soon"}, {"prefetch": "1"}):
        refused(partial(controller.modify, disk, **settings), "INVALID_ARGUMENT")
    refused(lambda: controller.delete(disk), "FAILED_PRECONDITION", "pinned")
    controller.modify(disk, prefetch="always")
    controller.modify(disk, pin="false", retention="1h")
    controller.delete(disk)
    assert [path.split("/")[0] for path in one.files()] == ["sealed"]
    (kept,) = (one.disks / "sealed").iterdir()
    inode = (kept / "image").stat().st_ino
    again = controller.create("again", 0, wanted=READERS, cache="deps", settings={"retention": "0"}).volume_id
    assert (kept / "image").stat().st_ino == inode
    node.publish(again)
    node.withdraw(again)
    controller.delete(again)
    (kept / "keep").write_text("0.0")
    old = time.time() - 3600
    os.utime(kept, (old, old))
    controller.kill()
    controller.start()
    until(lambda: one.files() == [])


def test_full_disk_directory_refuses_and_keeps_nothing(
    image: Callable[..., Path], cluster: Callable[..., Cluster]
) -> None:
    """Creating, sealing, copying and growing end with RESOURCE_EXHAUSTED or OUT_OF_RANGE, and leave no file."""
    disks = image("small", 48, "mkfs.ext4", "-qFm0") / "disks"
    one = cluster(disks=disks)
    (controller,), (node,) = one.controllers, one.nodes
    version = publish(controller.store, (File(b"large", os.urandom(60 * MiB)),))
    refused(lambda: controller.create("large", 100 * MiB), "OUT_OF_RANGE")
    refused(lambda: controller.create("sealed", 0, wanted=READERS, cache="deps"), "RESOURCE_EXHAUSTED", "no space left")
    disk = controller.create("fits", 32 * MiB).volume_id
    (node.publish(disk, WRITER) / "data").write_bytes(os.urandom(22 * MiB))
    node.withdraw(disk)
    refused(lambda: controller.snapshot("no-room", disk), "RESOURCE_EXHAUSTED", "space")
    refused(lambda: controller.create("clone", 32 * MiB, volume=disk), "RESOURCE_EXHAUSTED", "space")
    refused(lambda: controller.expand(disk, 200 * MiB), "OUT_OF_RANGE")
    assert one.files() == [f"disks/{disk}"]
    node.publish(disk, WRITER)
    node.withdraw(disk)
    controller.delete(disk)
    assert one.files() == []
    assert controller.store.has("deps", version.id)
    one.close()


def test_secrets_are_never_logged(cluster: Callable[..., Cluster]) -> None:
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    disk = controller.create("secret", secrets={"key": "hunter2"}).volume_id
    path = node.staging / disk
    path.mkdir(parents=True)
    request: Any = csi_pb2.NodeStageVolumeRequest(
        volume_id=disk, staging_target_path=str(path), volume_capability=WRITER, secrets={"key": "hunter2"}
    )
    node.node.NodeStageVolume(request)
    node.unstage(disk)
    assert "hunter2" not in one.log()
    assert disk in one.log()


def test_node_limit_is_exact(cluster: Callable[..., Cluster]) -> None:
    one = cluster(most=2)
    (controller,), (node,) = one.controllers, one.nodes
    disks = [controller.create(f"limit-{number}", MiB).volume_id for number in range(3)]
    for disk in disks[:2]:
        controller.attach(disk, node.name)
    refused(lambda: controller.attach(disks[2], node.name), "RESOURCE_EXHAUSTED", node.name)
    controller.attach(disks[0], node.name)
    controller.detach(disks[0], node.name)
    controller.attach(disks[2], node.name)


def test_sealing_goes_on_between_calls_that_give_up(cluster: Callable[..., Cluster]) -> None:
    """Each impatient call is ABORTED with the progress; in the end there is one image, made once."""
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    disk = controller.create("large", 400 * MiB).volume_id
    (node.publish(disk, WRITER) / "data").write_bytes(os.urandom(300 * MiB))
    node.withdraw(disk)
    request = csi_pb2.CreateSnapshotRequest(name="snap", source_volume_id=disk)
    told = []
    while True:
        try:
            snapshot = controller.controller.CreateSnapshot(request, timeout=0.3).snapshot
        except grpc.RpcError as error:
            answer: Any = error
            assert answer.code().name in {"ABORTED", "DEADLINE_EXCEEDED"}
            told.append(answer.details())
        else:
            break
    assert any("it goes on, call again" in text for text in told)
    assert snapshot.ready_to_use
    assert len(list((one.disks / "sealed").iterdir())) == 1
