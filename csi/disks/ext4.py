"""What the superblock of an ext4 image says.

Layout: Linux, Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_SUPERBLOCK, _BYTES = 1024, 1024
_MAGIC = 0xEF53
_ERRORS = 0x2  # s_state
_INCOMPAT_RECOVER, _INCOMPAT_64BIT = 0x4, 0x80


class Head(NamedTuple):
    """What matters here."""

    blocks: int
    block_size: int
    errors: bool
    """The kernel found errors in it."""
    dirty: bool
    """The journal holds something: it was not unmounted."""


def read_head(image: Path) -> Head | None:
    """The superblock of the image; None when there is none."""
    with image.open("rb") as file:
        file.seek(_SUPERBLOCK)
        raw = file.read(_BYTES)
    if len(raw) < _BYTES or struct.unpack_from("<H", raw, 0x38)[0] != _MAGIC:
        return None
    (low,) = struct.unpack_from("<I", raw, 0x4)
    (log_size,) = struct.unpack_from("<I", raw, 0x18)
    (state,) = struct.unpack_from("<H", raw, 0x3A)
    (incompatible,) = struct.unpack_from("<I", raw, 0x60)
    (high,) = struct.unpack_from("<I", raw, 0x150)
    blocks = low + (high << 32 if incompatible & _INCOMPAT_64BIT else 0)
    return Head(blocks, 1024 << log_size, bool(state & _ERRORS), bool(incompatible & _INCOMPAT_RECOVER))
