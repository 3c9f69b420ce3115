"""Sealing: an image that nobody writes to any more becomes an immutable one with a block list.

sealed/<key>/{image, blocks, lock}
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cachefetch import durable
from cachefetch.errors import Busy, NotReady
from cachefetch.model import short_id
from csi.disks import blocks, files, tools
from csi.disks.model import Filesystem, Seal

if TYPE_CHECKING:
    from pathlib import Path

    from cachefetch.store import Store
    from csi.disks.files import DiskFiles
    from csi.disks.jobs import Task

_COPY = 16 << 20  # bytes of one copy_file_range(2); between two, progress is told


def seal_version(disk_files: DiskFiles, store: Store, cache: str, version: str, task: Task) -> Seal:
    """The sealed EROFS image of the version, made when there is none. One image per version, whoever makes it.

    Raises:
        NotReady: the version was dropped meanwhile.
        OutOfSpace: there is no room for the image.
    """
    found = find(disk_files, version, Filesystem.EROFS)
    if found is not None:
        return found
    disk_files.discard(disk_files.sealed / version)  # what is there has lost a file
    with disk_files.making() as place, store.pin(cache):
        if not store.has(cache, version):
            raise NotReady(f"version {short_id(version)} of cache {cache!r} was dropped meanwhile: it is tried again")
        task.begin(f"the image of version {short_id(version)} is being written")
        tools.make_erofs(store.tree(cache, version), place / "image", task)
        return _finish(disk_files, place, version, Filesystem.EROFS, task)


def seal_image(disk_files: DiskFiles, image: Path, task: Task) -> Seal:
    """A sealed copy of the ext4 image, which nobody writes to meanwhile.

    Raises:
        OutOfSpace: there is no room for the copy.
        Precondition: the file system is damaged.
    """
    with disk_files.making() as place:
        copy(image, place / "image", task)
        task.begin("the file system of the copy is being checked")
        tools.mend_ext4(place / "image", task)
        return _finish(disk_files, place, "", Filesystem.EXT4, task)


def find(disk_files: DiskFiles, key: str, filesystem: Filesystem) -> Seal | None:
    """The sealed image with that key; None when there is none."""
    try:
        listed = disk_files.sealed_blocks(key).read_bytes()
        size = disk_files.sealed_image(key).stat().st_size
    except FileNotFoundError:
        return None
    return Seal(key=key, filesystem=filesystem, blocks=blocks.digest(listed), size=size)


def copy(source: Path, target: Path, task: Task) -> None:
    """Copy a file with its holes; blocks are shared where the file system can (copy_file_range(2))."""
    with source.open("rb") as reading, target.open("xb") as writing:
        size = os.fstat(reading.fileno()).st_size
        task.begin("the image is being copied", size)
        writing.truncate(size)
        position = 0
        with suppress(_NoMoreData):
            while position < size:
                start, end = _extent(reading.fileno(), position)
                task.advance(start - position)
                _copy_range(reading.fileno(), writing.fileno(), start, end, task)
                position = end
        os.fsync(writing.fileno())


class _NoMoreData(Exception):
    """Only a hole is left."""


def _extent(fd: int, position: int) -> tuple[int, int]:
    """The next part of the file that is no hole."""
    try:
        start = os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _NoMoreData from error
        raise
    return start, os.lseek(fd, start, os.SEEK_HOLE)


def _copy_range(source: int, target: int, start: int, end: int, task: Task) -> None:
    while start < end:
        count = os.copy_file_range(source, target, min(_COPY, end - start), start, start)
        if not count:
            raise Busy("the image became shorter while it was copied: try again")
        start += count
        task.advance(count)


def _finish(disk_files: DiskFiles, place: Path, key: str, filesystem: Filesystem, task: Task) -> Seal:
    """Compute the block list, make all of it durable and let it appear; the first of two equal ones stays."""
    image = place / "image"
    image.chmod(0o400)
    size = image.stat().st_size
    task.begin("the image is being hashed", size)
    listed = blocks.compute(image, task.advance)
    key = key or blocks.digest(listed)
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    durable.replace(place / "blocks", listed)
    files.appear(place, disk_files.sealed / key)
    found = find(disk_files, key, filesystem)
    if found is None:
        raise Busy(f"the image {short_id(key)} was dropped while it was made: try again")
    return found
