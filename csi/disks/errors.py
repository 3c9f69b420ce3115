"""Errors that only disks have; the others are in `cachefetch.errors`."""

from __future__ import annotations

from cachefetch.errors import Code, GoldlinkError


class UnknownNode(GoldlinkError):
    """No node plugin of that name has ever announced itself."""

    code = Code.NOT_FOUND


class UnknownSnapshot(GoldlinkError):
    """There is no such snapshot, or group of snapshots."""

    code = Code.NOT_FOUND


class OutOfRange(GoldlinkError):
    """The capacity asked for cannot be had."""

    code = Code.OUT_OF_RANGE


class BadToken(GoldlinkError):
    """Not a place in a list: the listing must start anew (CSI specification 1.12, ListVolumes: ABORTED)."""

    code = Code.ABORTED


class Damaged(GoldlinkError):
    """An image is not what it was when it was sealed."""

    code = Code.DATA_LOSS


class ToolFailed(GoldlinkError):
    """A program such as mkfs failed for a reason that only its own words tell."""
