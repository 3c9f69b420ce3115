"""The entries of a version that is being staged, in a SQLite file: sorted on disk, found by path, any number of them.

A source delivers entries in its own order and a manifest wants them sorted; a million of them do not belong in memory.
After the version is published the same file stays beside the cache as its *origin*: it remembers what the source said
about every path (the token: an ETag, a layer digest, a file's inode and times), so that the next refresh fetches the
change only. It is a memory aid: when it is lost or damaged, the next refresh reads everything again and nothing is
wrong.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from cachefetch.model import Entry, EntryType, Totals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SCHEMA = """
CREATE TABLE entry (path BLOB PRIMARY KEY, type TEXT NOT NULL, mode INTEGER NOT NULL, mtime INTEGER NOT NULL,
    size INTEGER NOT NULL, digest TEXT NOT NULL, target BLOB NOT NULL, token BLOB NOT NULL, kept INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_PUT = "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COLUMNS = "path, type, mode, mtime, size, digest, target"
_NAMES = [*_COLUMNS.split(", "), "token", "kept", "key", "value"]
_BATCH = 2000
_CACHE_KIB = 16 * 1024


class Known(NamedTuple):
    """What is remembered of one path."""

    entry: Entry
    token: bytes


class Index:
    """Entries of one tree with their tokens, and the source's own notes in `meta`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection
        self._pending: list[tuple[object, ...]] = []
        self._closed = False

    @classmethod
    def create(cls, path: Path) -> Index:
        """A new, empty index at `path`; a file that is there is replaced."""
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path, check_same_thread=False)
        try:
            with disk_errors(path):
                _configure(connection)
                connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection)

    @classmethod
    def open(cls, path: Path) -> Index | None:
        """The index at `path` for reading; None when it is absent or damaged, because it is only a memory aid."""
        if not path.exists():
            return None
        connection = sqlite3.connect(path, check_same_thread=False)
        try:
            _configure(connection)
            if connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",) and _schema(connection) == _NAMES:
                return cls(path, connection)
        except sqlite3.DatabaseError:
            pass  # not a database at all
        connection.close()
        return None

    def close(self) -> None:
        """Write what is pending and close the file; closing twice is once.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._flush()
            with disk_errors(self.path):
                self._db.commit()
        finally:
            self._db.close()

    def abandon(self) -> None:
        """Close the file and lose what is pending, unless it is closed already."""
        if not self._closed:
            self._closed = True
            self._db.close()

    def put(self, entry: Entry, token: bytes = b"", *, kept: bool = False) -> None:
        """Add an entry, or replace the one of the same path; `kept` says that its file is linked from before."""
        self._pending.append((
            entry.path, entry.type.value, entry.mode, entry.mtime_ns, entry.size,
            entry.digest, entry.target, token, kept,
        ))  # fmt: skip
        if len(self._pending) >= _BATCH:
            self._flush()

    def find(self, path: bytes) -> Known | None:
        """What is known of `path`."""
        self._flush()
        row = self._db.execute(f"SELECT {_COLUMNS}, token FROM entry WHERE path = ?", (path,)).fetchone()  # noqa: S608
        return Known(_entry(row[:-1]), row[-1]) if row else None

    def token(self, path: bytes) -> bytes | None:
        """What the source said about `path`; None when the path is unknown."""
        self._flush()
        row = self._db.execute("SELECT token FROM entry WHERE path = ?", (path,)).fetchone()
        return bytes(row[0]) if row else None

    def count(self) -> int:
        """How many entries there are."""
        self._flush()
        return int(self._db.execute("SELECT count(*) FROM entry").fetchone()[0])

    def totals(self) -> Totals:
        """What the entries amount to."""
        self._flush()
        query = "SELECT count(*), ifnull(sum(type = 'f'), 0), ifnull(sum(size), 0) FROM entry"
        return Totals(*self._db.execute(query).fetchone())

    def entries(self) -> Iterator[Entry]:
        """All entries in the order of their raw paths."""
        yield from self._select("true")

    def directories(self) -> Iterator[Entry]:
        """The directories, in the order of their raw paths."""
        yield from self._select("type = 'd'")

    def fresh_files(self) -> Iterator[Entry]:
        """The files that were not kept from the previous version, in the order of their raw paths."""
        yield from self._select("type = 'f' AND NOT kept")

    @property
    def database(self) -> sqlite3.Connection:
        """For tables of a source's own, kept and lost together with the entries; writers use `disk_errors`."""
        return self._db

    @property
    def meta(self) -> dict[str, str]:
        """The notes of the source and of the refresh."""
        return dict(self._db.execute("SELECT key, value FROM meta"))

    def remember(self, meta: Mapping[str, str]) -> None:
        """Add to the notes."""
        with disk_errors(self.path):
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(meta.items()))

    def _select(self, condition: str) -> Iterator[Entry]:
        self._flush()
        query = f"SELECT {_COLUMNS} FROM entry WHERE {condition} ORDER BY path"  # noqa: S608  (our own words only)
        yield from map(_entry, self._db.execute(query))

    def _flush(self) -> None:
        if self._pending:
            with disk_errors(self.path):
                self._db.executemany(_PUT, self._pending)
            self._pending.clear()


def _configure(connection: sqlite3.Connection) -> None:
    # Losing this file costs time only, so it needs neither a journal nor fsync.
    for pragma in (
        "journal_mode = OFF",
        "synchronous = OFF",
        f"cache_size = -{_CACHE_KIB}",
        "locking_mode = EXCLUSIVE",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _schema(connection: sqlite3.Connection) -> list[str]:
    tables = ("entry", "meta")
    return [
        str(row[0]) for table in tables for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    ]


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What SQLite says of the disk, as the OSError that every other writer gets (sqlite.org/rescode.html)."""
    try:
        yield
    except sqlite3.OperationalError as error:
        number = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO}.get(error.sqlite_errorcode & 0xFF)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _entry(row: tuple[bytes, str, int, int, int, str, bytes]) -> Entry:
    path, type_, mode, mtime, size, digest, target = row
    return Entry(path, EntryType(type_), mode, mtime, size, digest, target)
