"""The CSI GroupController service: snapshots of several disks as one consistent set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from cachefetch.errors import InvalidRequest
from csi.arrivals import patience
from csi.controller import snapshot_message
from csi.disk_requests import check_parameters, required
from csi.disks.errors import UnknownSnapshot
from csi.disks.ids import check_name
from csi.disks.jobs import PATIENCE
from csi.pb import csi_pb2, csi_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from csi.disks.backend import SnapshotBackend
    from csi.disks.model import Group

_Capability = csi_pb2.GroupControllerServiceCapability


class GroupController(csi_pb2_grpc.GroupControllerServicer):
    """Group snapshots of a backend."""

    def __init__(self, snapshots: SnapshotBackend) -> None:
        self._snapshots = snapshots

    def CreateVolumeGroupSnapshot(
        self, request: csi_pb2.CreateVolumeGroupSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateVolumeGroupSnapshotResponse:
        """Seal several disks, none of which may be written to meanwhile."""
        name = check_name(request.name)
        if not request.source_volume_ids:
            raise InvalidRequest("source_volume_ids is missing: it is required")
        check_parameters(request.parameters, ())
        group = self._snapshots.create_group(name, request.source_volume_ids, patience(PATIENCE, context))
        return csi_pb2.CreateVolumeGroupSnapshotResponse(group_snapshot=self._message(group))

    def DeleteVolumeGroupSnapshot(
        self, request: csi_pb2.DeleteVolumeGroupSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteVolumeGroupSnapshotResponse:
        """Let a group and its snapshots be gone."""
        group_id = required(request.group_snapshot_id, "group_snapshot_id")
        self._check_members(group_id, request.snapshot_ids)
        self._snapshots.delete_group(group_id)
        return csi_pb2.DeleteVolumeGroupSnapshotResponse()

    def GetVolumeGroupSnapshot(
        self, request: csi_pb2.GetVolumeGroupSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetVolumeGroupSnapshotResponse:
        """A group with its snapshots."""
        group = self._snapshots.get_group(required(request.group_snapshot_id, "group_snapshot_id"))
        _check_same(group, request.snapshot_ids)
        return csi_pb2.GetVolumeGroupSnapshotResponse(group_snapshot=self._message(group))

    def GroupControllerGetCapabilities(
        self, request: csi_pb2.GroupControllerGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GroupControllerGetCapabilitiesResponse:
        """What this service can."""
        type_ = _Capability.RPC.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
        return csi_pb2.GroupControllerGetCapabilitiesResponse(
            capabilities=[_Capability(rpc=_Capability.RPC(type=type_))]
        )

    def _check_members(self, group_id: str, snapshot_ids: Sequence[str]) -> None:
        try:
            group = self._snapshots.get_group(group_id)
        except UnknownSnapshot:
            return
        _check_same(group, snapshot_ids)

    def _message(self, group: Group) -> csi_pb2.VolumeGroupSnapshot:
        created = Timestamp()
        created.FromNanoseconds(int(group.created * 1e9))
        return csi_pb2.VolumeGroupSnapshot(
            group_snapshot_id=group.id,
            snapshots=[snapshot_message(self._snapshots.get(member)) for member in group.snapshots],
            creation_time=created,
            ready_to_use=True,
        )


def _check_same(group: Group, snapshot_ids: Sequence[str]) -> None:
    """CSI specification 1.12: a list that does not match the group is INVALID_ARGUMENT; an empty one says nothing."""
    if snapshot_ids and set(snapshot_ids) != set(group.snapshots):
        raise InvalidRequest(f"snapshot_ids do not match group {group.id}: it has {', '.join(group.snapshots)}")
