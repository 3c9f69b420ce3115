"""The system calls report errors with errno and path, and the probes tell what this kernel has."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path("/no/such/place")


def at_least(*version: int) -> bool:
    return tuple(int(part) for part in os.uname().release.split(".")[:2]) >= version


def test_probes_agree_with_the_kernels_version() -> None:
    assert syscalls.has_set_attributes() == at_least(5, 12)
    assert syscalls.has_mount_of() == at_least(5, 8)


@pytest.mark.root
@pytest.mark.parametrize(
    ("call", "number", "path"),
    [
        (lambda: syscalls.mount("", HERE, syscalls.MS_BIND), errno.ENOENT, str(HERE)),
        (lambda: syscalls.umount(HERE, 0), errno.ENOENT, str(HERE)),
        (lambda: syscalls.clone_tree(-1), errno.EBADF, "/proc/self/fd/-1"),
        (lambda: syscalls.set_attributes(-1, syscalls.MOUNT_ATTR_RDONLY, 0), errno.EBADF, "/proc/self/fd/-1"),
        (lambda: syscalls.attach(-1, -1), errno.EBADF, "/proc/self/fd/-1"),
        (lambda: syscalls.mount_of(-1), errno.EBADF, "/proc/self/fd/-1"),
        (lambda: syscalls.new_mount("no such file system", {}, 0), errno.ENODEV, "no such file system"),
    ],
)
def test_refusals_keep_errno_and_path(call: Callable[[], object], number: int, path: str) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert (caught.value.errno, caught.value.filename) == (number, path)


def test_mount_of_agrees_with_fdinfo() -> None:
    fd = os.open("/proc", syscalls.O_LOOK)
    try:
        mount_id, mount_root = syscalls.mount_of(fd)
        assert mount_root
        assert f"mnt_id:\t{mount_id}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)


def test_fd_path_names_the_very_place(tmp_path: Path) -> None:
    """Also when another directory has taken its name since."""
    place = tmp_path / "place"
    place.mkdir()
    fd = os.open(place, syscalls.O_DIRECTORY)
    try:
        place.rename(tmp_path / "moved")
        place.mkdir()
        assert syscalls.fd_path(fd).stat().st_ino == (tmp_path / "moved").stat().st_ino
    finally:
        os.close(fd)


def test_a_symlink_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        os.open(tmp_path / "link", syscalls.O_DIRECTORY)
