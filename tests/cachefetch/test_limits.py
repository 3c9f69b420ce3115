"""A budget ends a version at its limits, whatever was announced; that nothing of it stays is shown in test_stage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import OutOfSpace, UnsafeEntry
from cachefetch.limits import Budget, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_bytes_up_to_the_limit_are_fine_and_the_next_one_names_the_file(directory: int) -> None:
    budget = Budget(Limits(max_bytes=10), directory)
    budget.content(4, b"a")
    budget.content(6, b"b")
    with pytest.raises(OutOfSpace, match=r"maxBytes 10, reached at 'lib/big': raise maxBytes"):
        budget.content(1, b"lib/big")


def test_entries_up_to_the_limit_are_fine_and_no_more(directory: int) -> None:
    budget = Budget(Limits(max_entries=3), directory)
    for _ in range(3):
        budget.entry()
    with pytest.raises(UnsafeEntry, match="more than 3 entries"):
        budget.entry()


def test_no_limit_is_as_much_as_there_is_room(directory: int) -> None:
    budget = Budget(Limits(free_share=0.0), directory)
    budget.content(1 << 50, b"a")
    for _ in range(5000):
        budget.entry()


def test_a_share_of_the_file_system_stays_free(mount: Callable[..., Path]) -> None:
    """Looked at with the first bytes already, and again as they come."""
    place = mount("small", "-t", "tmpfs", "-o", "size=4m", "tmpfs")
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        Budget(Limits(), fd).content(1, b"a")
        (place / "ballast").write_bytes(bytes((4 << 20) - (64 << 10)))
        with pytest.raises(OutOfSpace, match="less than 2% of the space"):
            Budget(Limits(), fd).content(1, b"a")
    finally:
        os.close(fd)
