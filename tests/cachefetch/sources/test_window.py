from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.sources.window import ahead

if TYPE_CHECKING:
    from collections.abc import Iterator


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "ahead"}


@given(st.lists(st.integers(), max_size=50), st.integers(1, 8))
def test_results_are_in_order_and_the_threads_end(items: list[int], width: int) -> None:
    assert list(ahead(lambda item: item * 2, items, width)) == [(item, item * 2) for item in items]
    assert not threads()


def test_work_goes_on_at_once_and_no_further_than_the_width() -> None:
    meet, taken = threading.Barrier(4, timeout=30), 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 8:
            taken += 1
            yield taken

    def work(item: int) -> int:
        meet.wait()  # passes only if four work at the same time
        return item

    with closing(ahead(work, items(), 4)) as results:
        for item, _ in results:
            assert taken <= item + 3
    assert meet.n_waiting == 0


def test_a_failure_is_raised_in_its_turn_and_ends_the_rest() -> None:
    done = []

    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        done.append(item)
        return item

    seen: list[int] = []
    with pytest.raises(ValueError, match="three"), closing(ahead(work, range(1000), 2)) as results:
        seen.extend(item for item, _ in results)
    assert seen == [0, 1, 2]
    assert max(done) < 10
    assert not threads()


def test_a_reader_that_stops_ends_the_threads() -> None:
    release = threading.Event()
    started = threading.Semaphore(0)

    def work(item: int) -> int:
        started.release()
        if item:
            release.wait(30)
        return item

    results = ahead(work, range(1000), 3)
    assert next(results) == (0, 0)
    for _ in range(3):
        started.acquire(timeout=30)
    release.set()
    results.close()
    assert not threads()


def test_a_failure_of_the_items_is_raised_and_ends_the_threads() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("list")

    with pytest.raises(OSError, match="list"):
        list(ahead(lambda item: item, items(), 4))
    assert not threads()
