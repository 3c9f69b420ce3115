"""Waiting for a version: as long as asked, no longer than the caller, whatever becomes of the fetcher meanwhile."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from cachefetch.errors import Busy, Code, InvalidRequest, NotReady, Precondition, SourceError, UnknownVersion
from cachefetch.nodes import Node
from cachefetch.sockets import fetch_socket
from csi.fetch_client import FetchArrivals
from csi.requests import Pod
from csi.waiters import Waiters
from tests.cachefetch.fakes import CACHE, File, MemorySource, publish
from tests.cachefetch.fetching import PATIENCE, Endless, Stuck, cache, running
from tests.csi.caller import FakeCaller
from tests.csi.driver import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefetch.store import Store

UNKNOWN = "0" * 64
A_LOT = 60.0


@contextmanager
def arrivals(store: Store, waiters: Waiters | None = None, seconds: float = 30) -> Iterator[FetchArrivals]:
    made = FetchArrivals(store, waiters or Waiters(), seconds, fetch_socket(store.root))
    try:
        yield made
    finally:
        made.close()


def wait(store: Store, cache: str = CACHE, version: str = "", *, seconds: float = A_LOT) -> str:
    with arrivals(store, seconds=seconds) as waiting:
        return waiting.wait(cache, version, FakeCaller())


# Without a fetcher


def test_what_is_current_is_there_at_once(store: Store) -> None:
    version = publish(store, [File(b"a")])
    assert wait(store) == version.id


def test_an_older_version_is_found_by_its_id(store: Store) -> None:
    old = publish(store, [File(b"a")])
    publish(store, [File(b"b")])
    assert wait(store, version=old.id) == old.id


def test_what_is_here_needs_no_place_among_the_waiting(store: Store) -> None:
    """Else one absent cache with many pods would stop the publishes of all others."""
    version = publish(store, [File(b"a")])
    with arrivals(store, Waiters(limit=0)) as waiting:
        assert waiting.wait(CACHE, "", FakeCaller()) == version.id
        with pytest.raises(Busy):
            waiting.wait("absent", "", FakeCaller())


@pytest.mark.parametrize("wanted", ["", "the version"])
def test_a_version_that_arrives_without_a_fetcher_is_noticed(store: Store, wanted: str) -> None:
    waiters = Waiters()
    wanted = wanted and publish(store, [File(b"a")], cache="elsewhere").id
    with arrivals(store, waiters) as waiting, ThreadPoolExecutor(1) as pool:
        result = pool.submit(waiting.wait, CACHE, wanted, FakeCaller())
        until(lambda: waiters.count == 1)
        version = publish(store, [File(b"a")])
        assert result.result(10) == version.id
    assert waiters.count == 0


def test_the_end_of_patience_says_what_to_do(store: Store) -> None:
    with pytest.raises(NotReady, match=f"cache '{CACHE}' is not on this node yet.*cachefetch refresh {CACHE}") as error:
        wait(store, seconds=0.2)
    assert error.value.code is Code.ABORTED
    with pytest.raises(NotReady, match="version 000000000000 of cache 'deps'"):
        wait(store, version=UNKNOWN, seconds=0.01)


def test_a_caller_with_little_time_still_hears_the_reason(store: Store) -> None:
    with arrivals(store) as waiting, pytest.raises(NotReady):
        waiting.wait(CACHE, "", FakeCaller(remaining=0.3))


def test_a_caller_that_is_gone_already_does_not_wait(store: Store) -> None:
    with arrivals(store) as waiting, pytest.raises(Busy, match="gone"):
        waiting.wait(CACHE, "", FakeCaller(gone=True))


@pytest.mark.parametrize("fetcher", [False, True])
def test_a_caller_that_leaves_ends_its_wait(store: Store, fetcher: bool) -> None:
    waiters, caller, stuck = Waiters(), FakeCaller(), Stuck()
    with running(store, {CACHE: stuck}, cache(), serve=fetcher), arrivals(store, waiters) as waiting:
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(waiting.wait, CACHE, "", caller)
            until(lambda: caller.callbacks)
            caller.leave()
            with pytest.raises(Busy, match="gone"):
                result.result(10)
        assert waiters.count == 0
        stuck.let_go.set()


@pytest.mark.parametrize("fetcher", [False, True])
def test_stopping_ends_every_wait(store: Store, fetcher: bool) -> None:
    waiters, stuck = Waiters(), Stuck()
    with running(store, {CACHE: stuck}, cache(), serve=fetcher), arrivals(store, waiters) as waiting:
        with ThreadPoolExecutor(20) as pool:
            results = [pool.submit(waiting.wait, CACHE, "", FakeCaller()) for _ in range(20)]
            until(lambda: waiters.count == 20)
            waiters.close()
            for one in results:
                with pytest.raises(Busy):
                    one.result(10)
        stuck.let_go.set()


# With one


def test_the_fetcher_hears_for_which_pod_it_is(store: Store) -> None:
    stuck, pod = Stuck(), Pod("team-a", name="web-0", uid="uid")
    with running(store, {CACHE: stuck}, cache(), serve=True) as fetcher, arrivals(store) as waiting:
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(waiting.wait, CACHE, "", FakeCaller(), pod)
            until(lambda: [wait.pod for wait in fetcher.waiting.all()] == [("team-a", "web-0", "uid")])
            stuck.then = MemorySource([File(b"a")])
            stuck.let_go.set()
            assert result.result(10) == store.current(CACHE)
        until(lambda: not fetcher.waiting.all())


def test_an_absent_cache_is_fetched_and_its_version_given(store: Store) -> None:
    with running(store, {CACHE: MemorySource([File(b"a")])}, cache(interval=None), serve=True):
        assert wait(store) == store.current(CACHE)


def test_a_version_that_its_source_still_has_is_fetched_although_another_is_current(store: Store) -> None:
    new = publish(store, [File(b"new")], "elsewhere")
    old = publish(store, [File(b"old")])
    source = MemorySource([File(b"old")])
    with running(store, {CACHE: source}, cache(), serve=True) as fetcher:
        until(lambda: fetcher.fetches.statuses()[0].state == "idle")
        source.items = [File(b"new")]
        assert wait(store, version=new.id) == new.id
    assert store.has(CACHE, old.id)


def test_a_version_that_its_source_has_no_more_is_not_found_and_the_one_it_has_is_named(store: Store) -> None:
    with (
        running(store, {CACHE: MemorySource([File(b"a")])}, cache(), serve=True),
        pytest.raises(UnknownVersion, match=r"no version 000000000000 here, and its source gives [0-9a-f]{12} now"),
    ):
        wait(store, version=UNKNOWN)


def test_a_cache_that_the_fetcher_does_not_know_is_not_found(store: Store) -> None:
    with (
        running(store, {}, serve=True),
        pytest.raises(UnknownVersion, match="no cache 'deps': declared are none"),
    ):
        wait(store)


def test_a_cache_that_this_node_does_not_hold_is_refused_at_once(store: Store) -> None:
    with running(store, {}, replace(cache(interval=None), node_selector={"disk": "ssd"}), serve=True) as fetcher:
        fetcher.fetches.locate(Node("node-1", {}))
        with pytest.raises(Precondition, match="is for nodes with disk=ssd, and node 'node-1' has not disk=ssd"):
            wait(store, seconds=PATIENCE * 10)


def test_a_cache_is_waited_for_until_the_labels_of_the_node_are_known(store: Store) -> None:
    selective = replace(cache(interval=None), node_selector={"disk": "ssd"})
    with running(store, {CACHE: MemorySource([File(b"a")])}, serve=True) as fetcher, ThreadPoolExecutor(1) as pool:
        fetcher.fetches.locate(Node("node-1"))
        fetcher.declare(selective)
        result = pool.submit(wait, store)
        fetcher.fetches.locate(Node("node-1", {"disk": "ssd"}))
        assert result.result(PATIENCE) == store.current(CACHE)


def test_a_malformed_version_is_refused(store: Store) -> None:
    publish(store, [File(b"a")])
    with (
        running(store, {CACHE: MemorySource()}, cache(), serve=True),
        pytest.raises(InvalidRequest, match="version id"),
    ):
        wait(store, "other", "latest")


def test_out_of_patience_the_caller_hears_how_far_it_is(store: Store) -> None:
    endless = Endless(size=1 << 30)
    with running(store, {CACHE: endless}, cache(), serve=True):
        assert endless.begun.wait(PATIENCE)
        with pytest.raises(NotReady, match=r"yet \(fetching .* of 1.0 GiB, 0%, .* left\); the mount is tried again"):
            wait(store, seconds=1.5)


def test_a_failure_that_is_not_tried_again_in_time_is_told_at_once(store: Store) -> None:
    source = MemorySource(error=SourceError("the origin is away: connect it"), fail_resolve=True)
    with (
        running(store, {CACHE: source}, cache(), serve=True),
        pytest.raises(NotReady, match=r"\(last try failed: the origin is away: connect it; next in \d"),
    ):
        wait(store, seconds=4)


def test_a_fetcher_that_comes_later_is_used(store: Store) -> None:
    waiters = Waiters()
    with arrivals(store, waiters) as waiting, ThreadPoolExecutor(1) as pool:
        result = pool.submit(waiting.wait, CACHE, "", FakeCaller())
        until(lambda: waiters.count == 1)
        with running(store, {CACHE: MemorySource([File(b"a")])}, cache(interval=None), serve=True):
            assert result.result(10) == store.current(CACHE)


def test_a_fetcher_that_stops_and_comes_back_is_waited_for_in_the_same_call(store: Store) -> None:
    waiters, stuck = Waiters(), Stuck()
    with arrivals(store, waiters) as waiting, ThreadPoolExecutor(30) as pool:
        with running(store, {CACHE: stuck}, cache(), serve=True, grace=0.1) as fetcher:
            results = [pool.submit(waiting.wait, CACHE, "", FakeCaller()) for _ in range(30)]
            until(lambda: fetcher.metrics.registry.get_sample_value("goldlink_fetch_waiting_calls") == 30)
        stuck.let_go.set()
        until(lambda: CACHE not in {thread.name for thread in threading.enumerate()})
        with running(store, {CACHE: MemorySource([File(b"a")])}, cache(interval=None), serve=True):
            assert {one.result(20) for one in results} == {store.current(CACHE)}


def test_what_a_dead_fetcher_left_is_no_fetcher(store: Store) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(fetch_socket(store.root)))
    with pytest.raises(NotReady, match="no fetcher is running"):
        wait(store, seconds=0.2)
