"""Disks as types: what is recorded of them, and what may be done with which. No side effects."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec


class Mode(StrEnum):
    """The access modes of CSI that a disk can have; the names are those of csi.proto.

    Modes with writers on several nodes are missing: ext4 knows one writer.
    """

    SINGLE_NODE_WRITER = "SINGLE_NODE_WRITER"
    SINGLE_NODE_SINGLE_WRITER = "SINGLE_NODE_SINGLE_WRITER"
    SINGLE_NODE_MULTI_WRITER = "SINGLE_NODE_MULTI_WRITER"
    SINGLE_NODE_READER_ONLY = "SINGLE_NODE_READER_ONLY"
    MULTI_NODE_READER_ONLY = "MULTI_NODE_READER_ONLY"

    @property
    def reads_only(self) -> bool:
        """Nobody may write."""
        return self in {Mode.SINGLE_NODE_READER_ONLY, Mode.MULTI_NODE_READER_ONLY}

    @property
    def many_nodes(self) -> bool:
        """Several nodes at once."""
        return self is Mode.MULTI_NODE_READER_ONLY

    @property
    def many_targets(self) -> bool:
        """Several target paths on one node (CSI specification 1.12, NodePublishVolume: the table of second calls)."""
        return self in {Mode.MULTI_NODE_READER_ONLY, Mode.SINGLE_NODE_MULTI_WRITER}


class Filesystem(StrEnum):
    """What is in an image."""

    EXT4 = "ext4"
    EROFS = "erofs"


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what is written to files."""


class Hold(_Record, frozen=True):
    """A node that has a disk."""

    node: str
    mode: Mode
    readonly: bool

    @property
    def writes(self) -> bool:
        """Whether the node may write to the disk."""
        return not self.readonly and not self.mode.reads_only


class Seal(_Record, frozen=True):
    """Which sealed image a disk or snapshot shows."""

    key: str
    """Its name below `sealed/`."""
    filesystem: Filesystem
    blocks: str
    """sha256 of its block list."""
    size: int
    """Bytes of the image."""


class Origin(_Record, frozen=True):
    """What a disk was made from; all empty: from nothing."""

    disk: str = ""
    snapshot: str = ""
    cache: str = ""
    version: str = ""
    """Version that the request named; empty: whatever was current."""


class Disk(_Record, frozen=True):
    """A disk; sealed when it has a seal, else building."""

    id: str
    name: str
    size: int
    """Capacity in bytes, as the caller knows it."""
    created: float
    """Seconds since the epoch."""
    origin: Origin = Origin()
    seal: Seal | None = None
    cache: str = ""
    """The cache whose content it shows; decides who may use it."""
    version: str = ""
    settings: dict[str, str] = {}
    attached: tuple[Hold, ...] = ()
    """By ControllerPublishVolume."""
    staged: tuple[Hold, ...] = ()
    """By the nodes themselves."""
    format: int = 1

    @property
    def holds(self) -> tuple[Hold, ...]:
        """Every hold of any kind."""
        return (*self.attached, *self.staged)


class Snapshot(_Record, frozen=True):
    """A snapshot; always ready."""

    id: str
    name: str
    source: str
    """Id of the disk, which may be gone."""
    size: int
    """Capacity of a disk made from it, in bytes."""
    created: float
    seal: Seal
    cache: str = ""
    version: str = ""
    group: str = ""
    """Id of the group that it was made in."""
    format: int = 1


class Group(_Record, frozen=True):
    """Snapshots of several disks, made while none of them could change."""

    id: str
    name: str
    sources: tuple[str, ...]
    """Ids of the disks, sorted."""
    snapshots: tuple[str, ...]
    """In the order of the sources."""
    created: float
    format: int = 1


class Condition(NamedTuple):
    """Whether an image is what it should be, in CSI's words."""

    abnormal: bool
    message: str
