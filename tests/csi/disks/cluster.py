"""A cluster in small: one or more controllers and several nodes, each a real process, with one disk directory."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from cachefetch.store import Store
from csi import mountinfo, syscalls
from csi.pb import csi_pb2, csi_pb2_grpc
from tests.processes import ROOT, stop, tail

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """
caches:
  - {name: deps, source: {type: directory, path: /srv}}
  - {name: vault, source: {type: directory, path: /srv}, access: {namespaces: [bank]}}
"""
Mode = csi_pb2.VolumeCapability.AccessMode
MiB = 1 << 20
_TIMEOUT = 60.0
POD = {
    "csi.storage.k8s.io/pod.namespace": "team-a",
    "csi.storage.k8s.io/pod.name": "pod",
    "csi.storage.k8s.io/pod.uid": "5c0e5c0e",
    "csi.storage.k8s.io/serviceAccount.name": "default",
}


def capability(mode: Mode.Mode.ValueType = Mode.SINGLE_NODE_WRITER) -> csi_pb2.VolumeCapability:
    mount = csi_pb2.VolumeCapability.MountVolume(fs_type="ext4")
    return csi_pb2.VolumeCapability(mount=mount, access_mode=Mode(mode=mode))


WRITER = capability()
READERS = capability(Mode.MULTI_NODE_READER_ONLY)

_OWN = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]
"""Channels to one address share a connection, and how long it is not tried again; a driver that starts anew is new."""


class Member:
    """One driver process and its clients."""

    def __init__(self, root: Path, role: str, name: str, config: Path, *more: str) -> None:
        self.name = name
        self.place = root / name
        self.place.mkdir()
        self.state = self.place / "state"
        self.socket = self.place / "csi.sock"
        self.log = self.place / "driver.log"
        self.command = [
            sys.executable, "-m", "csi", role, "--endpoint", f"unix://{self.socket}", "--state-dir", str(self.state),
            "--config", str(config), "--node-id", name, "--fetch-wait", "1s", "--log-level", "debug", *more,
        ]  # fmt: skip
        self.store = Store.open(self.state)
        self.channel: grpc.Channel | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=ROOT)
        if self.channel:
            self.channel.close()
        channel = grpc.insecure_channel(f"unix:{self.socket}", options=_OWN)
        try:
            grpc.channel_ready_future(channel).result(60)
        except grpc.FutureTimeoutError:
            raise AssertionError(tail(self.log)) from None
        self.channel = channel
        self.node = csi_pb2_grpc.NodeStub(channel)
        self.controller = csi_pb2_grpc.ControllerStub(channel)
        self.groups = csi_pb2_grpc.GroupControllerStub(channel)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.channel:
            self.channel.close()
        stop(self.process)

    # What kubelet does

    @property
    def staging(self) -> Path:
        return self.place / "staging"

    def target(self, volume_id: str, pod: str = "pod") -> Path:
        return self.place / "pods" / f"{volume_id}-{pod}" / "mount"

    def stage(self, volume_id: str, wanted: csi_pb2.VolumeCapability = READERS, **context: str) -> Path:
        path = self.staging / volume_id
        path.mkdir(parents=True, exist_ok=True)
        self.node.NodeStageVolume(
            csi_pb2.NodeStageVolumeRequest(
                volume_id=volume_id,
                staging_target_path=str(path),
                volume_capability=wanted,
                publish_context=context,
            ),
            timeout=_TIMEOUT,
        )
        return path

    def publish(
        self, volume_id: str, wanted: csi_pb2.VolumeCapability = READERS, *, pod: str = "pod", **given: Any
    ) -> Path:
        """Stage and publish; returns the target path."""
        path = self.stage(volume_id, wanted)
        return self.publish_staged(volume_id, path, wanted, pod=pod, **given)

    def publish_staged(
        self,
        volume_id: str,
        path: Path,
        wanted: csi_pb2.VolumeCapability = READERS,
        *,
        pod: str = "pod",
        readonly: bool = False,
        context: dict[str, str] | None = None,
    ) -> Path:
        target = self.target(volume_id, pod)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.node.NodePublishVolume(
            csi_pb2.NodePublishVolumeRequest(
                volume_id=volume_id,
                target_path=str(target),
                staging_target_path=str(path),
                volume_capability=wanted,
                readonly=readonly,
                volume_context=POD if context is None else context,
            ),
            timeout=_TIMEOUT,
        )
        return target

    def unpublish(self, volume_id: str, pod: str = "pod") -> None:
        target = str(self.target(volume_id, pod))
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=target)
        self.node.NodeUnpublishVolume(request, timeout=_TIMEOUT)

    def unstage(self, volume_id: str) -> None:
        path = str(self.staging / volume_id)
        request = csi_pb2.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=path)
        self.node.NodeUnstageVolume(request, timeout=_TIMEOUT)

    def withdraw(self, volume_id: str, pod: str = "pod") -> None:
        self.unpublish(volume_id, pod)
        self.unstage(volume_id)

    def stats(self, volume_id: str, path: Path) -> csi_pb2.NodeGetVolumeStatsResponse:
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=str(path))
        return self.node.NodeGetVolumeStats(request, timeout=_TIMEOUT)

    # What the sidecars do

    def create(
        self,
        name: str,
        size: int = 8 * MiB,
        *,
        wanted: csi_pb2.VolumeCapability = WRITER,
        snapshot: str = "",
        volume: str = "",
        limit: int = 0,
        settings: dict[str, str] | None = None,
        namespace: str = "team-a",
        secrets: dict[str, str] | None = None,
        **parameters: str,
    ) -> csi_pb2.Volume:
        request = csi_pb2.CreateVolumeRequest(
            name=name,
            volume_capabilities=[wanted],
            capacity_range=csi_pb2.CapacityRange(required_bytes=size, limit_bytes=limit),
            parameters={"csi.storage.k8s.io/pvc/namespace": namespace, **parameters},
            mutable_parameters=settings or {},
            secrets=secrets or {},
        )
        if snapshot:
            request.volume_content_source.snapshot.snapshot_id = snapshot
        if volume:
            request.volume_content_source.volume.volume_id = volume
        return self.controller.CreateVolume(request, timeout=_TIMEOUT).volume

    def delete(self, volume_id: str) -> None:
        self.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume_id), timeout=_TIMEOUT)

    def attach(
        self, volume_id: str, node: str, wanted: csi_pb2.VolumeCapability = WRITER, *, readonly: bool = False
    ) -> dict[str, str]:
        request = csi_pb2.ControllerPublishVolumeRequest(
            volume_id=volume_id, node_id=node, volume_capability=wanted, readonly=readonly
        )
        return dict(self.controller.ControllerPublishVolume(request, timeout=_TIMEOUT).publish_context)

    def detach(self, volume_id: str, node: str = "") -> None:
        request = csi_pb2.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=node)
        self.controller.ControllerUnpublishVolume(request, timeout=_TIMEOUT)

    def get(self, volume_id: str) -> csi_pb2.ControllerGetVolumeResponse:
        request = csi_pb2.ControllerGetVolumeRequest(volume_id=volume_id)
        return self.controller.ControllerGetVolume(request, timeout=_TIMEOUT)

    def expand(self, volume_id: str, size: int) -> int:
        request = csi_pb2.ControllerExpandVolumeRequest(
            volume_id=volume_id, capacity_range=csi_pb2.CapacityRange(required_bytes=size)
        )
        return self.controller.ControllerExpandVolume(request, timeout=_TIMEOUT).capacity_bytes

    def modify(self, volume_id: str, **settings: str) -> None:
        request = csi_pb2.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters=settings)
        self.controller.ControllerModifyVolume(request, timeout=_TIMEOUT)

    def snapshot(self, name: str, source: str) -> csi_pb2.Snapshot:
        request = csi_pb2.CreateSnapshotRequest(name=name, source_volume_id=source)
        return self.controller.CreateSnapshot(request, timeout=_TIMEOUT).snapshot

    def delete_snapshot(self, snapshot_id: str) -> None:
        self.controller.DeleteSnapshot(csi_pb2.DeleteSnapshotRequest(snapshot_id=snapshot_id), timeout=_TIMEOUT)

    def snapshot_group(self, name: str, *sources: str) -> csi_pb2.VolumeGroupSnapshot:
        request = csi_pb2.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=sources)
        return self.groups.CreateVolumeGroupSnapshot(request, timeout=_TIMEOUT).group_snapshot

    def volumes(self) -> list[str]:
        answer = self.controller.ListVolumes(csi_pb2.ListVolumesRequest(), timeout=_TIMEOUT)
        return [entry.volume.volume_id for entry in answer.entries]


class Cluster:
    """Controllers `controller-N` and nodes `node-N` below one directory; they share `disks` unless told otherwise."""

    def __init__(
        self,
        root: Path,
        *,
        nodes: int = 1,
        controllers: int = 1,
        shared: bool = True,
        most: int = 0,
        disks: Path | None = None,
    ) -> None:
        self.root = root
        self.disks = disks or root / "disks"
        self.config = root / "caches.yaml"
        self.config.write_text(CONFIG)
        directory = ("--disk-dir", str(self.disks)) if shared else ()
        self.nodes: list[Member] = []
        self.controllers: list[Member] = []
        try:
            for number in range(controllers):
                self.controllers.append(Member(root, "controller", f"controller-{number}", self.config, *directory))
            for number in range(nodes):
                limit = ("--max-volumes", str(most))
                self.nodes.append(Member(root, "node", f"node-{number}", self.config, *directory, *limit))
        except BaseException:
            self.close()
            raise

    @property
    def members(self) -> Iterator[Member]:
        yield from self.controllers
        yield from self.nodes

    def files(self) -> list[str]:
        """Everything in the disk directory but the nodes' entries; what is deleted gets a moment to go."""
        end = time.monotonic() + 60
        while True:
            found = [
                str(path.relative_to(self.disks)) for path in self.disks.glob("*/*") if path.parent.name != "nodes"
            ]
            gone = not any(path.startswith(("trash/", "staging/")) for path in found)
            if gone or time.monotonic() > end:
                return sorted(found)
            time.sleep(0.05)

    def mounts(self) -> list[str]:
        return [str(mount.point) for mount in mountinfo.below(self.root)]

    def loops(self) -> list[str]:
        return loops_below(self.root)

    def log(self) -> str:
        return "".join(member.log.read_text() for member in self.members)

    def close(self) -> None:
        for member in self.members:
            member.close()
        for mount in mountinfo.below(self.root):
            syscalls.umount(mount.point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)


def loops_below(directory: Path) -> list[str]:
    """Loop devices whose file is below the directory; the kernel clears one a moment after its last use."""
    end = time.monotonic() + 60
    while True:
        found = []
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                text = file.read_text()
            except OSError:
                continue
            if text.startswith(f"{directory}/"):
                found.append(file.parts[3])
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.02)
