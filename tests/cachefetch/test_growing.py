from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachefetch.growing import Growing
from tests.cachefetch.fakes import opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20


def room(path: Path) -> int:
    """Bytes that the file takes of the disk."""
    return path.stat().st_blocks * 512


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 4096, 100_000, MIB, 5 * MIB]), max_size=12),
    announced=st.sampled_from([None, 0, 3 * MIB, 100 * MIB]),
    write_back=st.booleans(),
)
def test_a_file_has_what_was_appended_whatever_was_announced(
    tmp_path: Path, sizes: list[int], announced: int | None, write_back: bool
) -> None:
    path, content = tmp_path / "f", b"".join(bytes([number]) * size for number, size in enumerate(sizes))
    path.unlink(missing_ok=True)
    with opened(path) as fd:
        file, position = Growing(fd, announced=announced, write_back=write_back), 0
        for size in sizes:
            file.append(content[position : position + size])
            position += size
            assert path.stat().st_size == file.size == position, "no reader sees what is only reserved"
        file.trim()
    assert path.read_bytes() == content
    assert room(path) <= len(content) + MIB


def test_a_file_is_continued_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old " * MIB)
    with opened(path) as fd:
        Growing(fd, path.stat().st_size).append(b"new")
    assert path.read_bytes() == b"old " * MIB + b"new"


def test_room_is_reserved_for_large_files_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with opened(path) as fd:
        file = Growing(fd)
        file.append(b"x")
        assert room(path) < MIB
        file.append(bytes(2 * MIB))
        assert room(path) > 2 * MIB
        file.trim()
        assert room(path) < 3 * MIB
        file.append(bytes(2 * MIB))
    assert path.stat().st_size == 4 * MIB + 1


def test_no_more_is_reserved_than_was_announced(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with opened(path) as fd:
        Growing(fd, announced=3 * MIB).append(bytes(2 * MIB))
        assert 3 * MIB <= room(path) < 4 * MIB


def test_a_full_disk_is_an_error() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space left"):
            Growing(fd).append(b"x")
    finally:
        os.close(fd)


@pytest.mark.root
def test_the_last_room_of_a_disk_is_used(image: Callable[..., Path]) -> None:
    """What is reserved ahead must not keep out what is written; ext4 even keeps what it found of that."""
    disk = image("ext4", 48, "mkfs.ext4", "-q", "-m", "0")
    status = os.statvfs(disk)
    fits = status.f_bavail * status.f_frsize // MIB - 2
    assert fits > 32, "larger than what is reserved ahead"
    with opened(disk / "f") as fd:
        file = Growing(fd)
        for _ in range(fits):
            file.append(bytes(MIB))
        file.trim()
    assert (disk / "f").stat().st_size == fits * MIB


@pytest.mark.root
def test_a_disk_that_is_full_keeps_nothing_reserved(image: Callable[..., Path]) -> None:
    disk = image("ext4", 48, "mkfs.ext4", "-q", "-m", "0")
    with opened(disk / "f") as fd:
        file = Growing(fd)
        with pytest.raises(OSError, match="No space left"):
            while True:
                file.append(bytes(MIB))
        file.trim()
    assert room(disk / "f") <= file.size + MIB


def test_a_file_that_is_on_no_disk_grows_alike() -> None:
    fd = os.memfd_create("f")
    try:
        file = Growing(fd, write_back=True)
        file.append(bytes(2 * MIB))
        file.trim()
        assert os.fstat(fd).st_size == 2 * MIB
    finally:
        os.close(fd)
