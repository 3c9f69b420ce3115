r"""The canonical manifest: the list of a version's entries whose sha256 is the version's id.

Text, one line an entry, sorted by the raw bytes of the paths, so that the same tree gives the same bytes everywhere:

    goldlink-manifest-v1 <entries> <files> <bytes>
    <type> <mode, octal> <mtime, ns> <size> <sha256 | symlink text | -> <path>

The first line tells what the version amounts to without reading the rest, and betrays a cut-off file. Bytes of paths
and symlink texts other than printable ASCII, and `%` and space, are written as `%XX`, so every name is one word and
reversible. Reading and writing are streams: a million entries need no more memory than one.
"""

from __future__ import annotations

import hashlib
import re
from typing import IO, TYPE_CHECKING

from cachefetch.errors import DataError
from cachefetch.model import Entry, EntryType, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_MAGIC = b"goldlink-manifest-v1"
_UNSAFE = re.compile(rb"[^!-$&-~]")
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")
_TYPES = {member.value.encode(): member for member in EntryType}

# One form for one meaning, so that what is read would be written the same way. Words are linear to match.
_NUMBER = rb"(0|[1-9][0-9]{0,19})"
_PLAIN = rb"[!-$&-~]*"
_WORD = rb"(?=[!-~])(" + _PLAIN + rb"(?:%(?:[01][0-9A-F]|2[05]|7F|[89A-F][0-9A-F])" + _PLAIN + rb")*)"
_HEAD = re.compile(rb" ".join([_MAGIC, *[_NUMBER] * len(Totals._fields)]) + rb"\n")
_LINE = re.compile(rb"([fdl]) (0[0-7]{3}) (0|-?[1-9][0-9]{0,19}) " + _NUMBER + rb" " + _WORD + rb" " + _WORD + rb"\n")
_DIGEST = re.compile(rb"[0-9a-f]{64}")


def escape(raw: bytes) -> bytes:
    """Write any bytes as one word of printable ASCII; `unescape` is its inverse."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], raw)


def unescape(word: bytes) -> bytes:
    """The bytes that `escape` wrote as `word`."""
    return _ESCAPED.sub(lambda match: bytes((int(match[1], 16),)), word) if b"%" in word else word


def encode(entry: Entry) -> bytes:
    """One line of the manifest, with its newline."""
    detail = entry.digest.encode() or escape(entry.target) or b"-"
    return b"%b %04o %d %d %b %b\n" % (
        entry.type.value.encode(),
        entry.mode,
        entry.mtime_ns,
        entry.size,
        detail,
        escape(entry.path),
    )


def decode(line: bytes) -> Entry:
    """The entry of one line.

    Raises:
        DataError: the line is not of the manifest's form.
    """
    match = _LINE.fullmatch(line)
    if match:
        type_, mode, mtime, size, detail, path = match.groups()
        kind = _TYPES[type_]
        head = (unescape(path), kind, int(mode, 8), int(mtime))
        if kind is EntryType.FILE and _DIGEST.fullmatch(detail):
            return Entry(*head, int(size), detail.decode("ascii"))
        if kind is EntryType.SYMLINK and size == b"0":
            return Entry(*head, target=unescape(detail))
        if kind is EntryType.DIRECTORY and (size, detail) == (b"0", b"-"):
            return Entry(*head)
    raise DataError(f"manifest line {line[:200]!r} is damaged: fetch the version anew")


def write(entries: Iterable[Entry], totals: Totals, out: IO[bytes]) -> str:
    """Write the manifest of `entries`, which come sorted, to `out`; returns the version id.

    Raises:
        ValueError: the entries are not sorted, or there are more or fewer than `totals` says.
    """
    digest = hashlib.sha256()
    buffer = bytearray(b"%b %d %d %d\n" % (_MAGIC, *totals))
    last, count = b"", 0
    for entry in entries:
        if entry.path <= last:
            raise ValueError(f"entry {entry.path!r} does not sort after {last!r}")
        last = entry.path
        count += 1
        buffer += encode(entry)
        if len(buffer) > 1 << 20:
            digest.update(buffer)
            out.write(buffer)
            buffer.clear()
    if count != totals.entries:
        raise ValueError(f"{count} entries, announced were {totals.entries}")
    digest.update(buffer)
    out.write(buffer)
    return digest.hexdigest()


def read_totals(path: Path) -> Totals:
    """What the version of the manifest at `path` amounts to: reads its first line only.

    Raises:
        DataError: not a manifest.
    """
    with path.open("rb") as file:
        return _totals(file.readline(200), path)


def read(path: Path) -> Iterator[Entry]:
    """The entries of the manifest at `path`, in order.

    Raises:
        DataError: not a manifest, damaged, out of order, or cut off (noticed at its end).
    """
    with path.open("rb") as file:
        expected = _totals(file.readline(200), path).entries
        count, last = 0, b""
        for line in file:
            entry = decode(line)
            if entry.path <= last:
                raise DataError(f"manifest {path} is out of order at {line[:200]!r}: fetch the version anew")
            last = entry.path
            yield entry
            count += 1
    if count != expected:
        raise DataError(f"manifest {path} has {count} entries, not {expected}: fetch the version anew")


def common(left: Iterable[Entry], right: Iterable[Entry]) -> Iterator[Entry]:
    """The entries that are in both, equal in everything; both come sorted."""
    others = iter(right)
    other = next(others, None)
    for entry in left:
        while other is not None and other.path < entry.path:
            other = next(others, None)
        if other is None:
            return
        if other == entry:
            yield entry


def digest(path: Path) -> str:
    """The version id that the manifest at `path` really has."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _totals(line: bytes, path: Path) -> Totals:
    match = _HEAD.fullmatch(line)
    if not match:
        raise DataError(f"{path} is not a manifest that this version reads: fetch the version anew")
    return Totals(*map(int, match.groups()))
