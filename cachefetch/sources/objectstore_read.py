"""Reading a large object by ranges, several at once: read it like a file. What arrived survives a failure.

Ranges are written to a partial file in their order, so its length says how far it is, and a later process goes on
there. Each range is asked for on the condition that the object is still the one that was found (If-Match).

A note beside the partial file says what it is part of. A partial file of an earlier boot is not used: after a power cut
it may have holes where the data never reached the disk, and a store's ETag would not tell.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cachefetch.decoding import UNREADABLE
from cachefetch.growing import Growing
from cachefetch.sources.window import ahead

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Self

    from cachefetch.sources.objectstore_client import Found, Objects

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
RANGE = 8 << 20
"""Bytes of one request."""
_WIDTH = 6
"""Ranges at once; so many may wait in memory."""


class _Note(msgspec.Struct, frozen=True):
    state: str
    boot: str


class ObjectDownload:
    """One object, read from its start to its end. `path` is the file that holds what arrived."""

    def __init__(self, objects: Objects, found: Found, scratch: Path) -> None:
        """Go on with the partial file in `scratch` if it is part of the same object."""
        self.path = scratch / "object"
        self._note = scratch / "object.json"
        self._objects = objects
        self._found = found
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._position = 0
        self.recalled = 0
        """Bytes so far that were in the partial file before."""
        self._known = self._recall()
        self._partial = Growing(self._file, self._known, announced=found.size)
        self._ranges: Generator[tuple[tuple[int, int], bytes]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what is under way; the partial file stays for the next try unless it was discarded."""
        if self._ranges is not None:
            self._ranges.close()
        self._partial.trim()
        os.close(self._file)

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; empty at the end.

        Raises:
            Missing: the object is gone.
            SourceChanged: it is another one by now.
            SourceError: the store cannot be reached or refuses.
        """
        if self._position == self._partial.size < self._found.size:
            self._receive()
        chunk = os.pread(self._file, min(size, self._partial.size - self._position), self._position)
        if self._position < self._known:
            self.recalled += min(len(chunk), self._known - self._position)
        self._position += len(chunk)
        return chunk

    def finish(self) -> None:
        """Read what is left.

        Raises:
            Missing, SourceChanged, SourceError: as `read`.
        """
        while self.read(RANGE):
            pass

    def discard(self) -> None:
        """Throw away what arrived: it is of no use for another try."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _recall(self) -> int:
        """How many bytes of this object the partial file holds."""
        note = _Note(self._found.state.decode(), _BOOT_ID.read_text(encoding="ascii").strip())
        try:
            same = bool(self._found.etag) and msgspec.json.decode(self._note.read_bytes(), type=_Note) == note
        except (FileNotFoundError, *UNREADABLE):  # written in one piece, but a crash may cut it
            same = False
        if same:
            return min(os.fstat(self._file).st_size, self._found.size)
        self._note.unlink(missing_ok=True)  # before the truncation: a note without its file would be believed
        os.ftruncate(self._file, 0)
        self._note.write_bytes(msgspec.json.encode(note))
        return 0

    def _receive(self) -> None:
        """Add the next range to the partial file."""
        if self._ranges is None:
            size = self._found.size
            wanted = ((start, min(start + RANGE, size)) for start in range(self._partial.size, size, RANGE))
            self._ranges = ahead(lambda part: self._objects.read(self._found, *part), wanted, _WIDTH)
        _, data = next(self._ranges)
        self._partial.append(data)
