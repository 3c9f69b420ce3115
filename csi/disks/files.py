"""The files below `--disk-dir`: records, sealed images, and how both appear, change and go. See docs/adr/0010.

What is made is made in a directory of `staging/` and appears by one rename(2), which one of two wins. A record that is
there is changed under the lock beside it and replaced by rename, so that a reader never sees a part.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from cachefetch import durable, trash
from cachefetch.errors import Busy, Precondition
from csi.disks.ids import is_image
from csi.disks.model import Disk, Group, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LAYOUT = ("disks", "snapshots", "groups", "sealed", "nodes", "staging", "trash")
_RECORD, _LOCK = "record.json", "lock"
_LOCK_PATIENCE = 3.0  # seconds; a holder that takes longer copies an image
_LOCK_PAUSE = 0.02
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})

Record = TypeVar("Record", bound="Disk | Snapshot | Group")


class DiskFiles:
    """One disk directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disks = Shelf(root / "disks", Disk, "disk")
        self.snapshots = Shelf(root / "snapshots", Snapshot, "snap")
        self.groups = Shelf(root / "groups", Group, "group")
        self.sealed = root / "sealed"
        self.nodes = root / "nodes"
        self.staging = root / "staging"
        self.trash = root / "trash"

    @classmethod
    def open(cls, root: Path) -> DiskFiles:
        """The disk directory at `root`, made when it is not there.

        Its directories belong to the owner of `root`: a node that runs as root may come before the controller, which
        does not. One that is root's may be given to the controller meanwhile, with all that is in it, so nothing is
        ever taken back for root.

        Raises:
            Precondition: it belongs to somebody else, who must share it.
        """
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in _LAYOUT:
                place = root / name
                place.mkdir(mode=0o700, exist_ok=True)
                owner = root.stat()
                if os.geteuid() == 0 and owner.st_uid != 0:
                    # Not what a symlink points to: who owns the directory could have that given to them, too.
                    os.chown(place, owner.st_uid, owner.st_gid, follow_symlinks=False)
                _check_access(place)
        except PermissionError as error:
            raise Precondition(
                f"disk directory {root} is not for user {os.geteuid()} ({error.filename}: {error.strerror}): change "
                "the owner of it and of the directories in it"
            ) from error
        return cls(root)

    def image(self, disk: Disk) -> Path:
        """Where the image of the disk is."""
        return self.sealed_image(disk.seal.key) if disk.seal else self.disks.place(disk.id) / "image"

    def sealed_image(self, key: str) -> Path:
        """Where the sealed image with that key is."""
        return self.sealed / key / "image"

    def sealed_blocks(self, key: str) -> Path:
        """Where its block list is."""
        return self.sealed / key / "blocks"

    @contextmanager
    def making(self) -> Iterator[Path]:
        """A directory to make something in, which is then renamed away; what is left of it is deleted.

        The lock beside it is there before and after it, and held all the time, so that `discard_orphans` can tell work
        under way from what a killed process left.
        """
        fd, lock = self._begin()
        place = lock.with_suffix("")
        with _held(fd):
            try:
                place.mkdir(mode=0o700)
                yield place
            finally:
                remove(place)
                lock.unlink()

    def discard_orphans(self) -> int:
        """Discard what `making` was making in processes that are gone; returns how many directories that were."""
        count = 0
        for path in list(self.staging.iterdir()):
            lock = path.with_suffix(".lock")
            if path == lock:
                count += self._discard_orphan(lock)
            elif not lock.exists():
                self.discard(path)
                count += 1
        return count

    def _begin(self) -> tuple[int, Path]:
        while True:
            lock = self.staging / f"{secrets.token_hex(16)}.lock"
            lock.touch(mode=0o600)
            try:
                return _acquire(lock, fcntl.LOCK_EX), lock
            except FileNotFoundError:  # taken for an orphan in the moment before it was held
                continue

    def _discard_orphan(self, lock: Path) -> bool:
        try:
            fd = _acquire(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):
            return False
        with _held(fd):
            self.discard(lock.with_suffix(""))
            lock.unlink()
        return True

    def discard(self, place: Path) -> None:
        """Rename it away, to be deleted later; absent is fine."""
        try:
            place.rename(self.trash / secrets.token_hex(16))
        except FileNotFoundError:
            return

    def free_bytes(self) -> int:
        """Bytes that can still be written here."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize


class Shelf(Generic[Record]):
    """The records of one kind, `<directory>/<id>/record.json`."""

    def __init__(self, directory: Path, type_: type[Record], kind: str) -> None:
        self._directory = directory
        self._type = type_
        self._kind = kind

    def place(self, id_: str) -> Path:
        """The directory of the record."""
        return self._directory / id_

    def read(self, id_: str) -> Record | None:
        """The record; None when there is none. Any text is fine as an id: only ids of ours become paths."""
        if not is_image(id_, self._kind):
            return None
        try:
            return msgspec.json.decode((self.place(id_) / _RECORD).read_bytes(), type=self._type)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, record: Record) -> None:
        """Replace the record; the caller holds its lock."""
        durable.replace(self.place(record.id) / _RECORD, msgspec.json.encode(record))

    def add(self, made: Path, record: Record) -> bool:
        """Let the directory `made` be that of the new record; False when there is one of that id already."""
        durable.replace(made / _RECORD, msgspec.json.encode(record))
        return appear(made, self.place(record.id))

    def ids(self) -> list[str]:
        """Every id, sorted."""
        return sorted(place.name for place in self._directory.iterdir())

    def all(self) -> Iterator[Record]:
        """Every record, sorted by id; those that come or go meanwhile may be missing."""
        for id_ in self.ids():
            record = self.read(id_)
            if record is not None:
                yield record

    @contextmanager
    def lock(self, id_: str, patience: float = _LOCK_PATIENCE) -> Iterator[bool]:
        """Be the only one who changes the record, in any process; False when there is no record.

        Raises:
            Busy: somebody else is, and takes longer than `patience` seconds.
        """
        fd = self._wait(id_, time.monotonic() + patience)
        if fd is None:
            yield False
            return
        with _held(fd):
            yield True

    def _wait(self, id_: str, deadline: float) -> int | None:
        while is_image(id_, self._kind):
            try:
                return _acquire(self.place(id_) / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy(f"another call works on {id_}: nothing was changed, try again when it is done") from None
                time.sleep(_LOCK_PAUSE)
        return None


def _check_access(place: Path) -> None:
    """Return if this process may use the directory.

    Raises:
        PermissionError: it may not.
    """
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(place))


@contextmanager
def using(place: Path) -> Iterator[bool]:
    """Keep what is at `place` from being dropped meanwhile; False when it is gone already."""
    try:
        fd = _acquire(place / _LOCK, fcntl.LOCK_SH)
    except FileNotFoundError:
        yield False
        return
    with _held(fd):
        yield True


@contextmanager
def dropping(place: Path) -> Iterator[bool]:
    """Be the only one at `place`; False when somebody uses it, or it is gone."""
    try:
        fd = _acquire(place / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        yield False
        return
    with _held(fd):
        yield True


@contextmanager
def _held(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


def _acquire(path: Path, operation: int) -> int:
    """A descriptor that holds the flock of the file.

    Raises:
        FileNotFoundError: there is no such file, or it was renamed away while we waited.
        BlockingIOError: somebody else holds it.
    """
    # An exclusive flock needs a descriptor open for writing where it is made of byte-range locks (NFS, flock(2)).
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, operation)
        same = os.path.samestat(os.fstat(fd), path.stat())
    except BaseException:
        os.close(fd)
        raise
    if not same:
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    return fd


def remove(place: Path) -> None:
    """Delete the directory with everything in it, at once; absent is fine."""
    parent = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trash.remove(place.name, parent)
    finally:
        os.close(parent)


def appear(made: Path, place: Path) -> bool:
    """Rename the directory `made` to `place`, durably and with a lock in it; False when something is there already."""
    (made / _LOCK).touch(mode=0o600)
    try:
        made.rename(place)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    durable.sync_directory(place.parent)
    return True
