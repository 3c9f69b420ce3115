"""The CSI Controller service without a disk directory: volumes of caches only, whose handles say all.

Nothing is made and nothing is kept: each node shows the golden tree that its own fetcher brings (`csi.cache_handles`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefetch.errors import InvalidRequest, Precondition, UnknownVolume
from csi.disk_requests import parse_create, parse_mode, required
from csi.disks.ids import cache_handle, is_image, parse_handle
from csi.logs import annotate
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.permissions import check_claim

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from cachefetch.config import Config
    from csi.arrivals import Arrivals

_Capability = csi_pb2.ControllerServiceCapability
_CAPABILITIES = (_Capability.RPC.CREATE_DELETE_VOLUME, _Capability.RPC.SINGLE_NODE_MULTI_WRITER)


class CacheController(csi_pb2_grpc.ControllerServicer):
    """Volumes of caches. Keeps no state."""

    def __init__(self, arrivals: Arrivals, *, config: Callable[[], Config]) -> None:
        """`arrivals` tells which version is current, `config` who may use which cache."""
        self._arrivals = arrivals
        self._config = config

    def CreateVolume(
        self, request: csi_pb2.CreateVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateVolumeResponse:
        """Put cache and version into a handle."""
        wanted = parse_create(request)
        origin = wanted.origin
        if not origin.cache or origin.disk or origin.snapshot:
            raise Precondition(
                f"volume {wanted.name!r} needs an image, and there is no directory for images: start controller and "
                "nodes with the same --disk-dir, or use a StorageClass with the parameter 'cache'"
            )
        if not wanted.reads_only:
            raise InvalidRequest(
                f"volume {wanted.name!r} shows cache {origin.cache!r} and is read-only: use accessModes [ReadOnlyMany]"
            )
        check_claim(self._config(), origin.cache, request.parameters)
        version = self._arrivals.wait(origin.cache, origin.version, context)
        annotate(cache=origin.cache, version=version[:12])
        return csi_pb2.CreateVolumeResponse(
            volume=csi_pb2.Volume(
                volume_id=cache_handle(origin.cache, version, wanted.name),
                capacity_bytes=wanted.capacity.required,
                volume_context={"cache": origin.cache, "version": version},
            )
        )

    def DeleteVolume(
        self, request: csi_pb2.DeleteVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteVolumeResponse:
        """Forget a handle: there is nothing to delete.

        Raises:
            Precondition: it is a disk, which this controller cannot see.
        """
        volume_id = required(request.volume_id, "volume_id")
        if is_image(volume_id, "disk"):
            raise Precondition(f"volume {volume_id} is a disk: start the controller with the --disk-dir that holds it")
        return csi_pb2.DeleteVolumeResponse()

    def ValidateVolumeCapabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Whether the volume can be used so: by readers, on any number of nodes."""
        volume_id = required(request.volume_id, "volume_id")
        if not request.volume_capabilities:
            raise InvalidRequest("volume_capabilities is missing: it is required")
        if parse_handle(volume_id) is None:
            raise UnknownVolume(f"there is no volume {volume_id!r}: it was deleted, or never was")
        answer = csi_pb2.ValidateVolumeCapabilitiesResponse
        try:
            modes = [parse_mode(capability) for capability in request.volume_capabilities]
        except InvalidRequest as error:
            return answer(message=str(error))
        if not all(mode.reads_only for mode in modes):
            return answer(message="a cache is read-only: use accessModes [ReadOnlyMany]")
        return answer(
            confirmed=answer.Confirmed(
                volume_context=request.volume_context,
                volume_capabilities=request.volume_capabilities,
                parameters=request.parameters,
                mutable_parameters=request.mutable_parameters,
            )
        )

    def ControllerGetCapabilities(
        self, request: csi_pb2.ControllerGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """What this service can."""
        return csi_pb2.ControllerGetCapabilitiesResponse(
            capabilities=[_Capability(rpc=_Capability.RPC(type=type_)) for type_ in _CAPABILITIES]
        )
