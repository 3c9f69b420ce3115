from __future__ import annotations

import errno
import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachefetch.spool import Spool
from tests.cachefetch.fakes import opened

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 1 << 19


def chunks(sizes: list[int]) -> list[bytes]:
    return [bytes([number + 1]) * size for number, size in enumerate(sizes)]


SIZES = st.lists(st.sampled_from([1, 100, 4096, 100_000, BLOCK, 3 * BLOCK + 1]), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(first=SIZES, second=SIZES, position=st.integers(0, 20 * BLOCK), size=st.integers(0, 2 * BLOCK))
def test_whatever_is_added_now_or_by_an_earlier_process_is_there(
    tmp_path: Path, first: list[int], second: list[int], position: int, size: int
) -> None:
    """In the file after a flush, and for who reads before."""
    path = tmp_path / "spool"
    path.unlink(missing_ok=True)
    content = b""
    for sizes in (first, second):
        with opened(path) as fd:
            spool = Spool(fd, len(content))
            for chunk in chunks(sizes):
                spool.append(chunk)
                content += chunk
            assert spool.size == len(content)
            if position < spool.size:
                found = spool.read(size, position)
                assert content[position:].startswith(found)
                assert bool(found) == bool(size)
            spool.flush()
            assert path.read_bytes() == content
            spool.flush()
            spool.close()
    assert path.read_bytes() == content


def test_a_killed_process_loses_less_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    content = os.urandom(5 * BLOCK + 12345)
    with opened(path) as fd:
        spool = Spool(fd)
        for start in range(0, len(content), 100_000):
            spool.append(content[start : start + 100_000])
        spool.close()
    left = path.read_bytes()
    assert content.startswith(left)
    assert len(content) - len(left) < BLOCK


@pytest.mark.parametrize("announced", [None, 3 * BLOCK])
def test_room_that_was_reserved_is_given_back(tmp_path: Path, announced: int | None) -> None:
    path = tmp_path / "spool"
    with opened(path) as fd:
        spool = Spool(fd, announced=announced)
        spool.append(bytes(3 * BLOCK))
        spool.flush()
        spool.close()
    assert path.stat().st_blocks * 512 == 3 * BLOCK


def test_a_file_system_without_direct_writes_gets_plain_ones() -> None:
    fd = os.memfd_create("spool")
    try:
        spool = Spool(fd)
        spool.append(bytes(BLOCK) + b"end")
        spool.flush()
        spool.close()
        assert os.fstat(fd).st_size == BLOCK + 3
        assert os.pread(fd, 10, BLOCK) == b"end"
    finally:
        os.close(fd)


def test_what_does_not_fit_is_an_error_and_can_be_closed(tmp_path: Path) -> None:
    path, limit = tmp_path / "spool", resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK, limit[1]))
    try:
        with opened(path) as fd:
            spool = Spool(fd)
            with pytest.raises(OSError, match="File too large") as caught:
                spool.append(bytes(3 * BLOCK))
            assert caught.value.errno == errno.EFBIG
            spool.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert path.stat().st_size == BLOCK
