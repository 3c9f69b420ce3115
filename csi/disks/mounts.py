"""Mounting images on a node: from the file itself where the kernel can, by a loop device elsewhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cachefetch.errors import Precondition
from csi import loop, mountinfo, syscalls
from csi.disks.model import Filesystem

if TYPE_CHECKING:
    from csi.mount import Mounter

_NOT_BLOCK = frozenset({errno.ENOTBLK, errno.EINVAL})
"""What a kernel before 6.12 says to a file as the source of a mount."""


class ImageMounter(Protocol):
    """Mounts images. Safe to use from many threads."""

    def mount(self, image: Path, filesystem: Filesystem, target: Path, *, readonly: bool) -> None:
        """Mount the image at the directory: nosuid, nodev. Read-only means that not one byte of the file changes.

        Raises:
            Precondition: the directory is missing, or the image holds no such file system.
            OutOfSpace: there are no loop devices left.
        """

    def bind(self, source: Path, target: Path, *, readonly: bool) -> None:
        """Show the directory `source`, which is a mount, at the directory `target`."""

    def backing(self, mount_id: int) -> Path | None:
        """The image of the mount with that id; None when it has none. Reads the whole table of mounts."""


class KernelImages:
    """The `ImageMounter` of a real node."""

    def __init__(self, mounter: Mounter, *, from_file: bool = True) -> None:
        """Bind by `mounter`; without `from_file` every image gets a loop device."""
        self._mounter = mounter
        self._from_file = from_file

    def mount(self, image: Path, filesystem: Filesystem, target: Path, *, readonly: bool) -> None:
        """See `ImageMounter.mount`."""
        try:
            place = os.open(target, syscalls.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Precondition(f"{target} is no directory: the caller must make it (CSI, NodeStageVolume)") from error
        try:
            self._mount(image, filesystem, syscalls.fd_path(place), readonly=readonly)
        except OSError as error:
            raise _explained(error, image, filesystem) from error
        finally:
            os.close(place)

    def bind(self, source: Path, target: Path, *, readonly: bool) -> None:
        """See `ImageMounter.bind`. A bind mount has the nosuid and nodev of its source (mount(2))."""
        if readonly:
            self._mounter.bind_readonly(source, target)
            return
        syscalls.mount(source, target, syscalls.MS_BIND)
        syscalls.mount("", target, syscalls.MS_PRIVATE)

    def backing(self, mount_id: int) -> Path | None:
        """See `ImageMounter.backing`."""
        mount = mountinfo.find(mount_id)
        if mount is None:
            return None
        return loop.backing_file(mount.source) or Path(mount.source)

    def _mount(self, image: Path, filesystem: Filesystem, target: Path, *, readonly: bool) -> None:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | (syscalls.MS_RDONLY if readonly else 0)
        if filesystem is Filesystem.EROFS and self._from_file:
            try:
                syscalls.mount(image, target, flags, fstype=filesystem.value)
            except OSError as error:
                if error.errno not in _NOT_BLOCK:
                    raise
            else:
                return
        # ext4 replays a dirty journal also when it is mounted read-only: noload (ext4(5)) keeps it from that.
        options = "noload" if filesystem is Filesystem.EXT4 and readonly else ""
        with loop.attached(image, readonly=readonly) as device:
            syscalls.mount(device, target, flags, fstype=filesystem.value, options=options)


def _explained(error: OSError, image: Path, filesystem: Filesystem) -> Exception:
    match error.errno:
        case errno.ENOENT if not image.exists():
            return Precondition(f"image {image} is missing: mount the disk directory, or delete the volume")
        case errno.EINVAL | errno.EUCLEAN | errno.EBADMSG:
            return Precondition(
                f"image {image} cannot be mounted as {filesystem} ({error.strerror}): it is damaged, see the kernel log"
            )
        case errno.ENODEV:
            return Precondition(f"the kernel has no {filesystem}: load the module {filesystem} on the node")
        case errno.EPERM | errno.EACCES:
            return Precondition(f"mounting {image} failed ({error.strerror}): run the node process privileged")
    return error
