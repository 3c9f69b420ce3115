"""Persistent volumes without an image: the handle names cache and version, each target is a cache volume of the node.

A persistent volume may be at several targets, a cache volume is at one; so every target has a volume of its own, whose
id is derived from handle and target. Their life is that of `csi.volumes`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cachefetch.errors import InvalidRequest
from csi.disk_requests import parse_mode
from csi.permissions import POD_NAMESPACE, SERVICE_ACCOUNT
from csi.requests import Access, Pod, PublishRequest, parse_target

if TYPE_CHECKING:
    from pathlib import Path

    from csi.disks.ids import Handle
    from csi.pb import csi_pb2


def volume_at(volume_id: str, target: Path) -> str:
    """The id of the cache volume that shows the persistent volume at the target."""
    text = f"{volume_id}\0{target}".encode()
    return f"pv-{hashlib.sha256(text).hexdigest()[:40]}"


def parse_publish(request: csi_pb2.NodePublishVolumeRequest, handle: Handle) -> PublishRequest:
    """The cache volume that shows the persistent volume at the request's target.

    Raises:
        InvalidRequest: a field is missing or wrong.
    """
    target = parse_target(request.target_path)
    if not request.HasField("volume_capability"):
        raise InvalidRequest("volume_capability is missing: it is required")
    mode = parse_mode(request.volume_capability)
    if not mode.reads_only:
        raise InvalidRequest(f"access mode {mode} is not possible: a cache is read-only, use ReadOnlyMany")
    context = request.volume_context
    namespace = context.get(POD_NAMESPACE, "")
    if not namespace:
        raise InvalidRequest(
            f"volume_context has no {POD_NAMESPACE}: the CSIDriver object must say 'podInfoOnMount: true'"
        )
    return PublishRequest(
        volume_id=volume_at(request.volume_id, target),
        target=target,
        cache=handle.cache,
        version=handle.version,
        access=Access.SHARED,
        path="",
        pod=Pod(
            namespace=namespace,
            service_account=context.get(SERVICE_ACCOUNT, ""),
            name=context.get("csi.storage.k8s.io/pod.name", ""),
            uid=context.get("csi.storage.k8s.io/pod.uid", ""),
        ),
    )
