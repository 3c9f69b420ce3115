"""Content on its way into a stage, and who hears of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Readable(Protocol):
    """Where a file's bytes come from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; empty at the end."""
        ...


class Recalling(Readable, Protocol):
    """Content that may have been read in part by an earlier try."""

    @property
    def recalled(self) -> int:
        """How many of the bytes so far that try has left. Grows in another thread, maybe, but before they are read."""
        ...


class Resumed:
    """Tells how much of what it wraps is recalled."""

    def __init__(self, content: Recalling, on_recalled: Callable[[int], None]) -> None:
        """`on_recalled` hears it before the bytes are given."""
        self._content = content
        self._on_recalled = on_recalled
        self._told = 0

    def read(self, size: int, /) -> bytes:
        """The next bytes of it."""
        chunk = self._content.read(size)
        if (recalled := self._content.recalled) > self._told:  # maybe more than is in the chunk, but never less
            self._on_recalled(recalled - self._told)
            self._told = recalled
        return chunk


class Measured:
    """Tells how much is read of what it wraps."""

    def __init__(self, content: Readable, on_bytes: Callable[[int], None]) -> None:
        """`on_bytes` hears it."""
        self._content = content
        self._on_bytes = on_bytes

    def read(self, size: int, /) -> bytes:
        """The next bytes of it."""
        chunk = self._content.read(size)
        self._on_bytes(len(chunk))
        return chunk
