"""What each layer of an image holds, also what other layers hide, in the SQLite file of the version's index.

Two questions are answered from it: is an entry of a lower layer hidden by one above, and what does a layer that is
unchanged since the last version hold, so that it need not be downloaded again. The second one needs the hidden entries
too: they appear when the layer above them changes. Rules: OCI image-spec 1.1, layer.md, "Applying Changesets" and
"Whiteouts".
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from cachefetch.errors import UnsafeEntry
from cachefetch.index import disk_errors
from cachefetch.paths import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefetch.index import Index

WHITEOUT = b".wh."
"""First bytes of the name of a marker, which hides what is called like the rest of it in the layers below."""
OPAQUE = b".wh..wh..opq"
"""Name of the marker that hides everything that the layers below have in its directory."""
_TABLES = """
CREATE TABLE oci_layer (position INTEGER PRIMARY KEY, token BLOB NOT NULL);
CREATE TABLE oci_part (path BLOB, position INTEGER, type TEXT NOT NULL, mode INTEGER NOT NULL, mtime INTEGER NOT NULL,
    target BLOB NOT NULL, PRIMARY KEY (path, position)) WITHOUT ROWID;
CREATE INDEX oci_part_position ON oci_part (position, path);
CREATE TEMP TABLE oci_wanted (source BLOB, path BLOB, PRIMARY KEY (source, path)) WITHOUT ROWID;
"""
_COLUMNS = "path, type, mode, mtime, target"
_ADD = "INTO oci_part VALUES (?, ?, ?, ?, ?, ?)"
_PARTS_MAX = 20_000_000
"""Twice what a version may have (`limits.Limits`): entries that are hidden take room too."""
_MEMORY = 10_000
"""Directories whose answer is remembered."""


class PartType(StrEnum):
    """What a layer has at a path."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    MARKER = "w"
    IMPLIED = "i"
    """A directory that the layer does not list, but has something in."""


_DIRECTORIES = {PartType.DIRECTORY, PartType.IMPLIED}


class Part(NamedTuple):
    """One entry of a layer. A marker keeps its own path, so that it can stand beside what it hides."""

    path: bytes
    type: PartType
    mode: int
    mtime_ns: int
    target: bytes = b""
    """Text of a symlink. Of a hardlink, the file of the same layer that has the content; of other files, nothing."""

    @property
    def source(self) -> bytes:
        """The path at which the layer has a file's content."""
        return self.target or self.path


class Ledger:
    """The layers of one image, entered from the highest to the lowest; 0 is the lowest."""

    def __init__(self, index: Index) -> None:
        """The ledger of a version that was published with one, see `known`."""
        self._index = index
        self._db = index.database
        self._position = -1
        self._parts = 0
        self._highest = True
        self._veiled: dict[bytes, bool] = {}
        self._directories: set[bytes] = set()

    @classmethod
    def create(cls, index: Index) -> Ledger:
        """An empty ledger, kept with the version that is being staged."""
        ledger = cls(index)
        with disk_errors(index.path):
            ledger._db.executescript(_TABLES)
        return ledger

    @classmethod
    def known(cls, index: Index | None) -> Ledger | None:
        """The ledger of the version before; None when it has none."""
        if index is None:
            return None
        query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('oci_layer', 'oci_part')"
        return cls(index) if index.database.execute(query).fetchone() == (2,) else None

    def begin(self, position: int, token: bytes) -> None:
        """Go on with the next lower layer."""
        self._highest = self._position < 0
        self._position = position
        self._veiled.clear()
        self._directories.clear()
        with disk_errors(self._index.path):
            self._db.execute("INSERT INTO oci_layer VALUES (?, ?)", (position, token))

    def add(self, part: Part) -> None:
        """Enter what the layer has at a path; of a directory, what it says last.

        Raises:
            UnsafeEntry: it has something else there as well, or all layers together have too much.
        """
        self._parts += 1
        if self._parts > _PARTS_MAX:
            raise UnsafeEntry(f"the image is refused: its layers have more than {_PARTS_MAX} entries")
        row = (part.path, self._position, part.type.value, part.mode, part.mtime_ns, part.target)
        with disk_errors(self._index.path):
            if self._db.execute(f"INSERT OR IGNORE {_ADD}", row).rowcount:
                return
            other = self.find(part.path)
            if other is None or not (
                other.type is part.type is PartType.MARKER or {other.type, part.type} <= _DIRECTORIES
            ):
                raise UnsafeEntry(f"entry {show(part.path)} is refused: its layer has it twice")
            self._db.execute(f"INSERT OR REPLACE {_ADD}", row)

    def unlisted(self, path: bytes) -> list[bytes]:
        """The directories above `path` that are still to be entered, the highest first.

        Raises:
            UnsafeEntry: one of them is no directory.
        """
        unlisted = []
        entry = path
        while (path := path.rpartition(b"/")[0]) and path not in self._directories:
            found = self.find(path)
            if found and found.type not in _DIRECTORIES:
                raise UnsafeEntry(f"entry {show(entry)} is refused: an entry above it is a file or a symlink")
            if len(self._directories) > _MEMORY:
                self._directories.clear()
            self._directories.add(path)
            if found:
                break
            unlisted.append(path)
        return unlisted[::-1]

    def find(self, path: bytes) -> Part | None:
        """What the layer has at a path, as far as it was entered."""
        query = f"SELECT {_COLUMNS} FROM oci_part WHERE path = ? AND position = ?"  # noqa: S608  (our own words only)
        row = self._db.execute(query, (path, self._position)).fetchone()
        return _part(row) if row else None

    def hidden(self, path: bytes) -> bool:
        """Whether a higher layer lists something at `path`, or hides what this one has there."""
        if self._highest:
            return False
        listed, veiled = self._above(path)
        return listed or veiled or self._is_veiled(path.rpartition(b"/")[0])

    def position(self, token: bytes) -> int | None:
        """Where the layer with this token is."""
        row = self._db.execute("SELECT position FROM oci_layer WHERE token = ?", (token,)).fetchone()
        return row[0] if row else None

    def parts(self, position: int) -> Iterator[Part]:
        """Everything that a layer has, parents first."""
        query = f"SELECT {_COLUMNS} FROM oci_part WHERE position = ? ORDER BY path"  # noqa: S608  (our own words only)
        yield from map(_part, self._db.execute(query, (position,)))

    def want(self, part: Part) -> None:
        """Remember a file whose content is still to be read from its layer."""
        with disk_errors(self._index.path):
            self._db.execute("INSERT OR IGNORE INTO oci_wanted VALUES (?, ?)", (part.source, part.path))

    def wanting(self) -> bool:
        """Whether there are wanted files."""
        return self._db.execute("SELECT 1 FROM oci_wanted LIMIT 1").fetchone() is not None

    def take(self, source: bytes) -> list[bytes]:
        """The paths of wanted files that have their content at `source`; they are not wanted any more."""
        rows = self._db.execute("SELECT path FROM oci_wanted WHERE source = ? ORDER BY path", (source,)).fetchall()
        if rows:
            self._db.execute("DELETE FROM oci_wanted WHERE source = ?", (source,))
        return [row[0] for row in rows]

    def _is_veiled(self, path: bytes) -> bool:
        """Whether everything that this layer has below the directory `path` is hidden. Answers are remembered."""
        unknown = []
        while path and path not in self._veiled:
            unknown.append(path)
            path = path.rpartition(b"/")[0]
        veiled = self._veiled.get(path, False)
        if len(self._veiled) > _MEMORY:
            self._veiled.clear()
        for directory in reversed(unknown):
            veiled = veiled or self._above(directory)[1]
            self._veiled[directory] = veiled
        return veiled

    def _above(self, path: bytes) -> tuple[bool, bool]:
        """Whether a higher layer lists something at `path`, and whether one hides what is at and below it.

        Anything but a directory hides what is below, also when it is hidden itself by a layer higher still.
        """
        head, slash, name = path.rpartition(b"/")
        markers = head + slash + WHITEOUT + name, head + slash + OPAQUE
        query = "SELECT path = ?, type FROM oci_part WHERE path IN (?, ?, ?) AND position > ?"
        rows = self._db.execute(query, (path, path, *markers, self._position)).fetchall()
        listed = any(at_path and type_ != PartType.IMPLIED for at_path, type_ in rows)
        return listed, any(type_ not in _DIRECTORIES for _, type_ in rows)


def _part(row: tuple[bytes, str, int, int, bytes]) -> Part:
    path, type_, mode, mtime, target = row
    return Part(path, PartType(type_), mode, mtime, target)
