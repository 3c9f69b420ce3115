"""Kernel mounts: show a directory read-only somewhere else, take that away, look what is at a path.

A bind mount is read-only before anybody can see it. One mount(2) with `MS_BIND|MS_RDONLY` is *writable*, because the
kernel ignores the second flag (mount(2), "Creating a bind mount"), and bind-then-remount at the target is writable in
between. `bind_detached` and `BindElsewhere` are the two ways without that window.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cachefetch.errors import OutOfSpace, Precondition
from csi import mountinfo, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MountOf = Callable[[int, Path], tuple[int, bool]]
    """Id of the mount that a descriptor of this path is in, and whether it is the mount's root."""

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
_DEAD = frozenset({errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.EHOSTDOWN, errno.ENODEV})
"""What a filesystem answers whose server or device is gone."""
_BUSY_TRIES, _BUSY_PAUSE = 20, 0.02  # seconds; together much longer than a fork takes to its exec
_ST_NOSYMFOLLOW = 1 << 13
"""linux/statfs.h; not in os."""


class Kind(StrEnum):
    """What is at a path, a symlink not followed."""

    MISSING = "missing"
    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"
    OTHER = "other"
    DEAD = "dead"
    """A filesystem that no longer answers: only unmounting it helps."""


@dataclass(frozen=True)
class Seen:
    """What `Mounter.look` found. Two are equal when they show the same thing through the same mount."""

    kind: Kind
    mount_root: bool = False
    """Something is mounted exactly here."""
    mount_id: int = 0
    """Id of the mount through which the path is seen, as in mountinfo; 0 when missing or not to be found out."""
    identity: tuple[int, int] | None = None
    """Device and inode; None when missing or dead."""
    readonly: bool = False
    """The mount or its filesystem is read-only; False when missing or dead."""


class Mounter(Protocol):
    """The mounts of this node, as far as publishing needs them. Safe to use from many threads."""

    def bind_readonly(self, source: Path, target: Path) -> None:
        """Show the directory `source` at the directory `target`: read-only, nosuid, nodev, never visible writable.

        A mount that is at the target already is covered, not replaced. Mounts inside `source` are left out, and later
        mounts inside either of the two do not appear in the other.

        Raises:
            Precondition: source or target is missing, a symlink or no directory; the process may not mount; or the
                target does not show the source afterwards, and the mount was undone unless another one covers it.
            OutOfSpace: the namespace has as many mounts as it may have.
            OSError: the kernel refused it for another reason.
        """

    def unmount(self, target: Path) -> None:
        """Take away the topmost mount at `target`, a symlink not followed. Nothing mounted or nothing there is fine.

        Raises:
            Precondition: the mount is in use, or this process may not unmount it.
            OSError: the kernel refused it for another reason.
        """

    def look(self, path: Path) -> Seen:
        """What is at `path`, in time that does not depend on the number of mounts.

        Raises:
            OSError: the path cannot be looked at, e.g. its name is too long.
        """

    def find(self, mount_id: int) -> mountinfo.Mount | None:
        """Where the mount with that id comes from (None: gone). Reads the whole table: for errors and recovery."""

    def below(self, directory: Path) -> list[mountinfo.Mount]:
        """The mounts strictly below `directory`, deepest first. Reads the whole table: for recovery."""


class Bind(Protocol):
    """A way to bind the directory `source` read-only, private, nosuid and nodev onto the directory `target`."""

    def __call__(self, source: int, target: int, /) -> int:
        """Bind; both are O_PATH descriptors. Returns one of the new mount's root, which the caller closes."""


class KernelMounter:
    """The Mounter of a real node. Needs CAP_SYS_ADMIN in the mount namespace's user namespace, and /proc.

    Asks once for what the kernel can, so that a publish tries nothing in vain.

    Args:
        workshop: directory for `BindElsewhere`; made only when the kernel needs it.
        bind: how to bind, instead of asking the kernel.
        mount_of: how to find mount id and mount root of a descriptor and its path, instead of asking the kernel.
    """

    def __init__(
        self,
        workshop: Path,
        *,
        bind: Bind | None = None,
        mount_of: MountOf | None = None,
    ) -> None:
        self._bind = bind or (bind_detached if syscalls.has_set_attributes() else BindElsewhere(workshop))
        self._mount_of = mount_of or (mount_by_statx if syscalls.has_mount_of() else mount_by_fdinfo)

    def bind_readonly(self, source: Path, target: Path) -> None:
        """See `Mounter.bind_readonly`."""
        with _explained(f"mounting {source} on {target}"), ExitStack() as closing:
            source_fd = _open_directory(source)
            closing.callback(os.close, source_fd)
            target_fd = _open_directory(target)
            closing.callback(os.close, target_fd)
            mounted = self._bind(source_fd, target_fd)
            closing.callback(os.close, mounted)
            try:
                self._check(mounted, source_fd, target)
            except BaseException:
                self._undo(mounted, target)
                raise

    def unmount(self, target: Path) -> None:
        """See `Mounter.unmount`."""
        with _explained(f"unmounting {target}"):
            try:
                _umount_patiently(target)
            except OSError as error:
                # EINVAL: nothing is mounted, or what is belongs to a more privileged namespace (mount_namespaces(7)).
                if error.errno not in _ABSENT | {errno.EINVAL}:
                    raise
                if self.look(target).mount_root:
                    raise Precondition(
                        f"{target} cannot be unmounted from here: unmount it in the namespace that it comes from"
                    ) from error

    def look(self, path: Path) -> Seen:
        """See `Mounter.look`."""
        try:
            fd = os.open(path, syscalls.O_LOOK)
        except OSError as error:
            if error.errno in _ABSENT:
                return Seen(Kind.MISSING)
            if error.errno in _DEAD:
                return Seen(Kind.DEAD)
            raise
        try:
            return self._seen(fd, path)
        finally:
            os.close(fd)

    def find(self, mount_id: int) -> mountinfo.Mount | None:
        """See `Mounter.find`."""
        return mountinfo.find(mount_id)

    def below(self, directory: Path) -> list[mountinfo.Mount]:
        """See `Mounter.below`."""
        return mountinfo.below(directory)

    def _seen(self, fd: int, path: Path) -> Seen:
        mount_id, mount_root = self._mount_of(fd, path)
        try:
            status = os.fstat(fd)
            readonly = bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
        except OSError as error:
            if error.errno in _DEAD:
                return Seen(Kind.DEAD, mount_root, mount_id)
            raise
        return Seen(_kind(status.st_mode), mount_root, mount_id, (status.st_dev, status.st_ino), readonly)

    def _check(self, mounted: int, source: int, target: Path) -> None:
        seen = self.look(target)
        status = os.fstat(source)
        mount_id, _ = self._mount_of(mounted, target)
        if seen != Seen(Kind.DIRECTORY, True, mount_id, (status.st_dev, status.st_ino), True):
            raise Precondition(
                f"mounting on {target} came to nothing because {seen} is there instead of a read-only view of the "
                "source: find out which other program mounts or moves that path"
            )

    def _undo(self, mounted: int, target: Path) -> None:
        # The descriptor finds the mount also where its target was moved to. But umount2 takes the topmost mount of that
        # place: what another program put over ours is not ours to take away, so both stay.
        mount_id, _ = self._mount_of(mounted, target)
        if not mountinfo.covered(mount_id):
            syscalls.umount(syscalls.fd_path(mounted), syscalls.MNT_DETACH)


def bind_detached(source: int, target: int) -> int:
    """The `Bind` of Linux 5.12 and later: the mount is finished while it is nowhere, then attached in one step."""
    mounted = syscalls.clone_tree(source)
    try:
        attributes = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
        syscalls.set_attributes(mounted, attributes, syscalls.MS_PRIVATE)
        syscalls.attach(mounted, target)
    except BaseException:
        os.close(mounted)
        raise
    return mounted


class BindElsewhere:
    """The `Bind` of kernels before 5.12: bind and remount in a place of its own, then move the result onto the target.

    The place is a private mount for each call: what is below a shared one cannot be moved (mount(2), EINVAL), and would
    show on the host while it is writable.

    Args:
        workshop: directory that one process at a time uses. Made when missing; what a crash left in it is cleared.
    """

    def __init__(self, workshop: Path) -> None:
        self._workshop = workshop
        workshop.mkdir(mode=0o700, parents=True, exist_ok=True)
        for mount in mountinfo.below(workshop):
            syscalls.umount(mount.point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        for directory in (*workshop.glob("*/tree"), *workshop.iterdir()):
            directory.rmdir()

    def __call__(self, source: int, target: int) -> int:
        """See `Bind`."""
        with ExitStack() as leaving:
            slot = Path(tempfile.mkdtemp(dir=self._workshop))
            leaving.callback(slot.rmdir)
            tree = slot / "tree"
            tree.mkdir()
            leaving.callback(tree.rmdir)
            syscalls.mount(slot, slot, syscalls.MS_BIND)
            leaving.callback(syscalls.umount, slot, syscalls.MNT_DETACH)  # takes along what is still mounted on `tree`
            syscalls.mount("", slot, syscalls.MS_PRIVATE)
            syscalls.mount(syscalls.fd_path(source), tree, syscalls.MS_BIND)
            return _finish_and_move(tree, target)


def _finish_and_move(tree: Path, target: int) -> int:
    mounted = os.open(tree, syscalls.O_DIRECTORY)
    try:
        syscalls.mount("", tree, syscalls.MS_PRIVATE)
        # A remount sets all flags anew but those of atime (mount(2)); to drop noexec would be to grant something.
        have = os.fstatvfs(mounted).f_flag
        flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
        flags |= syscalls.MS_NOEXEC if have & os.ST_NOEXEC else 0
        flags |= syscalls.MS_NOSYMFOLLOW if have & _ST_NOSYMFOLLOW else 0
        syscalls.mount("", tree, syscalls.MS_REMOUNT | syscalls.MS_BIND | flags)
        syscalls.mount(tree, syscalls.fd_path(target), syscalls.MS_MOVE)
    except BaseException:
        os.close(mounted)
        raise
    return mounted


def mount_by_statx(fd: int, _path: Path) -> tuple[int, bool]:
    """The `MountOf` of Linux 5.8 and later."""
    return syscalls.mount_of(fd)


def mount_by_fdinfo(fd: int, path: Path) -> tuple[int, bool]:
    """The `MountOf` of older kernels: a mount's root is in another mount than its parent directory.

    proc_pid_fdinfo(5) tells mount ids since Linux 3.15. Unlike a search in mountinfo this takes constant time and is
    exact: before 5.8, reading the table could miss a mount while others came and went.
    """
    mount_id = _fdinfo_mount_id(fd)
    parent = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        return mount_id, _fdinfo_mount_id(parent) != mount_id
    finally:
        os.close(parent)


def _fdinfo_mount_id(fd: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text("ascii").splitlines()
    return next(int(value) for name, value in (line.split(":", 1) for line in lines) if name == "mnt_id")


def _umount_patiently(target: Path) -> None:
    """Believe that a mount is in use only when that lasts.

    A child that is being started holds whatever this process had open when it was forked until its exec, also a
    descriptor of a target that somebody looked at (execve(2), close-on-exec).
    """
    for _ in range(_BUSY_TRIES):
        try:
            syscalls.umount(target, syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(_BUSY_PAUSE)
        else:
            return
    syscalls.umount(target, syscalls.UMOUNT_NOFOLLOW)


def _kind(mode: int) -> Kind:
    kinds = {stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK}
    return kinds.get(stat.S_IFMT(mode), Kind.OTHER)


def _open_directory(path: Path) -> int:
    try:
        return os.open(path, syscalls.O_DIRECTORY)
    except OSError as error:
        if error.errno in _ABSENT:
            raise Precondition(
                f"{path} is no directory ({error.strerror}): a mount needs one at both ends, symlinks are not followed"
            ) from error
        raise


@contextmanager
def _explained(action: str) -> Iterator[None]:
    """Turn the kernel's refusals that somebody can do something about into errors that say what."""
    try:
        yield
    except OSError as error:
        reason = f"{action} failed ({error.strerror})"
        match error.errno:
            case errno.EBUSY:
                raise Precondition(f"{reason}: a process on the node still uses it; will be retried") from error
            case errno.EPERM | errno.EACCES:
                raise Precondition(f"{reason}: run the node process privileged") from error
            case errno.ENOENT | errno.ENOTDIR:
                raise Precondition(f"{reason}: the directory was removed meanwhile; try again") from error
            case errno.ENOSPC:
                raise OutOfSpace(f"{reason}: raise the sysctl fs.mount-max, or free space on the node") from error
        raise
