r"""The table of mounts, /proc/self/mountinfo: who is mounted where, and from what.

Reading it takes time with the number of mounts on the node, thousands at times. It answers the questions of slow paths:
to name a mount in an error, and to find left-over mounts. `csi.mount` tells in constant time whether a path is mounted.

The form is in proc(5), "/proc/pid/mountinfo": `36 35 98:0 /root /point options [tags…] - fstype source options`, one
space between fields, and space, tab, newline and backslash (in sources also `#`) written as `\ooo`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLE = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True)
class Mount:
    """One line of the table."""

    id: int
    parent: int
    """Id of the mount that this one sits on."""
    root: Path
    """Directory of the filesystem that shows at `point`: for a bind mount, the source's path within its filesystem."""
    point: Path
    """Where it is mounted, as this process sees it."""
    fstype: str
    source: str
    """What the mounter called it: a device, a server's export, or any word. May be empty."""


def parse(table: bytes) -> Iterator[Mount]:
    """The mounts of a table in the form of mountinfo.

    Raises:
        ValueError: a line is not of that form.
    """
    for line in table.split(b"\n"):
        if line:
            yield _mount(line)


def find(mount_id: int) -> Mount | None:
    """The mount with that id, None when there is none in this process's namespace and root."""
    return next((mount for mount in parse(_TABLE.read_bytes()) if mount.id == mount_id), None)


def covered(mount_id: int) -> bool:
    """Whether another mount sits on top of that one or inside it."""
    return any(mount.parent == mount_id for mount in parse(_TABLE.read_bytes()))


def below(directory: Path) -> list[Mount]:
    """The mounts strictly below `directory`, deepest first: one can unmount them in this order.

    A stack of mounts on one point is that many mounts. Symlinks in `directory` are resolved.
    """
    top = directory.resolve()
    mounts = [mount for mount in parse(_TABLE.read_bytes()) if top in mount.point.parents]
    return sorted(mounts, key=lambda mount: len(mount.point.parts), reverse=True)


def _mount(line: bytes) -> Mount:
    fields = line.split(b" ")
    try:
        # Optional fields are any number of words `tag[:value]`; the lone hyphen ends them.
        separator = fields.index(b"-", 6)
        fstype, source, _ = fields[separator + 1 :]
        return Mount(
            id=int(fields[0]),
            parent=int(fields[1]),
            root=Path(_text(fields[3])),
            point=Path(_text(fields[4])),
            fstype=_text(fstype),
            source=_text(source),
        )
    except ValueError as error:
        raise ValueError(f"{line!r} is not a line of {_TABLE}") from error


def _text(field: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes((int(match[1], 8),)), field))
