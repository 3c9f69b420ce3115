"""Unpacking archives into a stage. Everything in an archive is untrusted; the stage has the last word on every path.

Tar is read as a stream, so unpacking goes on while the archive is still being downloaded. Zip has its directory at the
end and needs the whole file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import sys
import zipfile
import zlib
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

from cachefetch.errors import DataError
from cachefetch.paths import show
from cachefetch.sources import tar
from cachefetch.urls import Format

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefetch.content import Readable
    from cachefetch.stage import Stage

_BUFFER = 1 << 18
_TAKEN = 1 << 20
"""Compressed bytes that are taken at once: what comes in larger pieces need not be cut."""
_TRAILER = 1 << 20
"""More than any writer pads (GNU tar: 10 KiB, at most 512 KiB); bounded, because nothing of it is staged."""
_ENCRYPTED = 0x1
_UTF8 = 0x800
_MADE_ON_UNIX = 3
_SYMLINK_MAX = 4095
"""Longest text of a symlink on Linux: PATH_MAX less its NUL."""
_DEFAULT_MODE = 0o644
_NO_TIME = datetime(1980, 1, 1, tzinfo=UTC)
"""The earliest time of the zip format, for entries that have none."""


def unpack_tar(stream: Readable, format_: Format, stage: Stage) -> None:
    """Stage every entry of a tar archive, reading `stream` up to the archive's end marker.

    Raises:
        DataError: not an archive of that format, damaged, cut off, or with entries that a cache cannot hold.
        UnsafeEntry: an entry would escape, collide or exhaust.
    """
    with open_tar(stream, format_) as (members, body):
        for member in members:
            _stage_member(member, body, stage)


@contextmanager
def open_tar(stream: Readable, format_: Format) -> Iterator[tuple[Iterator[tar.Member], tar.Body]]:
    """The members of a tar archive, and the content of the one that was read last; all of them are to be read.

    Raises:
        DataError: not an archive of that format, damaged, cut off, or with entries that a cache cannot hold.
    """
    with _damage(format_), io.BufferedReader(_decompressed(stream, format_), _BUFFER) as plain:
        body = tar.Body(plain)
        yield tar.members(plain, body), body
        # The padding after the end marker, so that the checksum at the end of the compressed data is verified too.
        plain.read(_TRAILER)


def _stage_member(member: tar.Member, body: tar.Body, stage: Stage) -> None:
    path = entry_path(member.name)
    if member.type == tar.REGULAR:
        stage.file(path, member.mode, member.mtime_ns, body, size=member.size)
    elif member.type == tar.SYMLINK:
        stage.symlink(path, member.target, member.mtime_ns)
    elif member.type == tar.HARDLINK:
        stage.copy(path, entry_path(member.target), member.mode, member.mtime_ns)
    elif path:  # the root of the tree is no entry
        stage.directory(path, member.mtime_ns)


def unpack_zip(file: IO[bytes], stage: Stage) -> None:
    """Stage every entry of the zip archive in `file`.

    Times of a zip are local times of a zone that it does not name. They are taken as UTC, so that all nodes agree.

    Raises:
        DataError: not a zip archive, damaged, encrypted, or with entries that a cache cannot hold.
        UnsafeEntry: an entry would escape, collide or exhaust.
    """
    with _damage(Format.ZIP), zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            _stage_zip_entry(archive, info, stage)


def _stage_zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, stage: Stage) -> None:
    # The bytes as they stand in the archive: zipfile decodes names without the UTF-8 flag as code page 437.
    path = entry_path(info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437"))
    if info.flag_bits & _ENCRYPTED:
        raise DataError(f"entry {show(path)} is encrypted: build the archive without a password")
    if info.header_offset < 0:
        raise DataError(f"entry {show(path)} would start before the zip archive: build or upload it anew")
    mode = info.external_attr >> 16 if info.create_system == _MADE_ON_UNIX else 0
    kind = stat.S_IFMT(mode)
    mtime_ns = _zip_time(info.date_time)
    if info.orig_filename.endswith("/"):
        if path:
            stage.directory(path, mtime_ns)
    elif kind == stat.S_IFLNK:
        with archive.open(info) as content:
            target = content.read(_SYMLINK_MAX + 1)
        if not 0 < len(target) <= _SYMLINK_MAX or b"\0" in target:
            raise DataError(f"entry {show(path)} is a symlink without a possible target: build the archive anew")
        stage.symlink(path, target, mtime_ns)
    elif kind in {0, stat.S_IFREG}:
        with archive.open(info) as content:
            stage.file(path, mode or _DEFAULT_MODE, mtime_ns, content, size=info.file_size)
    else:
        raise DataError(f"entry {show(path)} has the file type {kind:#o}: leave it out of the archive")


def entry_path(name: bytes) -> bytes:
    """The path of an entry called `name`: without `.` and empty components, such as a leading `./` and a trailing `/`.

    Absolute names stay as they are, for the stage to refuse.
    """
    if name.startswith(b"/"):
        return name
    return b"/".join([part for part in name.split(b"/") if part not in {b"", b"."}])


def _decompressed(stream: Readable, format_: Format) -> io.BufferedIOBase | _Zstd:
    if format_ is Format.TAR_ZST:
        return _Zstd(stream)
    raw = io.BufferedReader(_Raw(stream), _BUFFER)
    if format_ is Format.TAR_GZ:
        return gzip.GzipFile(fileobj=raw)
    if format_ is Format.TAR_XZ:
        return lzma.LZMAFile(raw)
    if format_ is Format.TAR_BZ2:
        return bz2.BZ2File(raw)
    return raw


class _Raw(io.RawIOBase):
    """Anything that can be read, as the standard library wants it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # the only caller gives a memoryview
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


class _Zstd(io.RawIOBase):
    """The content of zstd frames that follow each other (RFC 8878, 3.1).

    Not `ZstdFile`: that takes its input in pieces of 8 KiB, which costs more than decompressing them.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._frame = zstd.ZstdDecompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # the only caller gives a memoryview
        """Decompressed bytes into `buffer`; 0 at the end of the last frame."""
        content = b""
        while not content:  # the first bytes of a frame, and a skippable one, have none
            piece = b""
            if self._frame.eof:
                piece = self._frame.unused_data or self._stream.read(_TAKEN)
                if not piece:
                    return 0
                self._frame = zstd.ZstdDecompressor()
            elif self._frame.needs_input:
                piece = self._stream.read(_TAKEN)
                if not piece:
                    raise EOFError("it ends within a zstd frame")
            content = self._frame.decompress(piece, len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _zip_time(parts: tuple[int, int, int, int, int, int]) -> int:
    """Nanoseconds of a zip entry's time; archivers write impossible ones for "none"."""
    try:
        moment = datetime(*parts, tzinfo=UTC)
    except ValueError:
        moment = _NO_TIME
    return int(moment.timestamp()) * 10**9


@contextmanager
def _damage(format_: Format) -> Iterator[None]:
    """What the decoders say against the archive, as one error.

    An OSError without a number is gzip's or bz2's way to say that data are bad; one with a number is the system's.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise _bad(format_, error) from error
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, EOFError, zipfile.BadZipFile) as error:
        raise _bad(format_, error) from error
    except (NotImplementedError, UnicodeError, struct.error) as error:  # zipfile, of what it cannot read
        raise _bad(format_, error) from error


def _bad(format_: Format, error: Exception) -> DataError:
    return DataError(f"the archive is not {format_}, or damaged ({error}): check `format`, or build or upload it anew")
