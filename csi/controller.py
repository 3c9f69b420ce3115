"""The CSI Controller service for disks: protobuf to calls of the backends and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from cachefetch.errors import InvalidRequest, NotReady
from csi.arrivals import patience
from csi.disk_requests import (
    check_parameters,
    page,
    parse_create,
    parse_mode,
    parse_range,
    required,
)
from csi.disks import rules
from csi.disks.ids import check_name
from csi.disks.jobs import PATIENCE
from csi.disks.model import Condition, Hold
from csi.logs import annotate
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.permissions import check_claim

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from cachefetch.config import Config
    from csi.arrivals import Arrivals
    from csi.disks.backend import DiskBackend, SnapshotBackend, Wanted
    from csi.disks.model import Disk, Snapshot

_Rpc = csi_pb2.ControllerServiceCapability.RPC
CAPABILITIES = (
    _Rpc.CREATE_DELETE_VOLUME,
    _Rpc.PUBLISH_UNPUBLISH_VOLUME,
    _Rpc.PUBLISH_READONLY,
    _Rpc.LIST_VOLUMES,
    _Rpc.LIST_VOLUMES_PUBLISHED_NODES,
    _Rpc.GET_VOLUME,
    _Rpc.VOLUME_CONDITION,
    _Rpc.GET_CAPACITY,
    _Rpc.CREATE_DELETE_SNAPSHOT,
    _Rpc.LIST_SNAPSHOTS,
    _Rpc.GET_SNAPSHOT,
    _Rpc.CLONE_VOLUME,
    _Rpc.EXPAND_VOLUME,
    _Rpc.MODIFY_VOLUME,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
)


class Controller(csi_pb2_grpc.ControllerServicer):
    """Disks and snapshots of a backend. Keeps no state: any number of controllers may serve one backend."""

    def __init__(
        self,
        disks: DiskBackend,
        snapshots: SnapshotBackend,
        arrivals: Arrivals,
        *,
        config: Callable[[], Config],
    ) -> None:
        """Serve `disks` and `snapshots`; `arrivals` brings the versions that are sealed, `config` says for whom."""
        self._disks = disks
        self._snapshots = snapshots
        self._arrivals = arrivals
        self._config = config

    def CreateVolume(
        self, request: csi_pb2.CreateVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateVolumeResponse:
        """Make a disk: empty, from a snapshot or another disk, or sealed from a cache."""
        wanted = parse_create(request)
        origin = wanted.origin
        cache = self._cache_of(wanted)
        if cache:
            check_claim(self._config(), cache, request.parameters)
        if cache and origin.cache and not wanted.reads_only:
            raise InvalidRequest(
                f"volume {wanted.name!r} shows cache {cache!r} and is read-only: use accessModes [ReadOnlyMany]"
            )
        disk = self._disks.create(
            wanted,
            lambda: self._arrivals.wait(origin.cache, origin.version, context),
            patience(PATIENCE, context),
        )
        annotate(cache=disk.cache or None, version=disk.version[:12] or None)
        return csi_pb2.CreateVolumeResponse(volume=_volume(disk))

    def DeleteVolume(
        self, request: csi_pb2.DeleteVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteVolumeResponse:
        """Let a disk be gone; snapshots and clones of it stay."""
        self._disks.delete(required(request.volume_id, "volume_id"))
        return csi_pb2.DeleteVolumeResponse()

    def ControllerPublishVolume(
        self, request: csi_pb2.ControllerPublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerPublishVolumeResponse:
        """Let a node have a disk."""
        disk_id = required(request.volume_id, "volume_id")
        node = required(request.node_id, "node_id")
        if not request.HasField("volume_capability"):
            raise InvalidRequest("volume_capability is missing: it is required")
        annotate(node=node)
        hold = Hold(node=node, mode=parse_mode(request.volume_capability), readonly=request.readonly)
        self._disks.attach(disk_id, hold)
        return csi_pb2.ControllerPublishVolumeResponse(
            publish_context={"readonly": "true" if request.readonly else "false"}
        )

    def ControllerUnpublishVolume(
        self, request: csi_pb2.ControllerUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerUnpublishVolumeResponse:
        """Take a disk away from a node, or from all when none is named."""
        self._disks.detach(required(request.volume_id, "volume_id"), request.node_id)
        return csi_pb2.ControllerUnpublishVolumeResponse()

    def ValidateVolumeCapabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Whether a disk can be used so."""
        required(request.volume_id, "volume_id")
        if not request.volume_capabilities:
            raise InvalidRequest("volume_capabilities is missing: it is required")
        disk = self._disks.get(request.volume_id)
        try:
            for capability in request.volume_capabilities:
                rules.check_mode(disk, parse_mode(capability))
        except InvalidRequest as error:
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message=str(error))
        confirmed = csi_pb2.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
            mutable_parameters=request.mutable_parameters,
        )
        return csi_pb2.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    def ListVolumes(
        self, request: csi_pb2.ListVolumesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ListVolumesResponse:
        """The disks, with the nodes that have them and their condition, as far as it is known without waiting."""
        shown, token = page(
            self._disks.list(), lambda disk: disk.id, "disk", request.starting_token, request.max_entries
        )
        status = csi_pb2.ListVolumesResponse.VolumeStatus
        return csi_pb2.ListVolumesResponse(
            entries=[
                csi_pb2.ListVolumesResponse.Entry(
                    volume=_volume(disk),
                    status=status(published_node_ids=_nodes(disk), volume_condition=self._condition(disk, 0.0)),
                )
                for disk in shown
            ],
            next_token=token,
        )

    def ControllerGetVolume(
        self, request: csi_pb2.ControllerGetVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetVolumeResponse:
        """One disk; its image is read when that was not done since it changed."""
        disk = self._disks.get(required(request.volume_id, "volume_id"))
        status = csi_pb2.ControllerGetVolumeResponse.VolumeStatus(
            published_node_ids=_nodes(disk),
            volume_condition=self._condition(disk, patience(PATIENCE, context)),
        )
        return csi_pb2.ControllerGetVolumeResponse(volume=_volume(disk), status=status)

    def GetCapacity(
        self, request: csi_pb2.GetCapacityRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetCapacityResponse:
        """How large a new disk may be; nothing for what is not offered."""
        try:
            for capability in request.volume_capabilities:
                parse_mode(capability)
        except InvalidRequest:
            return csi_pb2.GetCapacityResponse()
        most = self._disks.capacity()
        answer = csi_pb2.GetCapacityResponse(available_capacity=most)
        answer.maximum_volume_size.value = most
        answer.minimum_volume_size.value = rules.MINIMUM
        return answer

    def ControllerExpandVolume(
        self, request: csi_pb2.ControllerExpandVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """Let a disk and its file system be larger, while no node has it."""
        required(request.volume_id, "volume_id")
        if not request.HasField("capacity_range"):
            raise InvalidRequest("capacity_range is missing: it is required")
        capacity = parse_range(request.capacity_range)
        disk = self._disks.expand(request.volume_id, capacity, patience(PATIENCE, context))
        return csi_pb2.ControllerExpandVolumeResponse(capacity_bytes=disk.size, node_expansion_required=False)

    def ControllerModifyVolume(
        self, request: csi_pb2.ControllerModifyVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerModifyVolumeResponse:
        """Change settings of a disk: all that are named, or none."""
        required(request.volume_id, "volume_id")
        self._disks.modify(request.volume_id, rules.check_settings(request.mutable_parameters))
        return csi_pb2.ControllerModifyVolumeResponse()

    def CreateSnapshot(
        self, request: csi_pb2.CreateSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateSnapshotResponse:
        """Seal a disk as it is now; it can be written to afterwards, the snapshot cannot."""
        name = check_name(request.name)
        source = required(request.source_volume_id, "source_volume_id")
        check_parameters(request.parameters, ())
        snapshot = self._snapshots.create(name, source, patience(PATIENCE, context))
        return csi_pb2.CreateSnapshotResponse(snapshot=snapshot_message(snapshot))

    def DeleteSnapshot(
        self, request: csi_pb2.DeleteSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteSnapshotResponse:
        """Let a snapshot be gone; disks made from it stay."""
        self._snapshots.delete(required(request.snapshot_id, "snapshot_id"))
        return csi_pb2.DeleteSnapshotResponse()

    def ListSnapshots(
        self, request: csi_pb2.ListSnapshotsRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ListSnapshotsResponse:
        """The snapshots, all or those with that id and source."""
        wanted = (
            snapshot
            for snapshot in self._snapshots.list()
            if request.snapshot_id in {"", snapshot.id} and request.source_volume_id in {"", snapshot.source}
        )
        shown, token = page(wanted, lambda snapshot: snapshot.id, "snap", request.starting_token, request.max_entries)
        entry = csi_pb2.ListSnapshotsResponse.Entry
        return csi_pb2.ListSnapshotsResponse(
            entries=[entry(snapshot=snapshot_message(snapshot)) for snapshot in shown], next_token=token
        )

    def GetSnapshot(
        self, request: csi_pb2.GetSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetSnapshotResponse:
        """One snapshot."""
        snapshot = self._snapshots.get(required(request.snapshot_id, "snapshot_id"))
        return csi_pb2.GetSnapshotResponse(snapshot=snapshot_message(snapshot))

    def ControllerGetCapabilities(
        self, request: csi_pb2.ControllerGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """What this service can."""
        return capabilities(CAPABILITIES)

    def _cache_of(self, wanted: Wanted) -> str:
        """The cache whose content the disk will show; who restores a snapshot of a cache must be allowed to use it."""
        origin = wanted.origin
        if origin.snapshot:
            return self._snapshots.get(origin.snapshot).cache
        if origin.disk:
            return self._disks.get(origin.disk).cache
        return origin.cache

    def _condition(self, disk: Disk, seconds: float) -> csi_pb2.VolumeCondition:
        try:
            condition = self._disks.condition(disk, seconds)
        except NotReady as error:
            condition = Condition(abnormal=False, message=str(error))
        return csi_pb2.VolumeCondition(abnormal=condition.abnormal, message=condition.message)


def capabilities(types: tuple[_Rpc.Type.ValueType, ...]) -> csi_pb2.ControllerGetCapabilitiesResponse:
    """The answer of a controller that can these."""
    capability = csi_pb2.ControllerServiceCapability
    return csi_pb2.ControllerGetCapabilitiesResponse(
        capabilities=[capability(rpc=capability.RPC(type=type_)) for type_ in types]
    )


def snapshot_message(snapshot: Snapshot) -> csi_pb2.Snapshot:
    """The snapshot in CSI's words."""
    created = Timestamp()
    created.FromNanoseconds(int(snapshot.created * 1e9))
    return csi_pb2.Snapshot(
        snapshot_id=snapshot.id,
        source_volume_id=snapshot.source,
        size_bytes=snapshot.size,
        creation_time=created,
        ready_to_use=True,
        group_snapshot_id=snapshot.group,
    )


def _volume(disk: Disk) -> csi_pb2.Volume:
    context = {"cache": disk.cache, "version": disk.version} if disk.cache and disk.version else {}
    volume = csi_pb2.Volume(volume_id=disk.id, capacity_bytes=disk.size, volume_context=context)
    # The provisioner deletes a volume that was to have a source and does not say so.
    if disk.origin.snapshot:
        volume.content_source.snapshot.snapshot_id = disk.origin.snapshot
    elif disk.origin.disk:
        volume.content_source.volume.volume_id = disk.origin.disk
    return volume


def _nodes(disk: Disk) -> list[str]:
    return sorted(hold.node for hold in disk.attached)
