"""Loop devices: a file as a block device, for kernels and file systems that do not mount a file itself.

loop(4); LOOP_CONFIGURE came with Linux 5.8 and does in one step what took three, so a crash leaves no half-made device.
A device is marked to go with its last user (LO_FLAGS_AUTOCLEAR): the mount keeps it, nothing has to be recorded.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch.errors import OutOfSpace, Precondition

if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/loop.h
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
_MAJOR = 7
_CONFIG = struct.Struct("=2I5Q4I64s64s32s2Q8Q")  # struct loop_config
_TRIES = 100
"""Others take free devices, too, between the question and the answer."""


@contextmanager
def attached(image: Path, *, readonly: bool, devices: Path = Path("/dev")) -> Iterator[Path]:
    """The loop device of the image. It goes when the body is done, unless it was mounted there: then with the mount.

    Raises:
        OutOfSpace: there are no loop devices left.
        Precondition: this process may not use loop devices.
    """
    backing = os.open(image, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    try:
        device, number = _take(backing, image, readonly=readonly, devices=devices)
    finally:
        os.close(backing)
    try:
        yield devices / f"loop{number}"
    finally:
        os.close(device)


def backing_file(device: str) -> Path | None:
    """The file behind `/dev/loopN`; None when it is no loop device or has none."""
    name = device.removeprefix("/dev/")
    try:
        text = Path("/sys/block", name, "loop/backing_file").read_text("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Path(text.removesuffix("\n").removesuffix(" (deleted)"))


def _take(backing: int, image: Path, *, readonly: bool, devices: Path) -> tuple[int, int]:
    for _ in range(_TRIES):
        number = _free(devices / "loop-control")
        device = _open(devices / f"loop{number}", number, readonly=readonly)
        try:
            fcntl.ioctl(device, _CONFIGURE, _config(backing, image, readonly=readonly))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise
            continue
        return device, number
    raise OutOfSpace(f"no loop device for {image}: {_TRIES} times another program was faster; will be retried")


def _config(backing: int, image: Path, *, readonly: bool) -> bytes:
    flags = _AUTOCLEAR | (_READ_ONLY if readonly else 0)
    name = os.fsencode(image)[-63:]  # for people: losetup shows it where sysfs is missing
    return _CONFIG.pack(backing, 0, *[0] * 5, 0, 0, 0, flags, name, b"", b"", *[0] * 10)


def _free(control_path: Path) -> int:
    try:
        control = os.open(control_path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Precondition(
            f"{control_path} cannot be opened ({error.strerror}): run the node privileged, with /dev of the host"
        ) from error
    try:
        return fcntl.ioctl(control, _GET_FREE)
    except OSError as error:
        raise OutOfSpace(
            f"no loop device is free ({error.strerror}): unpublish disks, or raise the kernel's loop.max_loop"
        ) from error
    finally:
        os.close(control)


def _open(path: Path, number: int, *, readonly: bool) -> int:
    flags = (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        # A container's /dev is made once and does not show the devices that came later.
        os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(_MAJOR, number))
        return os.open(path, flags)
