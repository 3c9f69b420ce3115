"""The words of goldlink as types: entries, versions, link modes, names. No side effects."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from cachefetch.errors import InvalidRequest

CACHE_NAME_MAX = 63
"""A cache name must fit a Kubernetes label value (RFC 1123, 63 characters)."""
VOLUME_ID_MAX = 128
"""CSI: strings are at most 128 bytes."""

_MTIME_MIN, _MTIME_MAX = -(2**31) * 10**9, 2**63 - 1

_CACHE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_VERSION_ID = re.compile(r"[0-9a-f]{64}")


class EntryType(StrEnum):
    """What an entry of a version is; devices, sockets and FIFOs are refused."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"


class Entry(NamedTuple):
    """One line of a manifest: one file, directory or symlink of a version."""

    path: bytes
    """Relative to the root of the tree, `/` between components; any bytes but NUL."""
    type: EntryType
    mode: int
    """Permission bits, see `normal_mode`."""
    mtime_ns: int
    """Nanoseconds since the epoch. Part of the content: .pyc files, make and cargo look at it."""
    size: int = 0
    """Bytes of a file, 0 otherwise."""
    digest: str = ""
    """sha256 of a file's bytes in hex, empty otherwise."""
    target: bytes = b""
    """Text of a symlink, kept verbatim and never followed."""


class Totals(NamedTuple):
    """What a version amounts to."""

    entries: int
    files: int
    bytes: int


@dataclass(frozen=True)
class Version:
    """A published version of a cache."""

    cache: str
    id: str
    """sha256 of the canonical manifest, in hex."""
    totals: Totals
    published: float
    """Seconds since the epoch."""

    @property
    def short(self) -> str:
        """The first twelve characters of the id, for people."""
        return short_id(self.id)


class LinkMode(StrEnum):
    """How a file of the golden tree got into another tree."""

    HARDLINK = "hardlink"
    REFLINK = "reflink"
    COPY = "copy"


def short_id(version_id: str) -> str:
    """The first twelve characters of a version id, for people."""
    return version_id[:12]


def normal_mode(type_: EntryType, mode: int) -> int:
    """The permission bits that an entry has in the store, whatever the origin says.

    Files become 0444, or 0555 when anybody may execute them; directories 0755; symlinks 0777. Golden trees belong to
    root and serve pods of any user, so the origin's owner bits would only lock readers out; set-id and sticky bits
    are dropped.
    """
    if type_ is EntryType.FILE:
        return 0o555 if mode & 0o111 else 0o444
    return 0o755 if type_ is EntryType.DIRECTORY else 0o777


def normal_mtime(mtime_ns: int) -> int:
    """The mtime that an entry has in the store: the nearest one that all file systems keep and that fits 64 bits.

    From 1901 (ext4 and XFS count seconds from -2^31) to 2262 (2^63 nanoseconds). File systems clamp what they cannot
    keep, each in its own way, and then the tree would not be what its manifest says.
    """
    return min(max(mtime_ns, _MTIME_MIN), _MTIME_MAX)


def golden_owner() -> tuple[int, int]:
    """User and group of golden files: root, or who runs this where that is not root, as in the controller's pod."""
    return (0, 0) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def check_cache_name(name: str) -> str:
    """Return `name` if it can name a cache, raise InvalidRequest otherwise."""
    if len(name) > CACHE_NAME_MAX or not _CACHE_NAME.fullmatch(name) or ".." in name:
        raise InvalidRequest(
            f"cache name {name!r} is not allowed: use at most {CACHE_NAME_MAX} lower-case letters, digits, '-' "
            "and '.', starting and ending with a letter or digit"
        )
    return name


def check_version_id(version_id: str) -> str:
    """Return `version_id` if it has the form of one, raise InvalidRequest otherwise."""
    if not _VERSION_ID.fullmatch(version_id):
        raise InvalidRequest(
            f"version {version_id!r} is not a version id: use the 64 hexadecimal digits that "
            "'cachefetch list -o json' shows"
        )
    return version_id


def check_volume_id(volume_id: str) -> str:
    """Return `volume_id` if it can be one path component, raise InvalidRequest otherwise."""
    if not volume_id:
        raise InvalidRequest("volume_id is missing: it is required")
    if (
        not volume_id.isprintable()
        or len(volume_id.encode()) > VOLUME_ID_MAX
        or volume_id in {".", ".."}
        or "/" in volume_id
    ):
        raise InvalidRequest(
            f"volume_id {volume_id!r} is not allowed: it must be one path component "
            f"of at most {VOLUME_ID_MAX} printable bytes"
        )
    return volume_id
