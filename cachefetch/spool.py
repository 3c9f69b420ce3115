"""A file that is written at its end and, unless something fails, never read: it goes past the page cache.

Pages for a large download would be taken from what pods read, and are not cheap: on a virtual machine whose memory is
new, 700 MiB through the page cache take 0.8 s of CPU time, past it (O_DIRECT, open(2)) 0.06 s, and the disk works while
others compute.

Only whole blocks are written; the last, incomplete one is in memory until `flush`. So a process that is killed loses up
to a block of what it received.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress

from cachefetch.growing import Growing

_BLOCK = 1 << 19
_ALIGNED = 4096
"""What every file system takes: offset, length and memory are multiples of it."""


class Spool:
    """A file that grows. `size` is how long it is, with what is still in memory."""

    def __init__(self, fd: int, size: int = 0, *, announced: int | None = None) -> None:
        """Go on with the open file `fd`, which has `size` bytes and is to have `announced`, if that is known."""
        self.size = size
        self._fd = fd
        self._announced = announced
        self._block = mmap.mmap(-1, _BLOCK)  # whole pages
        self._start = size - size % _ALIGNED
        """Where the block in memory belongs; all before it is in the file."""
        self._file: Growing | None = None
        self._direct = -1
        if self.size > self._start:
            self._block[: self.size - self._start] = os.pread(fd, self.size - self._start, self._start)

    def append(self, chunk: bytes) -> None:
        """Add the whole `chunk` at the end.

        Raises:
            OSError: as write(2) and fallocate(2), for example because the disk is full.
        """
        view = memoryview(chunk)
        while view:
            filled = self.size - self._start
            piece = view[: _BLOCK - filled]
            self._block[filled : filled + len(piece)] = piece
            self.size += len(piece)
            view = view[len(piece) :]
            if self.size - self._start == _BLOCK:
                self._write_block()

    def read(self, size: int, position: int) -> bytes:
        """At most `size` bytes from `position`, which is within the file."""
        if position >= self._start:
            end = min(position + size, self.size)
            return self._block[position - self._start : end - self._start]
        return os.pread(self._fd, min(size, self._start - position), position)

    def flush(self) -> None:
        """Write what is in memory; the file is complete for others, until more is added."""
        if self._file is not None:
            self._file.trim()
        left = memoryview(self._block)[: self.size - self._start]
        position = self._start
        while left:
            written = os.pwrite(self._fd, left, position)
            position += written
            left = left[written:]

    def close(self) -> None:
        """Give back what it holds beside `fd`. What was not flushed is lost."""
        if self._direct >= 0:
            os.close(self._direct)
            self._direct = -1

    def _write_block(self) -> None:
        if self._file is None:
            with suppress(OSError):  # a file system that has no such thing, as some of FUSE
                self._direct = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
            self._file = self._growing(self._direct)
        try:
            self._file.append(self._block)
        except OSError as error:
            if error.errno != errno.EINVAL or self._direct < 0:
                raise
            os.close(self._direct)  # it wants other blocks than these
            self._direct = -1
            self._file = self._growing(-1)
            self._file.append(self._block)
        self._start = self._file.size

    def _growing(self, direct: int) -> Growing:
        return Growing(self._fd if direct < 0 else direct, self._start, announced=self._announced)
