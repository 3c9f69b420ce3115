"""Private views: what one volume writes to a version, above the golden tree and without touching it, by overlayfs.

    <state-dir>/volumes/<volume-id>/upper/ work/    what was written, where there is no limit
                                   /image           the same in a sparse ext4 image of the size of the limit
                                   /room/           where the image is mounted while the view is made

The golden tree is the lower layer, which overlayfs only reads: whoever writes in the view, root too, writes to the
upper one. A view is finished while it is mounted nowhere, and appears at its target in one step. The kernel keeps what
it is made of, so the image needs its own mount only for that moment, and a view outlives this process.

Nothing here outlasts the volume: fsync does nothing (`volatile`), and after a reboot what was written is discarded.
The limit is a file system of its own, because no quota binds whom the kernel writes for: the mounter, who has
CAP_SYS_RESOURCE (Documentation/filesystems/overlayfs.rst, "Permission model"; quotactl(2)).
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cachefetch.errors import OutOfSpace, Precondition
from csi import loop, mountinfo, syscalls
from csi.disks.jobs import Task
from csi.disks.tools import make_scratch_ext4

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from csi.mount import Mounter
    from csi.targets import Identity

_ATTRIBUTES = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
_UPPER_MODE = 0o777
"""Of the view's root: a pod of any user may write there, as to an emptyDir."""
_OPTIONS = {"index": "off", "xino": "auto", "volatile": None}
_AS_ROOT = {"redirect_dir": "on", "metacopy": "on"}
"""Renaming a directory and changing a mode or an owner copy no data. Safe, as only overlayfs writes the upper layer."""
_AS_USER = {"userxattr": None}
"""In a user namespace there are no trusted.* attributes; with user.* ones the kernel refuses the two above."""
_WHOLE_UID_MAP = ["0", "0", "4294967295"]


class View(Protocol):
    """A view that is finished and mounted nowhere."""

    @property
    def identity(self) -> Identity:
        """What its root looks like, for `Targets.shows`."""
        ...

    def attach(self, target: Path) -> None:
        """Mount it at the directory `target`.

        Raises:
            Precondition: the target does not show the view afterwards; it was undone.
        """
        ...


class Views(Protocol):
    """Makes private views. Safe to use from many threads."""

    def make(self, lower: Path, place: Path, limit: int) -> AbstractContextManager[View]:
        """A view of the directory `lower` that keeps in the directory `place` what is written, up to `limit` bytes.

        With `limit` 0 that is as much as the file system of `place` takes. `lower` must not change while it is mounted.
        A view that was not attached is gone at the end; what it left in `place` is for the caller to discard.

        Raises:
            Precondition: the kernel or the file system of `place` cannot do it.
            OutOfSpace: no room, or no loop device.
            Busy: the driver stops.
        """
        ...

    def clear(self, volumes: Path) -> None:
        """Unmount what a killed process left mounted below the directory `volumes`. Before the first call of `make`."""
        ...


class Space(NamedTuple):
    """Total, used and available: of bytes and of inodes."""

    bytes: tuple[int, int, int]
    inodes: tuple[int, int, int]


class OverlayViews:
    """The `Views` of a real node."""

    def __init__(self, mounter: Mounter, stopping: threading.Event) -> None:
        """Look at mounts through `mounter`; programs that run when `stopping` is set are ended."""
        self._mounter = mounter
        self._stopping = stopping
        as_root = Path("/proc/self/uid_map").read_text("ascii").split() == _WHOLE_UID_MAP
        self._options = {**_OPTIONS, **(_AS_ROOT if as_root else _AS_USER)}

    @contextmanager
    def make(self, lower: Path, place: Path, limit: int) -> Iterator[View]:
        """See `Views.make`."""
        with _explained(place), ExitStack() as closing:
            room = closing.enter_context(self._room(place, limit)) if limit else place
            mounted = self._mount(lower, room, place)
        try:
            status = os.fstat(mounted)
            yield _KernelView(self._mounter, mounted, (status.st_dev, status.st_ino))
        finally:
            os.close(mounted)

    def clear(self, volumes: Path) -> None:
        """See `Views.clear`."""
        for mount in self._mounter.below(volumes):
            syscalls.umount(mount.point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)

    @contextmanager
    def _room(self, place: Path, limit: int) -> Iterator[Path]:
        """A file system of `limit` bytes, mounted here during the block; the overlay keeps it alive afterwards."""
        image, room = place / "image", place / "room"
        with image.open("xb") as file:
            file.truncate(limit)
        make_scratch_ext4(image, Task(self._stopping))
        room.mkdir(mode=0o700)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        with loop.attached(image, readonly=False) as device:
            # Without noinit_itable a kernel thread would write all inode tables, and the image would not stay sparse.
            syscalls.mount(device, room, flags, fstype="ext4", options="noinit_itable")
        try:
            yield room
        finally:
            syscalls.umount(room, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)

    def _mount(self, lower: Path, room: Path, place: Path) -> int:
        """The detached mount. Layers are named by descriptors: no path can be too long or hold a separator."""
        upper, work = room / "upper", room / "work"
        for directory in (upper, work):
            directory.mkdir(mode=0o700)
        upper.chmod(_UPPER_MODE)
        with ExitStack() as closing:
            layers = {}
            for key, directory in (("lowerdir", lower), ("upperdir", upper), ("workdir", work)):
                fd = os.open(directory, syscalls.O_DIRECTORY)
                closing.callback(os.close, fd)
                layers[key] = str(syscalls.fd_path(fd))
            return syscalls.new_mount("overlay", {"source": str(place), **layers, **self._options}, _ATTRIBUTES)


class _KernelView:
    """The `View` of a real node."""

    def __init__(self, mounter: Mounter, mounted: int, identity: Identity) -> None:
        self._mounter = mounter
        self._mounted = mounted
        self.identity = identity

    def attach(self, target: Path) -> None:
        """See `View.attach`."""
        place = os.open(target, syscalls.O_DIRECTORY)
        try:
            syscalls.attach(self._mounted, place)
        finally:
            os.close(place)
        try:
            self._check(target)
        except BaseException:
            self._undo()
            raise

    def _check(self, target: Path) -> None:
        seen = self._mounter.look(target)
        if not seen.mount_root or seen.identity != self.identity:
            raise Precondition(
                f"mounting on {target} came to nothing because {seen} is there instead of the private view: find out "
                "which other program mounts or moves that path"
            )

    def _undo(self) -> None:
        # umount2 takes the topmost mount of a place: what another program put over ours is not ours to take away.
        mount_id, _ = syscalls.mount_of(self._mounted)
        if not mountinfo.covered(mount_id):
            syscalls.umount(syscalls.fd_path(self._mounted), syscalls.MNT_DETACH)


def space(path: Path) -> Space:
    """What the file system takes that the view at `path` writes to: the limit's own, or that of the state directory."""
    status = os.statvfs(path)
    size = status.f_frsize
    return Space(
        (status.f_blocks * size, (status.f_blocks - status.f_bfree) * size, status.f_bavail * size),
        (status.f_files, status.f_files - status.f_ffree, status.f_favail),
    )


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    """Turn the kernel's refusals that somebody can do something about into errors that say what."""
    try:
        yield
    except OSError as error:
        reason = f"a private view with {place} failed ({error.strerror})"
        match error.errno:
            case errno.ENODEV:
                raise Precondition(
                    f"{reason}: load the kernel module overlay on the node, with a limit also ext4"
                ) from error
            case errno.EINVAL | errno.ENOSYS | errno.EOPNOTSUPP:
                raise Precondition(
                    f"{reason}: it needs Linux 5.10 and a state directory on a file system that can be overlayfs's "
                    "upper layer, such as ext4 or XFS; the kernel log says more"
                ) from error
            case errno.EPERM | errno.EACCES:
                raise Precondition(f"{reason}: run the node process privileged") from error
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                raise OutOfSpace(f"{reason}: free space in the state directory, or lower privateMaxBytes") from error
        raise
