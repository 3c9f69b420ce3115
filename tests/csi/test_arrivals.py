"""Waiting for a version: as long as asked, no longer than the caller, and for nothing that is here."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import Busy, Code, NotReady
from csi.arrivals import StoreArrivals, patience
from csi.waiters import Waiters
from tests.cachefetch.fakes import CACHE, File, publish
from tests.csi.driver import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefetch.store import Store

UNKNOWN = "0" * 64


class FakeCaller:
    """An RPC that a test ends when it likes."""

    def __init__(self, remaining: float | None = None, *, gone: bool = False) -> None:
        self.remaining = remaining
        self.gone = gone
        self.callbacks: list[Callable[[], None]] = []

    def time_remaining(self) -> float | None:
        return self.remaining

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return not self.gone

    def leave(self) -> None:
        for callback in self.callbacks:
            callback()


def arrivals(store: Store, waiters: Waiters | None = None, seconds: float = 30) -> StoreArrivals:
    return StoreArrivals(store, waiters or Waiters(), seconds)


def test_what_is_current_is_there_at_once(store: Store) -> None:
    version = publish(store, [File(b"a")])
    assert arrivals(store).wait(CACHE, "", FakeCaller()) == version.id


def test_an_older_version_is_found_by_its_id(store: Store) -> None:
    old = publish(store, [File(b"a")])
    publish(store, [File(b"b")])
    assert arrivals(store).wait(CACHE, old.id, FakeCaller()) == old.id


def test_what_is_here_needs_no_place_among_the_waiting(store: Store) -> None:
    """Else one absent cache with many pods would stop the publishes of all others."""
    version = publish(store, [File(b"a")])
    assert arrivals(store, Waiters(limit=0)).wait(CACHE, "", FakeCaller()) == version.id
    with pytest.raises(Busy):
        arrivals(store, Waiters(limit=0)).wait("absent", "", FakeCaller())


@pytest.mark.parametrize("wanted", ["", "the version"])
def test_a_version_that_arrives_is_noticed(store: Store, wanted: str) -> None:
    waiters = Waiters()
    wanted = wanted and publish(store, [File(b"a")], cache="elsewhere").id
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(arrivals(store, waiters).wait, CACHE, wanted, FakeCaller())
        until(lambda: waiters.count == 1)
        version = publish(store, [File(b"a")])
        assert waiting.result(10) == version.id
    assert waiters.count == 0


def test_the_end_of_patience_says_what_to_do(store: Store) -> None:
    waiters = Waiters()
    with pytest.raises(NotReady, match=f"cache '{CACHE}' is not on this node yet.*cachefetch refresh {CACHE}") as error:
        arrivals(store, waiters, 0.2).wait(CACHE, "", FakeCaller())
    assert error.value.code is Code.ABORTED
    with pytest.raises(NotReady, match="version 000000000000 of cache 'deps'"):
        arrivals(store, waiters, 0.01).wait(CACHE, UNKNOWN, FakeCaller())
    assert waiters.count == 0


def test_a_caller_with_little_time_still_hears_the_reason(store: Store) -> None:
    with pytest.raises(NotReady):
        arrivals(store, seconds=60).wait(CACHE, "", FakeCaller(remaining=0.3))


def test_a_caller_that_leaves_ends_its_wait(store: Store) -> None:
    waiters, caller = Waiters(), FakeCaller()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(arrivals(store, waiters).wait, CACHE, "", caller)
        until(lambda: caller.callbacks)
        caller.leave()
        with pytest.raises(Busy, match="gone"):
            waiting.result(10)
    assert waiters.count == 0


def test_a_caller_that_is_gone_already_does_not_wait(store: Store) -> None:
    with pytest.raises(Busy, match="gone"):
        arrivals(store).wait(CACHE, "", FakeCaller(gone=True))


def test_stopping_ends_every_wait(store: Store) -> None:
    waiters = Waiters()
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(arrivals(store, waiters).wait, CACHE, "", FakeCaller()) for _ in range(20)]
        until(lambda: waiters.count == 20)
        waiters.close()
        for one in waiting:
            with pytest.raises(Busy):
                one.result(10)
    assert threading.active_count() < 20


@given(st.floats(0, 1e6), st.one_of(st.none(), st.floats(-10, 1e6)))
def test_patience_ends_before_the_caller_does(seconds: float, remaining: float | None) -> None:
    result = patience(seconds, FakeCaller(remaining))
    assert 0 <= result <= seconds
    if remaining is not None and remaining > 0:
        assert result <= remaining * 0.9
