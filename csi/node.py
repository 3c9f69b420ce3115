"""The CSI Node service: protobuf to domain calls and back, no logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch.access import may_use, visible
from cachefetch.errors import InvalidRequest, NotAllowed, UnknownCache
from cachefetch.model import check_volume_id, short_id
from csi.logs import annotate
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.requests import Access, parse_publish, parse_target

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from cachefetch.config import Config
    from csi.arrivals import Arrivals
    from csi.requests import PublishRequest
    from csi.volumes import Usage, Volumes

_Capability = csi_pb2.NodeServiceCapability
_CAPABILITIES = (_Capability.RPC.GET_VOLUME_STATS, _Capability.RPC.VOLUME_CONDITION)


class Node(csi_pb2_grpc.NodeServicer):
    """Publishes cache volumes on this node."""

    def __init__(
        self,
        volumes: Volumes,
        arrivals: Arrivals,
        *,
        config: Callable[[], Config],
        node_id: str,
        max_volumes: int,
    ) -> None:
        """Serve `volumes`; `config` tells the configuration in force, `max_volumes` 0 means no limit."""
        self._volumes = volumes
        self._arrivals = arrivals
        self._config = config
        self._node_id = node_id
        self._max_volumes = max_volumes

    def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Show a version at the target path, read-only; waits for one that is not on this node yet."""
        wanted = parse_publish(request)
        annotate(cache=wanted.cache, pod=f"{wanted.pod.namespace}/{wanted.pod.name}")

        def choose() -> str:
            # For a new volume only: one that lives stays, whatever was taken away from its pod or from the
            # configuration meanwhile, and kubelet repeats its publish after a restart.
            authorise(self._config(), wanted)
            return self._arrivals.wait(wanted.cache, wanted.version, context)

        record, repeated = self._volumes.publish(wanted, choose)
        annotate(version=short_id(record.version), link_mode=record.link_mode, pool="none", repeated=repeated or None)
        return csi_pb2.NodePublishVolumeResponse()

    def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Take a volume away from its target path; kubelet repeats this for ever on any error, so unknown is fine."""
        self._volumes.unpublish(check_volume_id(request.volume_id), parse_target(request.target_path))
        return csi_pb2.NodeUnpublishVolumeResponse()

    def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """What the volume shows and costs; kubelet asks every minute."""
        if not request.volume_path:
            raise InvalidRequest("volume_path is missing: it is required")
        usage = self._volumes.usage(check_volume_id(request.volume_id), Path(request.volume_path))
        return _stats(usage)

    def NodeGetInfo(
        self, request: csi_pb2.NodeGetInfoRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetInfoResponse:
        """Who this node is; needs no network, so that registration never waits."""
        return csi_pb2.NodeGetInfoResponse(node_id=self._node_id, max_volumes_per_node=self._max_volumes)

    def NodeGetCapabilities(
        self, request: csi_pb2.NodeGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """What this service can."""
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[_Capability(rpc=_Capability.RPC(type=type_)) for type_ in _CAPABILITIES]
        )


def authorise(config: Config, request: PublishRequest) -> None:
    """Return if the pod may have the volume.

    Raises:
        UnknownCache: no cache of that name; names those that the pod may use.
        NotAllowed: the cache is not for this pod. Says nothing about its content.
        InvalidRequest: the access is not offered for this cache.
    """
    pod = request.pod
    cache = next((cache for cache in config.caches if cache.name == request.cache), None)
    if cache is None:
        usable = ", ".join(visible(config, pod.namespace, pod.service_account)) or "none"
        raise UnknownCache(f"there is no cache {request.cache!r}: caches for namespace {pod.namespace!r} are {usable}")
    if not may_use(cache, pod.namespace, pod.service_account):
        raise NotAllowed(
            f"cache {request.cache!r} is not for service account {pod.service_account!r} in namespace "
            f"{pod.namespace!r}: ask the administrator to add either to its access"
        )
    if request.access is Access.PRIVATE:
        raise InvalidRequest("attribute access 'private' is not offered yet: use 'shared'")


def _stats(usage: Usage) -> csi_pb2.NodeGetVolumeStatsResponse:
    """`total` is what the pod sees, `used` what the volume itself costs; none is available, for nobody can write."""
    unit = csi_pb2.VolumeUsage
    message = (
        f"shares {usage.shared_bytes} bytes in {usage.shared_inodes} inodes with its version; "
        f"owns {usage.own_bytes} bytes in {usage.own_inodes} inodes"
    )
    return csi_pb2.NodeGetVolumeStatsResponse(
        usage=[
            csi_pb2.VolumeUsage(unit=unit.BYTES, total=usage.shared_bytes + usage.own_bytes, used=usage.own_bytes),
            csi_pb2.VolumeUsage(unit=unit.INODES, total=usage.shared_inodes + usage.own_inodes, used=usage.own_inodes),
        ],
        volume_condition=csi_pb2.VolumeCondition(abnormal=bool(usage.abnormal), message=usage.abnormal or message),
    )
