"""A download that goes on while what arrived is unpacked: a second thread beside the unpacking one.

Receiving, hashing and writing a file leave the interpreter's lock alone most of the time, as unpacking does, so the two
together take two cores. What is ahead is bounded: beyond that nobody reads from the server, which TCP tells it.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from cachefetch.sources.single import Arriving

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_PIECE = 1 << 19
_PIECES = 16
"""So many of them wait in memory."""


class Interruptible(Arriving, Protocol):
    """A download that another thread can end."""

    def interrupt(self) -> None:
        """Let a `read` that is under way, and each later one, fail soon."""
        ...


class ReadAhead:
    """A download whose bytes are received in a thread of its own. Only that thread touches it until it has ended.

    Use it as a context: the thread ends with it, whatever happens.
    """

    def __init__(self, download: Interruptible) -> None:
        self._download = download
        self._arrived: SimpleQueue[bytes | BaseException] = SimpleQueue()
        self._room = threading.Semaphore(_PIECES)
        self._stopping = False
        self._piece = b""
        self._used = 0
        self._failure: BaseException | None = None
        self._complete = False
        # A daemon: the end of the process does not wait for a slow server.
        self._thread = threading.Thread(target=self._receive, name="download", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop receiving; the download stays open."""
        self._stop()

    @property
    def path(self) -> Path:
        """The file that holds what arrived."""
        return self._download.path

    @property
    def recalled(self) -> int:
        """As the download says, which is ahead of who reads here."""
        return self._download.recalled

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; empty at the end. Raises what the download's `read` raised there."""
        if self._used == len(self._piece):
            self._piece, self._used = self._next(), 0
        chunk = self._piece[self._used : self._used + size]
        self._used += len(chunk)
        return chunk

    def finish(self) -> None:
        """Read what is left, and finish the download."""
        while self.read(_PIECE):
            pass
        self._stop()
        self._download.finish()

    def discard(self) -> None:
        """Stop receiving, and discard the download."""
        self._stop()
        self._download.discard()

    def _next(self) -> bytes:
        """The next piece; empty at the end, also when asked again."""
        if self._failure is not None:
            raise self._failure
        if self._complete:
            return b""
        arrived = self._arrived.get()
        if isinstance(arrived, BaseException):
            self._failure = arrived
            raise arrived
        self._room.release()
        self._complete = not arrived
        return arrived

    def _receive(self) -> None:
        """What the thread does."""
        try:
            while self._room.acquire() and not self._stopping:
                piece = self._download.read(_PIECE)
                self._arrived.put(piece)
                if not piece:
                    return
        except BaseException as error:  # noqa: BLE001  (raised in the thread that reads)
            self._arrived.put(error)

    def _stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._stopping = True
        self._room.release()
        if not self._complete:
            self._download.interrupt()
        self._thread.join()
