"""Waiting is bounded, and closing ends it for everybody."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from cachefetch.errors import Busy, Code
from csi.waiters import Waiters


def nobody() -> None:
    """Wakes nobody."""


def test_the_place_after_the_last_is_refused_with_aborted() -> None:
    waiters = Waiters(limit=3)
    with ExitStack() as places:
        for _ in range(3):
            places.enter_context(waiters.waiting(nobody))
        assert waiters.count == 3
        with pytest.raises(Busy, match="3 calls wait") as refused, waiters.waiting(nobody):
            pass
        assert refused.value.code is Code.ABORTED
    assert waiters.count == 0


def test_a_place_is_given_back_after_an_error() -> None:
    waiters = Waiters(limit=1)
    with pytest.raises(KeyError), waiters.waiting(nobody):
        raise KeyError
    with waiters.waiting(nobody):
        assert waiters.count == 1


def test_close_wakes_all_and_admits_none() -> None:
    waiters = Waiters(limit=5)
    ended: list[bool] = []

    def wait(started: threading.Barrier) -> None:
        event = threading.Event()
        with waiters.waiting(event.set):
            started.wait(10)
            ended.append(event.wait(30))

    barrier = threading.Barrier(5, timeout=10)
    threads = [threading.Thread(target=wait, args=(barrier,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    waiters.close()
    for thread in threads:
        thread.join(10)
    assert ended == [True] * 4
    assert waiters.count == 0
    with pytest.raises(Busy, match="stopping"), waiters.waiting(nobody):
        pass
