"""Requests for disks, read and checked: protobuf to the types of `csi.disks`. No side effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cachefetch.errors import InvalidRequest
from cachefetch.model import check_cache_name, check_version_id
from csi.disks import rules
from csi.disks.backend import Wanted
from csi.disks.errors import BadToken
from csi.disks.ids import check_name, is_image
from csi.disks.model import Mode, Origin
from csi.pb import csi_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PARAMETERS = ("cache", "version")
"""What the parameters of a StorageClass may hold."""
FILESYSTEMS = frozenset({"", "ext4", "erofs"})
"""What a capability may name as fs_type; the provisioner's --default-fstype names ext4 for everything."""
_KUBERNETES = "csi.storage.k8s.io/"

Item = TypeVar("Item")


def required(value: str, field: str) -> str:
    """Return `value`.

    Raises:
        InvalidRequest: it is empty.
    """
    if not value:
        raise InvalidRequest(f"{field} is missing: it is required")
    return value


def parse_create(request: csi_pb2.CreateVolumeRequest) -> Wanted:
    """The disk that is asked for.

    Raises:
        InvalidRequest: a field is missing or wrong.
    """
    name = check_name(request.name)
    modes = [parse_mode(capability) for capability in request.volume_capabilities]
    if not modes:
        raise InvalidRequest("volume_capabilities is missing: it is required")
    if len({mode.reads_only for mode in modes}) > 1:
        raise InvalidRequest(
            f"access modes {', '.join(modes)} do not go together: a volume is either written to or read by many"
        )
    return Wanted(
        name=name,
        capacity=parse_range(request.capacity_range),
        origin=_parse_origin(request),
        reads_only=modes[0].reads_only,
        settings=rules.check_settings(request.mutable_parameters),
    )


def parse_mode(capability: csi_pb2.VolumeCapability) -> Mode:
    """The access mode of a capability.

    Raises:
        InvalidRequest: it, the access type, the file system or a mount flag is not offered.
    """
    if capability.HasField("block"):
        raise InvalidRequest("access type 'block' is not offered: use volumeMode Filesystem")
    if capability.mount.fs_type not in FILESYSTEMS:
        raise InvalidRequest(f"fs_type {capability.mount.fs_type[:80]!r} is not offered: use 'ext4', or none")
    if unknown := set(capability.mount.mount_flags) - {"ro"}:
        raise InvalidRequest(f"mount flag {min(unknown)[:80]!r} is not offered: remove mountOptions")
    number = capability.access_mode.mode
    try:
        return Mode(csi_pb2.VolumeCapability.AccessMode.Mode.Name(number))
    except ValueError:
        raise InvalidRequest(f"access mode {number} is not offered: use one of {', '.join(Mode)}") from None


def parse_range(capacity: csi_pb2.CapacityRange) -> rules.Range:
    """The capacity that is asked for; absent: any.

    Raises:
        InvalidRequest: it is no range.
    """
    return rules.check_range(capacity.required_bytes, capacity.limit_bytes)


def check_parameters(parameters: Mapping[str, str], allowed: Sequence[str]) -> None:
    """Return if every parameter is `allowed`, or one that a sidecar adds.

    Raises:
        InvalidRequest: names one that is not.
    """
    for key in parameters:
        if key not in allowed and not key.startswith(_KUBERNETES):
            known = ", ".join(allowed) or "none"
            raise InvalidRequest(f"parameter {key[:80]!r} is unknown: the class may hold {known}")


def page(
    items: Iterable[Item], id_of: Callable[[Item], str], kind: str, token: str, most: int
) -> tuple[list[Item], str]:
    """The items, sorted by id, that come after `token`, at most `most` (0: all), and the token of the next page.

    A token is the last id of a page, so pages stay right while items come and go: none is shown twice, and none that
    is there all the time is left out.

    Raises:
        BadToken: not a token of ours.
        InvalidRequest: `most` is negative.
    """
    if most < 0:
        raise InvalidRequest(f"max_entries {most} is not allowed: use 0 (no limit) or more")
    if token and not is_image(token, kind):
        raise BadToken(f"starting_token {token[:80]!r} is not one of ours: list from the start")
    after = [item for item in items if id_of(item) > token]
    shown = after[:most] if most else after
    return shown, id_of(shown[-1]) if len(shown) < len(after) else ""


def _parse_origin(request: csi_pb2.CreateVolumeRequest) -> Origin:
    parameters = request.parameters
    check_parameters(parameters, PARAMETERS)
    source = request.volume_content_source
    origin = Origin(
        disk=source.volume.volume_id,
        snapshot=source.snapshot.snapshot_id,
        cache=check_cache_name(parameters["cache"]) if "cache" in parameters else "",
        version=check_version_id(parameters["version"]) if "version" in parameters else "",
    )
    if request.HasField("volume_content_source") and not (origin.disk or origin.snapshot):
        raise InvalidRequest("volume_content_source is empty: name a snapshot or a volume, or leave it out")
    if origin.version and not origin.cache:
        raise InvalidRequest(f"parameter version {origin.version[:12]!r} stands alone: name its 'cache', too")
    return origin
