"""The CSI Node service for disks: protobuf to calls of `csi.disks.node` and back. `csi.node` decides what is a disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch.errors import InvalidRequest
from csi.disk_requests import parse_mode, parse_range, required
from csi.disks.stages import Target
from csi.logs import annotate
from csi.pb import csi_pb2
from csi.permissions import check_pod
from csi.requests import parse_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefetch.config import Config
    from csi.disks.node import NodeDisks


class DiskCalls:
    """The calls of a node that are about disks."""

    def __init__(self, disks: NodeDisks, config: Callable[[], Config]) -> None:
        """Serve `disks`; `config` tells who may use the caches that some of them show."""
        self._disks = disks
        self._config = config

    def stage(self, request: csi_pb2.NodeStageVolumeRequest) -> None:
        """NodeStageVolume."""
        path = parse_path(request.staging_target_path, "staging_target_path")
        mode = parse_mode(request.volume_capability)
        readonly = request.publish_context.get("readonly") == "true"
        self._disks.stage(request.volume_id, path, mode, readonly=readonly)

    def unstage(self, request: csi_pb2.NodeUnstageVolumeRequest) -> None:
        """NodeUnstageVolume."""
        self._disks.unstage(request.volume_id, parse_path(request.staging_target_path, "staging_target_path"))

    def publish(self, request: csi_pb2.NodePublishVolumeRequest) -> None:
        """NodePublishVolume."""
        target = parse_target(request.target_path)
        if not request.HasField("volume_capability"):
            raise InvalidRequest("volume_capability is missing: it is required")
        mode = parse_mode(request.volume_capability)
        readonly = request.readonly or "ro" in request.volume_capability.mount.mount_flags
        staging = Path(request.staging_target_path)
        repeated = self._disks.publish(
            request.volume_id,
            Target(path=str(target), mode=mode, readonly=readonly),
            staging,
            lambda cache: check_pod(self._config(), cache, request.volume_context),
        )
        annotate(repeated=repeated or None)

    def unpublish(self, request: csi_pb2.NodeUnpublishVolumeRequest) -> None:
        """NodeUnpublishVolume."""
        self._disks.unpublish(request.volume_id, parse_target(request.target_path))

    def stats(self, request: csi_pb2.NodeGetVolumeStatsRequest) -> csi_pb2.NodeGetVolumeStatsResponse:
        """NodeGetVolumeStats."""
        usage = self._disks.usage(request.volume_id, Path(request.volume_path))
        unit = csi_pb2.VolumeUsage
        numbers = ((unit.BYTES, usage.bytes), (unit.INODES, usage.inodes))
        return csi_pb2.NodeGetVolumeStatsResponse(
            usage=[
                csi_pb2.VolumeUsage(unit=kind, total=total, used=used, available=available)
                for kind, (total, used, available) in numbers
            ],
            volume_condition=csi_pb2.VolumeCondition(
                abnormal=usage.condition.abnormal, message=usage.condition.message
            ),
        )

    def expand(self, request: csi_pb2.NodeExpandVolumeRequest) -> csi_pb2.NodeExpandVolumeResponse:
        """NodeExpandVolume."""
        path = Path(required(request.volume_path, "volume_path"))
        capacity = parse_range(request.capacity_range)
        return csi_pb2.NodeExpandVolumeResponse(
            capacity_bytes=self._disks.expand(request.volume_id, path, capacity.required)
        )


def parse_path(path: str, field: str) -> Path:
    """The absolute path in `field`.

    Raises:
        InvalidRequest: missing, relative, or with components that lead elsewhere.
    """
    required(path, field)
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InvalidRequest(f"{field} {path!r} is not allowed: it must be absolute, without '..'")
    return Path(path)
