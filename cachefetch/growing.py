"""Files that grow at their end while content arrives: what the kernel needs to know to make that cheap.

Room for a large file is reserved ahead (fallocate(2)), so that the kernel neither looks for a place with every piece
nor takes many small ones: measured on ext4, writing takes half the CPU time. And the kernel is told to begin with
writing back (sync_file_range(2)) while more arrives, so that the sync at the end has little left to wait for.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmap import mmap

_LARGE = 1 << 20
"""Bytes from which it is worth the calls."""
_AHEAD = 32 << 20
_KEEP_SIZE = 0x1  # FALLOC_FL_KEEP_SIZE
_WRITE = 0x2  # SYNC_FILE_RANGE_WRITE: begin, and do not wait
_CANNOT = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EINVAL}
"""Neither call is needed: what a file system does not know, it does without."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""There is less room than was to be reserved: whether it is enough, the write tells."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Growing:
    """A file that is written at its end only. `size` is how long it is."""

    def __init__(self, fd: int, size: int = 0, *, announced: int | None = None, write_back: bool = False) -> None:
        """Go on with the open file `fd`, which has `size` bytes and is to have `announced`, if that is known.

        With `write_back` the kernel begins early to bring it to the disk.
        """
        self.size = size
        self._fd = fd
        self._announced = announced
        self._write_back = write_back
        self._reserved = size
        self._begun = size

    def append(self, chunk: bytes | mmap) -> None:
        """Write the whole `chunk` at the end.

        Raises:
            OSError: as write(2), for example because the disk is full.
        """
        view = memoryview(chunk)
        end = self.size + len(view)
        if end > self._reserved and end >= _LARGE:
            self._reserve(end)
        while view:
            written = os.pwrite(self._fd, view, self.size)
            self.size += written
            view = view[written:]
        if self._write_back and self.size - self._begun >= _LARGE:
            _call(_libc.sync_file_range, self._fd, self._begun, self.size - self._begun, _WRITE)
            self._begun = self.size

    def trim(self) -> None:
        """Give back room that was reserved and is not needed."""
        if self._reserved > self.size:
            os.ftruncate(self._fd, self.size)
            self._reserved = self.size

    def _reserve(self, end: int) -> None:
        ahead = end + _AHEAD
        if self._announced is not None:
            ahead = max(end, min(ahead, self._announced))
        self._reserved = ahead
        try:
            _call(_libc.fallocate, self._fd, _KEEP_SIZE, self.size, ahead - self.size)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            os.ftruncate(self._fd, self.size)  # a part of it may have been found, which the write itself may need


def write_back(fd: int) -> None:
    """Begin to bring to the disk what the file has in memory only, and do not wait.

    Raises:
        OSError: as sync_file_range(2).
    """
    _call(_libc.sync_file_range, fd, 0, 0, _WRITE)


def _call(function: ctypes._NamedFuncPointer, *arguments: int) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        if number not in _CANNOT:
            raise OSError(number, os.strerror(number))
