"""Block lists: what a sealed image must contain, block by block, so that damage can be named.

    goldlink-blocks-v1 <bytes of the image> <bytes of a block>
    <number of the block> <sha256>

Blocks of zeros are left out, so holes cost nothing and how a copy places its holes does not matter. The sha256 of the
list identifies the image.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

BLOCK = 1 << 20
_HEAD = "goldlink-blocks-v1"
_ZERO = bytes(BLOCK)


class Identity(NamedTuple):
    """What of a file changes when it is written to, replaced or damaged by hand."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identity(path: Path) -> Identity:
    """The identity of the file at `path`."""
    status = path.stat()
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def compute(image: Path, on_bytes: Callable[[int], None]) -> bytes:
    """The block list of the image; `on_bytes` hears how many bytes were passed, and may raise to stop."""
    lines = [f"{_HEAD} {image.stat().st_size} {BLOCK}\n"]
    lines += [f"{number} {digest}\n" for number, digest in _blocks(image, on_bytes)]
    return "".join(lines).encode("ascii")


def digest(blocks: bytes) -> str:
    """What identifies an image with that block list."""
    return hashlib.sha256(blocks).hexdigest()


def damage(image: Path, blocks: Path, expected: str, on_bytes: Callable[[int], None]) -> str:
    """What is wrong with the image, as a sentence's start; empty when it is what it was. Reads all of it."""
    try:
        wanted = blocks.read_bytes()
        if digest(wanted) != expected:
            return f"file {blocks} is damaged"
        head, *lines = wanted.decode("ascii").splitlines()
        size = int(head.split()[1])
        found = image.stat().st_size
    except FileNotFoundError as error:
        return f"file {error.filename} is missing"
    if found != size:
        return f"file {image} has {found} bytes instead of {size}"
    seen = (f"{number} {digest}" for number, digest in _blocks(image, on_bytes))
    for want, have in zip_longest(lines, seen):
        if want != have:
            number = min(int(line.split()[0]) for line in (want, have) if line)
            return f"block {number} (bytes {number * BLOCK} to {(number + 1) * BLOCK - 1}) of {image} is damaged"
    return ""


def _blocks(image: Path, on_bytes: Callable[[int], None]) -> Iterator[tuple[int, str]]:
    """The numbers and digests of the blocks that are not zero."""
    # The buffer is a mapping, because glibc keeps what a thread frees: each job runs in a new thread, and a buffer of
    # its heap would stay resident in one arena after the other.
    with image.open("rb", buffering=0) as file, mmap.mmap(-1, BLOCK) as memory, memoryview(memory) as buffer:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while (start := _next_data(file.fileno(), position, size)) < size:
            on_bytes(start - position)
            position = start - start % BLOCK
            file.seek(position)
            length = _fill(file, buffer)
            with buffer[:length] as block:
                zero = block == _ZERO[:length]
                digest = "" if zero else hashlib.sha256(block).hexdigest()
            if not zero:
                yield position // BLOCK, digest
            on_bytes(length)
            position += BLOCK
        on_bytes(max(0, size - position))


def _fill(file: FileIO, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends."""
    length = 0
    while length < len(buffer) and (count := file.readinto(buffer[length:])):
        length += count
    return length


def _next_data(fd: int, position: int, size: int) -> int:
    """Where the next bytes are that are no hole; `size` when there are none (lseek(2), ENXIO)."""
    if position >= size:
        return size
    try:
        return max(position, os.lseek(fd, position, os.SEEK_DATA))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        raise
