"""What may be done with which disk: tables of the CSI specification as functions. No side effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cachefetch import units
from cachefetch.errors import Conflict, InvalidRequest, Precondition
from csi.disks.errors import OutOfRange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from csi.disks.model import Disk, Hold, Mode, Origin

MINIMUM = 1 << 20
"""Bytes; the smallest ext4 that holds something."""
DEFAULT = 1 << 30
"""Bytes of a disk when the request names no capacity."""
CEILING = 1 << 44
"""Bytes; ext4 takes no larger files (16 TiB with blocks of 4 KiB)."""
SETTINGS = ("pin", "prefetch", "retention")
"""Mutable parameters: `pin` refuses deletion, `prefetch` lets nodes check the image ahead of its first use, `retention`
keeps the sealed image after its last user."""


class Range(NamedTuple):
    """What capacity a request allows, in bytes; 0: says nothing."""

    required: int = 0
    limit: int = 0

    def admits(self, size: int) -> bool:
        """Whether a disk of that size is what was asked for."""
        return size >= self.required and (not self.limit or size <= self.limit)


def check_range(required: int, limit: int) -> Range:
    """The range, if it is one.

    Raises:
        InvalidRequest: negative, or the limit is below what is required.
    """
    if required < 0 or limit < 0 or (limit and limit < required):
        raise InvalidRequest(
            f"capacity_range {required} to {limit} bytes is not allowed: both must be 0 or more, the limit the larger"
        )
    return Range(required, limit)


def choose_size(asked: Range, *, least: int, default: int, most: int) -> int:
    """The size of a disk: exactly what is required, or `default`, both at least `least` and at most `most` bytes.

    Raises:
        OutOfRange: there is no such size.
    """
    preferred = asked.required or (min(default, asked.limit) if asked.limit else default)
    size = max(preferred, least)
    if asked.limit and size > asked.limit:
        raise OutOfRange(f"limit_bytes {asked.limit} is too small: at least {least} bytes are needed")
    if size > most:
        raise OutOfRange(f"{size} bytes are too many: at most {most} bytes can be had now; ask for less")
    return size


def check_mode(disk: Disk, mode: Mode) -> None:
    """Return if the disk can be used in that mode.

    Raises:
        InvalidRequest: a building disk has no readers elsewhere, a sealed one no writers.
    """
    if disk.seal and not mode.reads_only:
        raise InvalidRequest(
            f"access mode {mode} is not possible: disk {disk.id} is sealed; use ReadOnlyMany, or make a writable clone"
        )
    if not disk.seal and mode.reads_only:
        raise InvalidRequest(
            f"access mode {mode} is not possible: disk {disk.id} is still building; take a snapshot of it and make a "
            "ReadOnlyMany volume from that"
        )


def check_same_disk(disk: Disk, name: str, asked: Range, origin: Origin, *, reads_only: bool) -> None:
    """Return if a repeated CreateVolume asks for the disk that there is.

    Raises:
        Conflict: it does not; names the difference.
    """
    differences = {
        "name": (disk.name, name),
        "source": (disk.origin, origin),
        "access": ("reading" if disk.seal else "writing", "reading" if reads_only else "writing"),
    }
    for what, (before, now) in differences.items():
        if before != now:
            raise Conflict(f"disk {name!r} exists with {what} {before}, now {now} is asked for: use another name")
    if not asked.admits(disk.size):
        raise Conflict(
            f"disk {name!r} exists with {disk.size} bytes, now {asked.required} to {asked.limit or 'any'} are asked "
            "for: use another name"
        )


def check_holders(disk: Disk, holds: Iterable[Hold], wanted: Hold) -> None:
    """Return if `wanted` may come beside `holds`.

    CSI specification 1.12, ControllerPublishVolume: only MULTI_NODE modes go to a second node.

    Raises:
        Precondition: another node has the disk; names it.
        Conflict: the node has it in another way.
    """
    for hold in holds:
        if hold.node != wanted.node and not (hold.mode.many_nodes and wanted.mode.many_nodes):
            raise Precondition(
                f"disk {disk.id} is on node {hold.node!r} with mode {hold.mode}: unpublish it there before it goes to "
                f"{wanted.node!r}"
            )
        if hold.node == wanted.node and hold != wanted:
            raise Conflict(
                f"disk {disk.id} is on node {hold.node!r} with mode {hold.mode} and readonly {hold.readonly}, now "
                f"{wanted.mode} and {wanted.readonly} are asked for: unpublish it first"
            )


def check_unused(disk: Disk, action: str) -> None:
    """Return if no node has the disk.

    Raises:
        Precondition: one has; names it.
    """
    if disk.holds:
        raise Precondition(f"disk {disk.id} is on node {disk.holds[0].node!r}: unpublish it before you {action} it")


def check_quiet(disk: Disk, action: str) -> None:
    """Return if no node may write to the disk.

    Raises:
        Precondition: one may; names it.
    """
    for hold in disk.holds:
        if hold.writes:
            raise Precondition(
                f"disk {disk.id} is published writable on node {hold.node!r}: unpublish it before you {action} it"
            )


def check_settings(given: Mapping[str, str]) -> dict[str, str]:
    """The mutable parameters, all known and with values that mean something.

    Raises:
        InvalidRequest: names the key or value; nothing is to be applied then.
    """
    for key, value in given.items():
        if key not in SETTINGS:
            raise InvalidRequest(f"mutable parameter {key[:80]!r} is unknown: use {', '.join(SETTINGS)}")
        if key == "pin" and value not in {"true", "false"}:
            raise InvalidRequest(f"mutable parameter pin {value[:80]!r} is not allowed: use 'true' or 'false'")
        if key == "prefetch" and value not in {"always", "onDemand"}:
            raise InvalidRequest(
                f"mutable parameter prefetch {value[:80]!r} is not allowed: use 'always' or 'onDemand'"
            )
        if key == "retention":
            retention_seconds(value)
    return dict(given)


def retention_seconds(value: str) -> float:
    """How long a sealed image is kept after its last user: `0`, or a duration such as `24h`.

    Raises:
        InvalidRequest: neither.
    """
    if value in {"", "0"}:
        return 0.0
    try:
        return float(units.duration(value))
    except ValueError as error:
        raise InvalidRequest(f"mutable parameter retention: {error}, or '0'") from error
