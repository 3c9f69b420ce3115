"""Requests as kubelet makes them, and a client that sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from csi.pb import csi_pb2, csi_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

CACHE = "deps"
NAMESPACE = "team-a"
_TIMEOUT = 30.0


def publish_request(
    volume_id: str,
    target: Path | str,
    *,
    namespace: str = NAMESPACE,
    service_account: str = "default",
    readonly: bool = True,
    **attributes: str,
) -> csi_pb2.NodePublishVolumeRequest:
    """What kubelet sends for an inline volume; without other attributes it names the cache `deps`."""
    capability = csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(),
        access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
    )
    kubelet = {
        "csi.storage.k8s.io/pod.namespace": namespace,
        "csi.storage.k8s.io/pod.name": f"pod-of-{volume_id}"[:63],
        "csi.storage.k8s.io/pod.uid": "5c0e5c0e",
        "csi.storage.k8s.io/serviceAccount.name": service_account,
        "csi.storage.k8s.io/ephemeral": "true",
    }
    return csi_pb2.NodePublishVolumeRequest(
        volume_id=volume_id,
        target_path=str(target),
        volume_capability=capability,
        readonly=readonly,
        volume_context={"cache": CACHE, **attributes, **kubelet},
    )


class Client:
    """Calls a driver on its socket; errors are grpc.RpcError."""

    def __init__(self, socket: Path) -> None:
        self.channel = grpc.insecure_channel(f"unix:{socket}")
        self.node = csi_pb2_grpc.NodeStub(self.channel)
        self.identity = csi_pb2_grpc.IdentityStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def probe(self) -> bool:
        return bool(self.identity.Probe(csi_pb2.ProbeRequest(), timeout=_TIMEOUT).ready.value)

    def publish(self, volume_id: str, target: Path | str, *, timeout: float = _TIMEOUT, **given: Any) -> None:
        self.node.NodePublishVolume(publish_request(volume_id, target, **given), timeout=timeout)

    def start_publish(self, volume_id: str, target: Path | str, **given: Any) -> Any:
        """A publish that runs on; its `code()` and `details()` wait for the answer."""
        return self.node.NodePublishVolume.future(publish_request(volume_id, target, **given), timeout=60)

    def unpublish(self, volume_id: str, target: Path | str) -> None:
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target))
        self.node.NodeUnpublishVolume(request, timeout=_TIMEOUT)

    def stats(self, volume_id: str, path: Path | str) -> csi_pb2.NodeGetVolumeStatsResponse:
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=str(path))
        return self.node.NodeGetVolumeStats(request, timeout=_TIMEOUT)
