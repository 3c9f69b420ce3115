"""Reading a tar archive as a stream: ustar, pax and GNU long names.

Not the standard library's `tarfile`: that takes ten times as long for a member (100 µs), more than all the rest of
staging it, and it reads an extended header of any announced size into memory. Here a header is one struct, extended
headers are bounded, names are bytes, and mtimes are exact in nanoseconds.

Sources of the rules: POSIX.1-2024 pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar
Format".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from cachefetch.errors import DataError
from cachefetch.paths import show

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

_BLOCK = 512
_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s 1s 100s 6s 2s 32s 32s 8s 8s 155s 12x")
_END = bytes(_BLOCK)
_BLANK_CHECKSUM = 8 * ord(" ")
_EXTENDED_MAX = 1 << 20
"""Bytes of one extended header: room for the longest path many times over."""
_SKIP = 1 << 20
_NS_MAX = 1 << 63

REGULAR, HARDLINK, SYMLINK, DIRECTORY = b"0", b"1", b"2", b"5"
_SAME_AS_REGULAR = {b"\0", b"7"}
_BODILESS = {HARDLINK, SYMLINK, DIRECTORY}
_REFUSED = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file in GNU's old form",
    b"M": "the rest of a file in another volume",
    b"D": "a dump directory",
}


class Member(NamedTuple):
    """One entry of the archive, as it stands there: nothing of it is checked for safety."""

    name: bytes
    type: bytes
    """REGULAR, HARDLINK, SYMLINK or DIRECTORY."""
    mode: int
    mtime_ns: int
    size: int
    """Bytes of content, 0 for all but regular files."""
    target: bytes
    """What a link points to."""


class Body:
    """The content of the member that was read last; ends where the member ends."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.left = 0
        self.padding = 0

    def open(self, size: int) -> None:
        """Go on with a member of `size` bytes."""
        self.left = size
        self.padding = -size % _BLOCK

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; empty at the end of the member.

        Raises:
            DataError: the archive ends before the member does.
        """
        chunk = self._stream.read(min(size, self.left))
        if not chunk and self.left and size:
            raise cut_off()
        self.left -= len(chunk)
        return chunk

    def skip(self) -> None:
        """Pass over what was not read, to the start of the next header."""
        while self.left:
            self.read(_SKIP)
        if self.padding and len(self._stream.read(self.padding)) != self.padding:
            raise cut_off()
        self.padding = 0


def cut_off() -> DataError:
    """The archive ends too early."""
    return DataError("the tar archive is cut off: it ends before its end marker; build or upload it anew")


def members(stream: io.BufferedIOBase, body: Body) -> Iterator[Member]:
    """The members of the archive in `stream` up to its end marker.

    `body` has the content of each until the next one is asked for.

    Raises:
        DataError: not a tar archive, damaged, cut off, or with members that a cache cannot hold.
    """
    shared: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    while True:
        body.skip()
        block = stream.read(_BLOCK)
        if block == _END:
            return
        if len(block) != _BLOCK:
            raise cut_off()
        member = _header(block)
        if member.type in {b"x", b"g", b"L", b"K"}:
            body.open(member.size)
            _extend(own if member.type != b"g" else shared, member, body)
        elif member.type != b"V":  # a volume label: a name for the archive, no entry
            member = _finish(member, shared | own if shared else own)
            own = {}
            body.open(member.size)
            yield member


def _header(block: bytes) -> Member:
    (name, mode, _, _, size, mtime, checksum, type_, target, magic, _, _, _, _, _, prefix) = _HEADER.unpack(block)
    if _number(checksum) != sum(block) - sum(checksum) + _BLANK_CHECKSUM:
        raise DataError("the archive is not a tar archive, or damaged: a header's checksum is wrong; build it anew")
    name = name.partition(b"\0")[0]
    if magic == b"ustar\0" and prefix[0]:  # GNU keeps other things in place of the prefix, and has another magic
        name = prefix.partition(b"\0")[0] + b"/" + name
    return Member(name, type_, _number(mode), _number(mtime) * 10**9, _number(size), target.partition(b"\0")[0])


def _number(field: bytes) -> int:
    """Octal digits, or, when the first bit is set, a binary number (GNU and star, for what does not fit)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        return value + (1 << (8 * len(field) - 1)) if field[0] == 0x80 else value  # noqa: PLR2004  (the marker bit alone)
    digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise DataError(
            f"the archive is not a tar archive, or damaged: {field!r} stands where a number should; build it anew"
        ) from None


def _extend(records: dict[bytes, bytes], member: Member, body: Body) -> None:
    """Take in an extended header, which is about the next member or, when it is global, about all that follow."""
    if member.size > _EXTENDED_MAX:
        raise DataError(
            f"the tar archive has an extended header of {member.size} bytes: at most {_EXTENDED_MAX} are read"
        )
    content = b""
    while body.left:
        content += body.read(body.left)
    if member.type in {b"L", b"K"}:
        records[b"path" if member.type == b"L" else b"linkpath"] = content.partition(b"\0")[0]
        return
    while content and content[0]:
        length, _, _ = content.partition(b" ")
        try:
            end = int(length)
            key, equals, value = content[len(length) + 1 : end - 1].partition(b"=")
        except ValueError:
            equals = b""
        if not equals or content[end - 1 : end] != b"\n":
            raise DataError("the tar archive is damaged: a pax header has a broken record; build it anew")
        records[key] = value
        content = content[end:]


def _finish(member: Member, records: dict[bytes, bytes]) -> Member:
    """Apply the extended headers, and refuse what a cache cannot hold."""
    name = records.get(b"path") or member.name
    type_ = REGULAR if member.type in _SAME_AS_REGULAR else member.type
    if type_ == REGULAR and member.type == b"\0" and name.endswith(b"/"):  # before ustar, directories had no type
        type_ = DIRECTORY
    if type_ not in {REGULAR, *_BODILESS}:
        raise DataError(
            f"entry {show(name)} is {_REFUSED.get(type_, f'of type {type_!r}')}: leave it out of the archive"
        )
    if records and any(key.startswith(b"GNU.sparse.") for key in records):
        raise DataError(f"entry {show(name)} is a sparse file: build the archive without --sparse")
    try:
        size = int(records[b"size"]) if b"size" in records else member.size
        mtime = nanoseconds(records[b"mtime"]) if b"mtime" in records else member.mtime_ns
    except ValueError:
        raise DataError(f"entry {show(name)} has a pax header with a broken number: build the archive anew") from None
    if size < 0 or not -_NS_MAX <= mtime < _NS_MAX:
        raise DataError(f"entry {show(name)} has size {size} and mtime {mtime} ns: build the archive anew")
    return Member(
        name,
        type_,
        member.mode & 0o7777,
        mtime,
        0 if type_ in _BODILESS else size,
        records.get(b"linkpath") or member.target,
    )


def nanoseconds(seconds: bytes) -> int:
    """A decimal number of seconds as whole nanoseconds, cut off beyond; floats are not exact enough.

    Raises:
        ValueError: not a decimal number.
    """
    whole, _, fraction = seconds.decode("ascii").partition(".")
    if fraction and not fraction.isdecimal():
        raise ValueError(seconds)
    below = int((fraction + "000000000")[:9])
    return int(whole) * 10**9 + (-below if whole.startswith("-") else below)
