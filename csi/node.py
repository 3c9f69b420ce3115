"""The CSI Node service: protobuf to domain calls and back, no logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch.access import may_use, visible
from cachefetch.errors import InvalidRequest, NotAllowed, Precondition, UnknownCache, UnknownVolume
from cachefetch.model import check_volume_id, short_id
from csi import cache_handles
from csi.disk_calls import parse_path
from csi.disk_requests import parse_mode, required
from csi.disks.ids import is_image, parse_handle
from csi.logs import annotate
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.pool import Slot
from csi.requests import Access, parse_publish, parse_target

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from cachefetch.config import Config
    from cachefetch.records import VolumeRecord
    from csi.arrivals import Arrivals
    from csi.disk_calls import DiskCalls
    from csi.private import Space
    from csi.requests import PublishRequest
    from csi.volumes import Usage, Volumes

_Capability = csi_pb2.NodeServiceCapability
_CAPABILITIES = (
    _Capability.RPC.STAGE_UNSTAGE_VOLUME,
    _Capability.RPC.GET_VOLUME_STATS,
    _Capability.RPC.EXPAND_VOLUME,
    _Capability.RPC.VOLUME_CONDITION,
    _Capability.RPC.SINGLE_NODE_MULTI_WRITER,
)


class Node(csi_pb2_grpc.NodeServicer):
    """Publishes cache volumes and disks on this node. The form of a volume's id tells which it is."""

    def __init__(
        self,
        volumes: Volumes,
        arrivals: Arrivals,
        *,
        config: Callable[[], Config],
        node_id: str,
        max_volumes: int,
        disks: DiskCalls | None = None,
    ) -> None:
        """Serve `volumes` and `disks`; `config` tells the configuration in force, `max_volumes` 0 means no limit."""
        self._volumes = volumes
        self._arrivals = arrivals
        self._config = config
        self._node_id = node_id
        self._max_volumes = max_volumes
        self._disk_calls = disks

    def NodeStageVolume(
        self, request: csi_pb2.NodeStageVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeStageVolumeResponse:
        """Mount a disk once for this node; cache volumes need nothing of the kind."""
        required(request.volume_id, "volume_id")
        parse_path(request.staging_target_path, "staging_target_path")
        if not request.HasField("volume_capability"):
            raise InvalidRequest("volume_capability is missing: it is required")
        if is_image(request.volume_id, "disk"):
            self._disks().stage(request)
        elif parse_handle(request.volume_id) is None:
            raise UnknownVolume(f"there is no volume {request.volume_id!r}: it was deleted, or never was")
        else:
            parse_mode(request.volume_capability)
        return csi_pb2.NodeStageVolumeResponse()

    def NodeUnstageVolume(
        self, request: csi_pb2.NodeUnstageVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnstageVolumeResponse:
        """Unmount a disk; kubelet repeats this for ever on any error, so unknown is fine."""
        required(request.volume_id, "volume_id")
        parse_path(request.staging_target_path, "staging_target_path")
        if is_image(request.volume_id, "disk"):
            self._disks().unstage(request)
        return csi_pb2.NodeUnstageVolumeResponse()

    def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Show a version or a disk at the target path; waits for a version that is not on this node yet."""
        if is_image(request.volume_id, "disk"):
            self._disks().publish(request)
            return csi_pb2.NodePublishVolumeResponse()
        handle = parse_handle(request.volume_id)
        wanted = cache_handles.parse_publish(request, handle) if handle else parse_publish(request)
        annotate(cache=wanted.cache, pod=f"{wanted.pod.namespace}/{wanted.pod.name}")

        def choose() -> str:
            # For a new volume only: one that lives stays, whatever was taken away from its pod or from the
            # configuration meanwhile, and kubelet repeats its publish after a restart.
            authorise(self._config(), wanted)
            return self._arrivals.wait(wanted.cache, wanted.version, context, wanted.pod)

        record, repeated = self._volumes.publish(wanted, choose, limit=private_limit(self._config(), wanted.cache))
        annotate(version=short_id(record.version), repeated=repeated or None, **_delivery(record))
        return csi_pb2.NodePublishVolumeResponse()

    def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Take a volume away from its target path; kubelet repeats this for ever on any error, so unknown is fine."""
        target = parse_target(request.target_path)
        if is_image(request.volume_id, "disk"):
            self._disks().unpublish(request)
        else:
            self._volumes.unpublish(self._volume_at(request.volume_id, target), target)
        return csi_pb2.NodeUnpublishVolumeResponse()

    def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """What the volume shows and costs; kubelet asks every minute."""
        if not request.volume_path:
            raise InvalidRequest("volume_path is missing: it is required")
        if is_image(request.volume_id, "disk"):
            return self._disks().stats(request)
        path = Path(request.volume_path)
        return _stats(self._volumes.usage(self._volume_at(request.volume_id, path), path))

    def NodeExpandVolume(
        self, request: csi_pb2.NodeExpandVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeExpandVolumeResponse:
        """The size of a disk, which the controller has grown; nothing else can grow."""
        required(request.volume_id, "volume_id")
        required(request.volume_path, "volume_path")
        if not is_image(request.volume_id, "disk"):
            raise UnknownVolume(f"there is no disk {request.volume_id!r}: only disks can be expanded")
        return self._disks().expand(request)

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

    def _disks(self) -> DiskCalls:
        if self._disk_calls is None:
            raise Precondition("this node has no disks: start its plugin with the --disk-dir of the controller")
        return self._disk_calls

    def _volume_at(self, volume_id: str, path: Path) -> str:
        """The id of the cache volume at the path: a persistent one has a volume for each of its targets."""
        check_volume_id(volume_id)
        return cache_handles.volume_at(volume_id, path) if parse_handle(volume_id) else volume_id


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
    if request.access is Access.PRIVATE and cache.private is None:
        raise InvalidRequest(
            f"attribute access 'private' is not allowed for cache {request.cache!r}: use 'shared', or ask the "
            "administrator to add 'private: overlay' to the cache"
        )


def private_limit(config: Config, cache: str) -> int:
    """The most bytes that a private view of the cache may hold of its own; 0: no limit, or no such cache."""
    limits = (declared.private_max_bytes for declared in config.caches if declared.name == cache)
    return int(next(limits, None) or 0)


def _delivery(record: VolumeRecord) -> dict[str, str]:
    """How the volume got its files, for the log. Without a link tree of its own it shows the golden tree itself."""
    if record.access == Access.PRIVATE:
        return {"link_mode": "overlay"}
    slot = Slot.parse(record.slot)
    return {"link_mode": slot.link_mode, "pool": "hit"} if slot else {"link_mode": "golden", "pool": "miss"}


def _stats(usage: Usage) -> csi_pb2.NodeGetVolumeStatsResponse:
    """Of a shared volume `total` is what the pod sees, `used` what it costs, and nothing is available to write to.

    Of a private one they are those of the file system that it writes to.
    """
    unit = csi_pb2.VolumeUsage
    if usage.space is not None:
        return _space(usage, usage.space)
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


def _space(usage: Usage, space: Space) -> csi_pb2.NodeGetVolumeStatsResponse:
    unit = csi_pb2.VolumeUsage
    message = f"a private view of {usage.shared_bytes} bytes in {usage.shared_inodes} inodes of its version"
    return csi_pb2.NodeGetVolumeStatsResponse(
        usage=[
            csi_pb2.VolumeUsage(unit=kind, total=total, used=used, available=available)
            for kind, (total, used, available) in ((unit.BYTES, space.bytes), (unit.INODES, space.inodes))
        ],
        volume_condition=csi_pb2.VolumeCondition(abnormal=bool(usage.abnormal), message=usage.abnormal or message),
    )
