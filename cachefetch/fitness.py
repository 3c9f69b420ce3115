"""Whether a directory can hold a store: one mount, hardlinks, a local disk. Probed with real calls, not guessed."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import sys
from typing import TYPE_CHECKING

from cachefetch.errors import StoreUnfit

if TYPE_CHECKING:
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES = 256  # struct statfs is 120 bytes on 64 bit; its first word is f_type

# statfs(2) and linux/magic.h. Their locks, renames or link counts cannot be relied on.
_REMOTE = {
    0x6969: "nfs", 0x517B: "smb", 0xFF534D42: "cifs", 0xFE534D42: "smb2", 0x00C36400: "ceph", 0x65735546: "fuse",
    0x01021997: "9p", 0x5346414F: "afs", 0x6B414653: "afs", 0x0BD00BD0: "lustre", 0x47504653: "gpfs",
    0x19830326: "beegfs",
}  # fmt: skip


def check_fitness(root: Path) -> None:
    """Return if the store at `root`, whose directories exist, can work.

    Raises:
        StoreUnfit: says what to mount instead.
    """
    remote = remote_kind(filesystem_magic(root))
    if remote is not None:
        raise StoreUnfit(
            f"the state directory {root} is on a {remote} file system: mount a directory of a local disk there"
        )
    for name in ("caches", "volumes", "pool", "trash"):
        _check_one_mount(root / "staging", root / name)
    _check_hardlinks(root)


def filesystem_magic(path: Path) -> int:
    """`f_type` of statfs(2): the kind of file system."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF


def remote_kind(magic: int) -> str | None:
    """The name of a network or user-space file system, on which no store can be; None for local ones."""
    return _REMOTE.get(magic)


def _check_one_mount(source: Path, dest: Path) -> None:
    """st_dev proves nothing: link(2) and rename(2) say EXDEV between two mounts of one device, and say it first.

    So the rename of a name that does not exist tells, and leaves nothing behind even when we are killed.
    """
    name = secrets.token_hex(16)
    try:
        (source / name).rename(dest / name)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise StoreUnfit(
                f"{source} and {dest} are two mounts, and files cannot be linked from one to the other: "
                f"mount the whole state directory {source.parent} once, nothing below it"
            ) from error
        raise


def _check_hardlinks(root: Path) -> None:
    """Make a real link, in the trash: that is where it would be deleted if we were killed."""
    probe = root / "locks" / "probe"
    link = root / "trash" / secrets.token_hex(16)
    probe.touch(mode=0o600)
    try:
        link.hardlink_to(probe)
    except OSError as error:
        if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise StoreUnfit(
                f"the file system of {root} has no hardlinks ({error.strerror}): "
                "use a directory on ext4, XFS, btrfs or another file system that has them"
            ) from error
        raise
    link.unlink(missing_ok=True)  # or whoever empties the trash was faster
