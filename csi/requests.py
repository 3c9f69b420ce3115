"""What a pod asked for, read from a request and checked. No side effects.

Attributes are the pod author's text, so they only name an administrator's cache. Who may use it is decided by what
kubelet itself fills in (`csi.storage.k8s.io/*`, with `podInfoOnMount: true` it overwrites what a user wrote there).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch.errors import InvalidRequest
from cachefetch.model import check_cache_name, check_version_id, check_volume_id
from cachefetch.paths import NAME_MAX, PATH_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi.pb import csi_pb2

ATTRIBUTES = ("cache", "version", "access", "path")
"""What `volumeAttributes` of a pod may hold."""
_KUBELET = "csi.storage.k8s.io/"
_MOUNT_FLAGS = frozenset({"ro"})
_TARGET_MAX = 4095
"""Bytes; PATH_MAX of Linux has 4096 with the final NUL (limits.h)."""


class Access(StrEnum):
    """How a volume shows its version."""

    SHARED = "shared"
    """Read-only, the files of the golden tree themselves."""
    PRIVATE = "private"
    """A writable view of the volume's own."""


@dataclass(frozen=True)
class Pod:
    """Who asks, as kubelet says."""

    namespace: str
    service_account: str = ""
    name: str = ""
    uid: str = ""


@dataclass(frozen=True)
class PublishRequest:
    """One NodePublishVolume of a cache volume."""

    volume_id: str
    target: Path
    cache: str
    version: str
    """Empty: whatever is current."""
    access: Access
    path: str
    """Subtree of the version; empty: all of it."""
    pod: Pod


def parse_publish(request: csi_pb2.NodePublishVolumeRequest) -> PublishRequest:
    """The checked request.

    Raises:
        InvalidRequest: a field is missing or wrong; names the key, the value and what is allowed.
    """
    volume_id = check_volume_id(request.volume_id)
    target = parse_target(request.target_path)
    _check_capability(request)
    context = request.volume_context
    attributes = {key: value for key, value in context.items() if not key.startswith(_KUBELET)}
    access = _parse_attributes(attributes)
    if access is Access.SHARED and not request.readonly:
        raise InvalidRequest(
            "readonly is false: a shared volume needs 'readOnly: true' in the pod's csi volume, because without it "
            "kubelet lets the container runtime relabel the files for SELinux, and these are the files of all pods"
        )
    if access is Access.PRIVATE and (request.readonly or request.volume_capability.mount.mount_flags):
        raise InvalidRequest(
            "readonly is true: a private volume is there to be written, so say 'readOnly: false' in the pod's csi "
            "volume, or 'access: shared' to read only"
        )
    return PublishRequest(
        volume_id=volume_id,
        target=target,
        cache=check_cache_name(attributes["cache"]),
        version=check_version_id(attributes["version"]) if attributes.get("version") else "",
        access=access,
        path=parse_subtree(attributes.get("path", "")),
        pod=_parse_pod(context),
    )


def parse_target(path: str) -> Path:
    """The target path.

    Raises:
        InvalidRequest: missing, relative, with components that lead elsewhere, or longer than Linux takes.
    """
    if not path:
        raise InvalidRequest("target_path is missing: it is required")
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InvalidRequest(f"target_path {path!r} is not allowed: it must be absolute, without '..'")
    if _too_long(path, _TARGET_MAX):
        raise InvalidRequest(
            f"target_path {path!r} is not allowed: it has more than {_TARGET_MAX} bytes, or {NAME_MAX} in one component"
        )
    return Path(path)


def parse_subtree(path: str) -> str:
    """The attribute `path`: a directory of the version, empty for all of it.

    Raises:
        InvalidRequest: absolute, with components that lead elsewhere, or longer than any path of a version.
    """
    parts = path.rstrip("/").split("/") if path else []
    if path.startswith("/") or "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise InvalidRequest(
            f"attribute path {path!r} is not allowed: use a path relative to the cache's root, without '.' and '..'"
        )
    if _too_long(path, PATH_MAX):
        raise InvalidRequest(
            f"attribute path {path!r} is not allowed: paths of a version have at most {PATH_MAX} bytes, "
            f"and {NAME_MAX} bytes in one component"
        )
    return "/".join(parts)


def _too_long(path: str, most: int) -> bool:
    raw = path.encode()
    return len(raw) > most or any(len(name) > NAME_MAX for name in raw.split(b"/"))


def _parse_attributes(attributes: Mapping[str, str]) -> Access:
    """Check the names of the attributes; returns the access, the only one with a fixed set of values."""
    for key, value in attributes.items():
        if key not in ATTRIBUTES:
            raise InvalidRequest(
                f"attribute {key!r} (value {value[:80]!r}) is unknown: "
                f"volumeAttributes may hold {', '.join(ATTRIBUTES)}"
            )
    if not attributes.get("cache"):
        raise InvalidRequest(
            "attribute 'cache' is missing: volumeAttributes must name the cache, as in 'cache: node-modules'"
        )
    try:
        return Access(attributes.get("access", Access.SHARED))
    except ValueError:
        raise InvalidRequest(
            f"attribute access {attributes['access']!r} is not allowed: use {' or '.join(Access)}"
        ) from None


def _check_capability(request: csi_pb2.NodePublishVolumeRequest) -> None:
    if not request.HasField("volume_capability"):
        raise InvalidRequest("volume_capability is missing: it is required")
    capability = request.volume_capability
    if capability.HasField("block"):
        raise InvalidRequest(
            "access type 'block' is not allowed: a cache is a directory tree, use volumeMode Filesystem"
        )
    if unknown := set(capability.mount.mount_flags) - _MOUNT_FLAGS:
        raise InvalidRequest(
            f"mount flag {min(unknown)!r} is not allowed: remove mountOptions, "
            "cache volumes are always mounted ro,nosuid,nodev"
        )


def _parse_pod(context: Mapping[str, str]) -> Pod:
    namespace = context.get(f"{_KUBELET}pod.namespace", "")
    if not namespace:
        raise InvalidRequest(
            f"volume_context has no {_KUBELET}pod.namespace: the CSIDriver object must say 'podInfoOnMount: true'"
        )
    return Pod(
        namespace=namespace,
        service_account=context.get(f"{_KUBELET}serviceAccount.name", ""),
        name=context.get(f"{_KUBELET}pod.name", ""),
        uid=context.get(f"{_KUBELET}pod.uid", ""),
    )
