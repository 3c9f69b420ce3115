"""The system calls of mounting that Python has no functions for, by ctypes: errors are OSError with path and errno.

glibc before 2.36 has no wrappers for the calls of Linux 5.2 and 5.12, so they go through syscall(2); their numbers are
the same on every architecture (asm-generic/unistd.h). ctypes lets other threads run meanwhile and keeps errno for each.
Descriptors are of the O_PATH kind, which name a place without opening it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

O_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags of os.open to name a place, be it a symlink; mounts nothing on demand (open(2), O_PATH)."""
O_DIRECTORY = O_LOOK | os.O_DIRECTORY
"""The same, refusing with ENOTDIR what is no directory."""

# linux/mount.h, sys/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOSYMFOLLOW = 1, 2, 4, 8, 1 << 8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SHARED = 1 << 5, 1 << 12, 1 << 13, 1 << 14, 1 << 18, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_OPEN_TREE_CLONE = 1
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
_MOUNT_ATTR = struct.Struct("=4Q")  # attr_set, attr_clr, propagation, userns_fd

# linux/fcntl.h, linux/stat.h
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x1000, 0x4000
_STATX_MNT_ID, _STATX_ATTR_MOUNT_ROOT = 0x1000, 0x2000
_STATX_BYTES = 256
_STATX_HEAD = struct.Struct("=I4xQ40xQ")  # stx_mask, stx_attributes, stx_attributes_mask
_STATX_MNT_ID_AT = 0x90

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def mount(source: Path | str, target: Path, flags: int, *, fstype: str = "", options: str = "") -> None:
    """Mount, move or change a mount. A symlink at `target` is followed: name it by `fd_path` to be sure what it is."""
    arguments = (os.fsencode(source), os.fsencode(target), fstype.encode(), flags, os.fsencode(options))
    _checked(_libc.mount(*arguments), target)


def umount(target: Path, flags: int) -> None:
    """Take away the topmost mount at `target`."""
    _checked(_libc.umount2(os.fsencode(target), flags), target)


def clone_tree(directory: int) -> int:
    """open_tree(2): a new mount of the directory, attached nowhere, without the mounts below. Closing it drops it."""
    return _syscall(_OPEN_TREE, directory, b"", _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH)


def set_attributes(mounted: int, attributes: int, propagation: int) -> None:
    """mount_setattr(2): add MOUNT_ATTR_* to the mount and give it the propagation MS_PRIVATE or the like."""
    packed = _MOUNT_ATTR.pack(attributes, 0, propagation, 0)
    _syscall(_MOUNT_SETATTR, mounted, b"", _AT_EMPTY_PATH, packed, len(packed))


def attach(mounted: int, target: int) -> None:
    """move_mount(2): attach what `clone_tree` or `new_mount` gave to the directory `target`, on top of all there."""
    _syscall(_MOVE_MOUNT, mounted, b"", target, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def new_mount(fstype: str, options: Mapping[str, str | None], attributes: int) -> int:
    """fsopen(2), fsconfig(2), fsmount(2) of Linux 5.2: a new file system, mounted with MOUNT_ATTR_*, attached nowhere.

    An option with the value None is a flag. Closing the descriptor before `attach` drops the mount.
    """
    opened = _libc.syscall(ctypes.c_long(_FSOPEN), fstype.encode(), ctypes.c_long(_FSOPEN_CLOEXEC))
    context = _checked(opened, Path(fstype))
    try:
        for key, value in options.items():
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            # A flag's value must be a null pointer, which is what ctypes makes of 0.
            _syscall(_FSCONFIG, context, command, key.encode(), 0 if value is None else os.fsencode(value), 0)
        _syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, 0, 0, 0)
        return _syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def has_set_attributes() -> bool:
    """Whether the kernel (5.12) and a seccomp filter around us let `set_attributes` through."""
    try:
        _syscall(_MOUNT_SETATTR, -1, b"", 0, b"", 0)
    except OSError as error:
        # A kernel that has the call checks the size before anything else; ENOSYS and a seccomp filter's EPERM mean no.
        return error.errno == errno.EINVAL
    raise AssertionError("mount_setattr(2) accepted a structure of size 0")


def mount_of(fd: int) -> tuple[int, bool]:
    """statx(2): id of the mount that the descriptor is in, and whether it is its root. Works on a dead filesystem."""
    answer = _statx(fd)
    _, attributes, _ = _STATX_HEAD.unpack_from(answer)
    (mount_id,) = struct.unpack_from("=Q", answer, _STATX_MNT_ID_AT)
    return mount_id, bool(attributes & _STATX_ATTR_MOUNT_ROOT)


def has_mount_of() -> bool:
    """Whether the kernel (5.8) and the C library (glibc 2.28) can answer `mount_of`."""
    if not hasattr(_libc, "statx"):
        return False
    fd = os.open("/", O_LOOK)
    try:
        mask, _, attributes_mask = _STATX_HEAD.unpack_from(_statx(fd))
    except OSError:
        return False  # ENOSYS before 4.11, EPERM from a seccomp filter: either way not
    finally:
        os.close(fd)
    return bool(mask & _STATX_MNT_ID and attributes_mask & _STATX_ATTR_MOUNT_ROOT)


def fd_path(fd: int) -> Path:
    """A path to exactly what the descriptor names, for calls that take no descriptor. Needs /proc."""
    return Path(f"/proc/self/fd/{fd}")


def _statx(fd: int) -> bytes:
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    _checked(_libc.statx(fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, _STATX_MNT_ID, buffer), fd_path(fd))
    return buffer.raw


def _syscall(number: int, fd: int, *arguments: int | bytes) -> int:
    # syscall(2) is variadic and takes longs: ctypes would pass a bare int as 32 bits.
    longs = (ctypes.c_long(value) if isinstance(value, int) else value for value in (number, fd, *arguments))
    return _checked(_libc.syscall(*longs), fd_path(fd))


def _checked(result: int, path: Path) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(path))
    return result
