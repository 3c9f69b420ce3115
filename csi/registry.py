"""The nodes that there are: each node plugin writes its own entry into the disk directory, the controller reads it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from cachefetch import durable
from csi.disks.errors import UnknownNode

if TYPE_CHECKING:
    from pathlib import Path


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node."""

    id: str
    max_volumes: int = 0
    """0: no limit."""
    format: int = 1


class NodeRegistry:
    """The entries below one directory. Entries stay when a node stops: it is still the node that holds its disks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def announce(self, entry: NodeEntry) -> None:
        """Let the node be known."""
        durable.replace(self._path(entry.id), msgspec.json.encode(entry))

    def get(self, node_id: str) -> NodeEntry:
        """The node.

        Raises:
            UnknownNode: no node plugin has announced itself under that id.
        """
        try:
            return msgspec.json.decode(self._path(node_id).read_bytes(), type=NodeEntry)
        except FileNotFoundError as error:
            raise UnknownNode(
                f"node {node_id!r} is unknown: its node plugin must run with this --disk-dir, under that --node-id"
            ) from error

    def lock(self, node_id: str) -> Path:
        """The lock file of the node, for whoever counts its disks."""
        return self._path(node_id).with_suffix(".lock")

    def _path(self, node_id: str) -> Path:
        # A node id may have 256 bytes of any kind, a file name 255 without '/'.
        return self._directory / f"{hashlib.sha256(node_id.encode()).hexdigest()[:40]}.json"
