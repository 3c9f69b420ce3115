"""Volume records: what each volume on this node uses, in one small file a volume.

A record is written before the volume is mounted and removed after it is gone, so at every moment the records name every
version that a pod may be reading. They are the only list of users that exists: garbage collection and `cachefetch list`
read them too. They survive a crash of the process; a power cut also ends every mount, so they need no fsync.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cachefetch import durable
from cachefetch.decoding import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
"""Version of the record's form; a newer goldlink reads all older ones."""
_FILE = "volume.json"


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One volume: what was asked for, and what it got."""

    id: str
    cache: str
    version: str
    """Chosen once, so that a repeated publish gives the same."""
    target: str
    """Where kubelet wants it."""
    path: str = ""
    """Subtree of the version, empty for all of it."""
    access: str = "shared"
    asked_version: str = ""
    """The version that the request named; empty: whatever was current."""
    namespace: str = ""
    pod: str = ""
    pod_uid: str = ""
    boot_id: str = ""
    """The boot of the kernel that holds the mount."""
    slot: str = ""
    """The pool's name of the link tree that the volume has; empty: the golden tree itself is bound."""
    identity: tuple[int, int] | None = None
    """Of a private view: device and inode of its root."""
    limit: int = 0
    """Of a private view: bytes that it may hold of its own; 0: no limit."""
    created: float = 0.0
    """Seconds since the epoch."""
    format: int = FORMAT


class Records:
    """The volume records below one directory, `<directory>/<volume-id>/volume.json`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def place(self, volume_id: str) -> Path:
        """The directory of the volume; holds its record and its tree."""
        return self.directory / volume_id

    def write(self, record: VolumeRecord) -> None:
        """Record the volume; replaces an older record of it."""
        place = self.place(record.id)
        place.mkdir(mode=0o700, exist_ok=True)
        durable.replace(place / _FILE, msgspec.json.encode(record), durable=False)

    def read(self, volume_id: str) -> VolumeRecord | None:
        """The record of the volume; None when there is none, or only a damaged one (the machine lost power)."""
        try:
            return msgspec.json.decode((self.place(volume_id) / _FILE).read_bytes(), type=VolumeRecord)
        except (FileNotFoundError, NotADirectoryError, *UNREADABLE):
            return None

    def remove(self, volume_id: str) -> None:
        """Remove the record and the volume's directory, in which nothing else is left."""
        place = self.place(volume_id)
        (place / _FILE).unlink(missing_ok=True)
        place.rmdir()

    def ids(self) -> list[str]:
        """Every volume that has a directory, with or without a readable record."""
        try:
            return sorted(place.name for place in self.directory.iterdir())
        except FileNotFoundError:
            return []

    def all(self) -> Iterator[VolumeRecord]:
        """Every readable record."""
        for volume_id in self.ids():
            record = self.read(volume_id)
            if record is not None:
                yield record
