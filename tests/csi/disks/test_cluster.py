"""Several nodes and controllers with one disk directory: what CSI's own suite does not look at."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from cachefetch import manifest
from cachefetch.model import EntryType
from csi import syscalls
from csi.pb import csi_pb2
from tests.cachefetch.fakes import Dir, File, Link, publish
from tests.csi.disks.cluster import READERS, WRITER, MiB, Mode, capability

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefetch.store import Store
    from tests.csi.disks.cluster import Cluster

pytestmark = [pytest.mark.root, pytest.mark.slow]

ITEMS = (
    Dir(b"lib"),
    File(b"lib/a.js", b"module.exports = 1"),
    File(b"lib/big", bytes(range(256)) * 20000),
    File(b"bin/run", b"#!/bin/sh\n", mode=0o755),
    File("naïve name\n".encode(), b"odd"),
    Link(b"out", b"/etc"),
)


def refused(call: Callable[[], object], code: str, *words: str) -> None:
    """The call ends with that code, and its text has those words."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value  # every one of them is a grpc.Call, too
    assert (error.code().name, [word for word in words if word not in (error.details() or "")]) == (code, [])


def equals_manifest(root: Path, store: Store, cache: str, version: str) -> None:
    """Every entry of the manifest is there with content, mode, owner and mtime, and nothing else is."""
    expected = set()
    for entry in manifest.read(store.manifest(cache, version)):
        path = os.fsencode(root) + b"/" + entry.path
        expected.add(path)
        status = os.lstat(path)
        assert (status.st_mtime_ns, status.st_uid, status.st_gid) == (entry.mtime_ns, 0, 0), path
        if entry.type is EntryType.FILE:
            content = Path(os.fsdecode(path)).read_bytes()
            assert (hashlib.sha256(content).hexdigest(), status.st_mode & 0o7777) == (entry.digest, entry.mode), path
        elif entry.type is EntryType.SYMLINK:
            assert os.fsencode(Path(os.fsdecode(path)).readlink()) == entry.target
    assert {os.fsencode(path) for path in root.rglob("*")} == expected


def test_three_nodes_read_one_cache_disk_at_once(cluster: Callable[..., Cluster]) -> None:
    """Reads are identical and equal to the manifest; withdrawing in any order leaves no mount, loop or file."""
    one = cluster(nodes=3)
    (controller,) = one.controllers
    version = publish(controller.store, ITEMS)
    disk = controller.create("shared", 0, wanted=READERS, cache="deps")
    again = controller.create("second", 0, wanted=READERS, cache="deps", version=version.id)
    assert disk.volume_id != again.volume_id
    assert len(list((one.disks / "sealed").iterdir())) == 1
    for node in one.nodes:
        controller.attach(disk.volume_id, node.name, READERS)
    with ThreadPoolExecutor(3) as pool:
        targets = list(pool.map(lambda node: node.publish(disk.volume_id), one.nodes))
    for target in targets:
        equals_manifest(target, controller.store, "deps", version.id)
        assert os.statvfs(target).f_flag & os.ST_RDONLY
    assert sorted(controller.get(disk.volume_id).status.published_node_ids) == ["node-0", "node-1", "node-2"]
    for node in random.sample(one.nodes, 3):
        node.withdraw(disk.volume_id)
        controller.detach(disk.volume_id, node.name)
    controller.delete(disk.volume_id)
    assert len(list((one.disks / "sealed").iterdir())) == 1
    controller.delete(again.volume_id)
    assert one.mounts() == one.loops() == one.files() == []


def test_root_cannot_write_to_sealed_volumes(cluster: Callable[..., Cluster]) -> None:
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    publish(controller.store, ITEMS)
    built = controller.create("built")
    (node.publish(built.volume_id, WRITER) / "file").write_text("content")
    node.withdraw(built.volume_id)
    snapshot = controller.snapshot("snap", built.volume_id)
    volumes = (
        controller.create("erofs", 0, wanted=READERS, cache="deps"),
        controller.create("ext4", 0, wanted=READERS, snapshot=snapshot.snapshot_id),
    )
    for volume, name in zip(volumes, ("lib/a.js", "file"), strict=True):
        target = node.publish(volume.volume_id)
        for attempt in (
            lambda place=target / name: place.write_bytes(b"x"),
            lambda place=target / name: place.chmod(0o777),
            lambda place=target / name: os.chown(place, 1, 1),
            lambda place=target / name: place.unlink(),
            lambda place=target / "new": place.touch(),
            lambda place=target / name: os.utime(place),
            lambda place=target / name: os.setxattr(place, "user.x", b"y"),
        ):
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == errno.EROFS
        with suppress(OSError):
            syscalls.mount("", target, syscalls.MS_REMOUNT)
        with pytest.raises(OSError) as caught:
            (target / name).write_bytes(b"x")
        assert caught.value.errno == errno.EROFS
        node.withdraw(volume.volume_id)


def test_dirty_journal_is_never_replayed_on_a_shared_disk(cluster: Callable[..., Cluster]) -> None:
    """Not one byte of a sealed image changes by mounting it, even if its journal is dirty; the copy is made clean."""
    one = cluster(nodes=2)
    (controller,) = one.controllers
    disk = controller.create("crashed")
    image = one.disks / "disks" / disk.volume_id / "image"
    target = one.nodes[0].publish(disk.volume_id, WRITER)
    (target / "a").write_text("a")
    os.sync()
    dirty = image.read_bytes()  # as a power cut would leave it
    one.nodes[0].withdraw(disk.volume_id)
    image.write_bytes(dirty)
    assert "needs_recovery" in features(image)
    snapshot = controller.snapshot("of-crashed", disk.volume_id)
    (sealed,) = (one.disks / "sealed").iterdir()
    assert "needs_recovery" not in features(sealed / "image")
    assert image.read_bytes() == dirty
    shared = controller.create("shared", wanted=READERS, snapshot=snapshot.snapshot_id)
    before = hashlib.sha256((sealed / "image").read_bytes()).hexdigest()
    for node in one.nodes:
        assert (node.publish(shared.volume_id) / "a").read_text() == "a"
    for node in one.nodes:
        node.withdraw(shared.volume_id)
    assert hashlib.sha256((sealed / "image").read_bytes()).hexdigest() == before


def features(image: Path) -> str:
    done = subprocess.run(["dumpe2fs", "-h", image], check=True, capture_output=True, text=True)
    return next(line for line in done.stdout.splitlines() if line.startswith("Filesystem features"))


def test_second_node_is_refused_where_the_mode_is_for_one(cluster: Callable[..., Cluster]) -> None:
    """With or without ControllerPublish, and the text names who has the disk."""
    one = cluster(nodes=2)
    (controller,), (first, second) = one.controllers, one.nodes
    disk = controller.create("single").volume_id
    refused(lambda: controller.attach(disk, "nobody"), "NOT_FOUND", "nobody")
    controller.attach(disk, first.name)
    controller.attach(disk, first.name)
    refused(lambda: controller.attach(disk, first.name, readonly=True), "ALREADY_EXISTS", first.name)
    refused(lambda: controller.attach(disk, second.name), "FAILED_PRECONDITION", first.name)
    refused(lambda: second.stage(disk, WRITER), "FAILED_PRECONDITION", first.name)
    refused(lambda: controller.delete(disk), "FAILED_PRECONDITION", first.name)
    controller.detach(disk)
    first.publish(disk, WRITER)
    refused(lambda: second.stage(disk, WRITER), "FAILED_PRECONDITION", first.name)
    refused(lambda: controller.attach(disk, second.name), "FAILED_PRECONDITION", first.name)
    refused(lambda: controller.snapshot("busy", disk), "FAILED_PRECONDITION", disk, first.name)
    refused(lambda: controller.expand(disk, 16 * MiB), "FAILED_PRECONDITION", first.name)
    refused(lambda: first.unstage(disk), "FAILED_PRECONDITION", str(first.target(disk)))
    first.withdraw(disk)
    second.publish(disk, WRITER)
    second.withdraw(disk)


def test_disk_grows_offline_and_keeps_its_content(cluster: Callable[..., Cluster]) -> None:
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    disk = controller.create("grows", 8 * MiB + 1)
    assert disk.capacity_bytes == 8 * MiB + 1
    (node.publish(disk.volume_id, WRITER) / "kept").write_text("content")
    node.withdraw(disk.volume_id)
    assert controller.expand(disk.volume_id, 64 * MiB) == 64 * MiB
    assert controller.expand(disk.volume_id, 32 * MiB) == 64 * MiB
    target = node.publish(disk.volume_id, WRITER)
    assert (target / "kept").read_text() == "content"
    (target / "large").write_bytes(b"x" * (40 * MiB))
    assert node.stats(disk.volume_id, target).usage[0].total > 50 * MiB
    node.withdraw(disk.volume_id)
    snapshot = controller.snapshot("of-grown", disk.volume_id)
    refused(lambda: controller.create("small", snapshot=snapshot.snapshot_id, limit=9 * MiB), "OUT_OF_RANGE")
    sealed = controller.create("sealed", 0, wanted=READERS, volume=disk.volume_id)
    assert sealed.content_source.volume.volume_id == disk.volume_id
    refused(lambda: controller.expand(sealed.volume_id, 128 * MiB), "INVALID_ARGUMENT", "sealed")
    writable = controller.create("writable", 96 * MiB, snapshot=snapshot.snapshot_id).volume_id
    target = node.publish(writable, WRITER)
    assert (target / "kept").read_text() == "content"
    assert node.stats(writable, target).usage[0].total > 80 * MiB
    node.withdraw(writable)


def test_damaged_image_is_abnormal_and_not_published(cluster: Callable[..., Cluster]) -> None:
    """The condition names block or file, the refusal names the image."""
    one = cluster(nodes=2)
    (controller,), (first, second) = one.controllers, one.nodes
    version = publish(controller.store, ITEMS)
    disk = controller.create("cached", 0, wanted=READERS, cache="deps").volume_id
    target = first.publish(disk)
    assert not first.stats(disk, target).volume_condition.abnormal
    assert not controller.get(disk).status.volume_condition.abnormal
    image = one.disks / "sealed" / version.id / "image"
    image.chmod(0o600)
    with image.open("r+b") as file:
        file.seek(3 * MiB + 17)
        byte = file.read(1)
        file.seek(3 * MiB + 17)
        file.write(bytes((byte[0] ^ 1,)))
    for condition in (
        controller.get(disk).status.volume_condition,
        first.stats(disk, target).volume_condition,
    ):
        assert condition.abnormal
        assert "block 3 (bytes 3145728" in condition.message
    refused(lambda: second.stage(disk), "DATA_LOSS", version.id, "block 3")
    image.unlink()
    assert "is missing" in controller.get(disk).status.volume_condition.message
    refused(lambda: second.stage(disk), "DATA_LOSS", version.id, "missing")
    first.withdraw(disk)
    controller.delete(disk)
    assert one.files() == []


def test_group_is_refused_while_one_disk_is_published_writable(cluster: Callable[..., Cluster]) -> None:
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    disks = [controller.create(f"member-{number}").volume_id for number in range(3)]
    (node.publish(disks[1], WRITER) / "x").write_text("x")
    refused(lambda: controller.snapshot_group("set", *disks), "FAILED_PRECONDITION", disks[1])
    node.withdraw(disks[1])
    group = controller.snapshot_group("set", *disks)
    assert group == controller.snapshot_group("set", *reversed(disks))
    assert sorted(snapshot.source_volume_id for snapshot in group.snapshots) == sorted(disks)
    refused(lambda: controller.snapshot_group("set", *disks[:2]), "ALREADY_EXISTS")
    refused(lambda: controller.delete_snapshot(group.snapshots[0].snapshot_id), "INVALID_ARGUMENT", "group")
    wrong = csi_pb2.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=["snap"])
    refused(lambda: controller.groups.DeleteVolumeGroupSnapshot(wrong), "INVALID_ARGUMENT")
    request = csi_pb2.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id)
    controller.groups.DeleteVolumeGroupSnapshot(request)
    controller.groups.DeleteVolumeGroupSnapshot(request)
    for disk in disks:
        controller.delete(disk)
    assert one.files() == []


def test_cache_disks_are_for_those_who_may_use_the_cache(cluster: Callable[..., Cluster]) -> None:
    """Asked at CreateVolume for the claim, at NodePublishVolume for the pod, and again for whoever restores."""
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    publish(controller.store, ITEMS, cache="vault")
    create = controller.create
    refused(lambda: create("v", 0, wanted=READERS, cache="vault"), "PERMISSION_DENIED", "vault")
    refused(lambda: create("v", 0, wanted=READERS, cache="vault", namespace=""), "INVALID_ARGUMENT", "metadata")
    refused(lambda: create("v", 0, wanted=READERS, cache="nothing"), "NOT_FOUND", "deps")
    refused(lambda: create("v", 0, wanted=WRITER, cache="vault", namespace="bank"), "INVALID_ARGUMENT", "ReadOnlyMany")
    refused(lambda: create("v", 0, wanted=READERS), "INVALID_ARGUMENT", "StorageClass")
    disk = create("v", 0, wanted=READERS, cache="vault", namespace="bank").volume_id
    path = node.stage(disk)
    refused(lambda: node.publish_staged(disk, path), "PERMISSION_DENIED", "vault")
    refused(lambda: node.publish_staged(disk, path, context={}), "INVALID_ARGUMENT", "podInfoOnMount")
    assert not node.target(disk).exists()
    node.publish_staged(disk, path, context={"csi.storage.k8s.io/pod.namespace": "bank"})
    node.withdraw(disk)
    snapshot = controller.snapshot("s", disk).snapshot_id
    refused(lambda: create("w", 0, wanted=READERS, snapshot=snapshot), "PERMISSION_DENIED", "vault")
    refused(lambda: create("w", 0, wanted=READERS, volume=disk), "PERMISSION_DENIED", "vault")
    refused(lambda: create("w", 0, snapshot=snapshot, namespace="bank"), "INVALID_ARGUMENT", "ReadOnlyMany")
    create("w", 0, wanted=READERS, snapshot=snapshot, cache="vault", namespace="bank")


def test_several_targets_by_the_table_of_the_specification(cluster: Callable[..., Cluster]) -> None:
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    for mode, many in ((Mode.SINGLE_NODE_WRITER, False), (Mode.SINGLE_NODE_SINGLE_WRITER, False),
                       (Mode.SINGLE_NODE_MULTI_WRITER, True)):  # fmt: skip
        wanted = capability(mode)
        disk = controller.create(f"mode-{mode}", wanted=wanted).volume_id
        node.publish(disk, wanted)
        node.publish(disk, wanted)
        refused(lambda: node.publish(disk, wanted, readonly=True), "ALREADY_EXISTS")  # noqa: B023
        if many:
            target = node.publish(disk, wanted, pod="other", readonly=True)
            assert os.statvfs(target).f_flag & os.ST_RDONLY
            node.unpublish(disk, "other")
        else:
            refused(lambda: node.publish(disk, wanted, pod="other"), "FAILED_PRECONDITION")  # noqa: B023
            assert not node.target(disk, "other").exists()
        node.withdraw(disk)
