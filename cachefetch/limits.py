"""How much a version may take, counted while it is staged: an origin announces what it likes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cachefetch.errors import OutOfSpace, UnsafeEntry
from cachefetch.paths import show

_LOOK_BYTES = 64 << 20
_LOOK_ENTRIES = 4096


@dataclass(frozen=True)
class Limits:
    """How much a version may take."""

    max_bytes: int | None = None
    """`maxBytes` of the cache; None: as much as there is room."""
    max_entries: int = 10_000_000
    free_share: float = 0.02
    """Share of the file system's space and inodes that must stay free, so that a bad origin cannot fill the node."""


class Budget:
    """Counts what a version takes and ends it at its limits. Quotas and ENOSPC are handled where they strike."""

    def __init__(self, limits: Limits, directory: int) -> None:
        """Watch the file system of the open `directory`."""
        self._limits = limits
        self._directory = directory
        self._entries = 0
        self._bytes = 0
        self._looked_at = -_LOOK_BYTES

    def entry(self) -> None:
        """One entry more.

        Raises:
            UnsafeEntry: there are too many.
            OutOfSpace: too little would stay free.
        """
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise UnsafeEntry(f"the version is refused: it has more than {self._limits.max_entries} entries")
        if self._entries % _LOOK_ENTRIES == 0:
            self._look()

    def content(self, count: int, path: bytes) -> None:
        """So many bytes more, of the file `path`.

        Raises:
            OutOfSpace: they are more than `max_bytes`, or too little would stay free.
        """
        self._bytes += count
        limit = self._limits.max_bytes
        if limit is not None and self._bytes > limit:
            raise OutOfSpace(
                f"the version is larger than maxBytes {limit}, reached at {show(path)}: "
                "raise maxBytes or shrink the source"
            )
        if self._bytes - self._looked_at >= _LOOK_BYTES:
            self._looked_at = self._bytes
            self._look()

    def _look(self) -> None:
        status = os.fstatvfs(self._directory)
        share = self._limits.free_share
        if status.f_bavail < share * status.f_blocks or status.f_favail < share * status.f_files:
            raise OutOfSpace(
                f"less than {share:.0%} of the space or inodes of the state directory's file system would stay free: "
                "free some, or lower `retain`, or set maxBytes"
            )
