"""Names of disks: derived from the names in the requests, so that a repeated request finds the first answer.

    disk-<40 hex>   snap-<40 hex>   group-<40 hex>      images and what refers to them
    <cache>@<digest>@<20 hex>                           a cache volume that needs no image: the handle says all

CSI takes 128 bytes at most; a cache name has up to 63, so the digest is written in base64url (43 characters).
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NamedTuple

from cachefetch.errors import InvalidRequest
from cachefetch.model import check_cache_name

_IMAGE = re.compile(r"(disk|snap|group)-[0-9a-f]{40}")
_HANDLE = re.compile(r"([a-z0-9.-]{1,63})@([A-Za-z0-9_-]{43})@([0-9a-f]{20})")
NAME_MAX = 128
"""Bytes; CSI specification 1.12, "Size Limits"."""


class Handle(NamedTuple):
    """What the handle of a cache volume says."""

    cache: str
    version: str


def disk_id(name: str) -> str:
    """The id of the disk with that name."""
    return f"disk-{_digest(name)}"


def snapshot_id(name: str, source: str = "") -> str:
    """The id of the snapshot with that name; in a group, whose name it is, `source` tells its members apart."""
    return f"snap-{_digest(f'{name}/{source}' if source else name)}"


def group_id(name: str) -> str:
    """The id of the group snapshot with that name."""
    return f"group-{_digest(name)}"


def is_image(id_: str, kind: str) -> bool:
    """Whether `id_` has the form of a `disk`, `snap` or `group` id."""
    match = _IMAGE.fullmatch(id_)
    return match is not None and match[1] == kind


def cache_handle(cache: str, version: str, name: str) -> str:
    """The handle of the volume `name` that shows that version of the cache."""
    digest = base64.urlsafe_b64encode(bytes.fromhex(version)).rstrip(b"=").decode("ascii")
    return f"{cache}@{digest}@{_digest(name)[:20]}"


def parse_handle(volume_id: str) -> Handle | None:
    """What the handle says; None when it is not the handle of a cache volume."""
    match = _HANDLE.fullmatch(volume_id)
    if match is None:
        return None
    try:
        cache = check_cache_name(match[1])
    except InvalidRequest:
        return None
    return Handle(cache, base64.urlsafe_b64decode(f"{match[2]}=").hex())


def check_name(name: str, field: str = "name") -> str:
    """Return `name` if CSI allows it: 1 to 128 bytes without control characters.

    Raises:
        InvalidRequest: it is missing or not allowed.
    """
    if not name:
        raise InvalidRequest(f"{field} is missing: it is required")
    if len(name.encode()) > NAME_MAX or any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name):  # noqa: PLR2004 - C0, DEL, C1
        raise InvalidRequest(f"{field} {name!r} is not allowed: use 1 to {NAME_MAX} bytes without control characters")
    return name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]
