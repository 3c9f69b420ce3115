from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from cachefetch import asking
from cachefetch.asking import Arrived
from cachefetch.config import Prefetch
from cachefetch.errors import Precondition, UnknownCache, UnknownVersion
from cachefetch.fetches import Stopping
from cachefetch.nodes import Node
from cachefetch.work import Ended, State, Status
from tests.cachefetch.fakes import CACHE, File, MemorySource, publish
from tests.cachefetch.fetching import PATIENCE, Stuck, at_work, cache, eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefetch.store import Store

UNKNOWN = "0" * 64


def ended(news: Iterator[tuple[str, Status | Ended]]) -> dict[str, Ended]:
    """How each ended, in the order in which it did."""
    return {name: one for name, one in news if isinstance(one, Ended)}


def test_what_is_asked_for_is_fetched_although_nobody_prefetches_it(store: Store) -> None:
    with running(store, {CACHE: MemorySource([File(b"a")])}, cache(prefetch=Prefetch.ON_DEMAND)) as fetcher:
        *before, last = asking.ensure(fetcher.fetches, CACHE, "")
    assert last == Arrived(store.current(CACHE) or "")
    assert all(isinstance(one, Status) for one in before)


def test_a_failure_is_told_and_waited_out(store: Store) -> None:
    source = MemorySource([File(b"a")], fail_resolve=True)
    with running(store, {CACHE: source}, cache()) as fetcher:
        for news in asking.ensure(fetcher.fetches, CACHE, ""):
            if isinstance(news, Status) and news.state is State.FAILED:
                assert news.error == "the origin went away"
                source.fail_resolve = False
                fetcher.fetches.hurry([CACHE])
    assert isinstance(news, Arrived)


def test_a_version_that_the_running_refresh_began_too_early_for_is_looked_for_once_more(store: Store) -> None:
    """What runs may have asked the source before it had the version."""
    wanted = publish(store, [File(b"new")], "elsewhere").id
    source = MemorySource([File(b"old")])
    stuck = Stuck(then=source)
    with running(store, {CACHE: stuck}, cache()) as fetcher, ThreadPoolExecutor(1) as pool:
        assert stuck.asked.acquire(timeout=PATIENCE)
        result = pool.submit(lambda: list(asking.ensure(fetcher.fetches, CACHE, wanted))[-1])
        eventually(lambda: fetcher.fetches._timetable._rows[CACHE].again)
        stuck.let_go.set()
        eventually(lambda: store.current(CACHE))
        source.items = [File(b"new")]
        # The second look may have come before the change; then the answer is that the source has another one.
        with suppress(UnknownVersion):
            assert result.result(PATIENCE) == Arrived(wanted)
    assert len(source.known) == 2


def test_a_version_that_the_source_has_no_more_is_an_error_at_once(store: Store) -> None:
    with (
        running(store, {CACHE: MemorySource([File(b"a")])}, cache()) as fetcher,
        pytest.raises(UnknownVersion, match="its source gives"),
    ):
        list(asking.ensure(fetcher.fetches, CACHE, UNKNOWN))


def test_a_refresh_looks_now_and_tells_each_cache(store: Store) -> None:
    good, bad = MemorySource([File(b"a")]), MemorySource(fail_resolve=True)
    with running(store, {"good": good, "bad": bad}, cache("good", interval=None), cache("bad")) as fetcher:
        eventually(lambda: store.current("good") and fetcher.fetches.statuses()[1].failures)
        good.items = [File(b"b")]
        results = ended(asking.refresh(fetcher.fetches, {"good": "", "bad": ""}))
        assert results["bad"].error == "the origin went away"
        refreshed = results["good"].refreshed
        assert refreshed
        assert refreshed.changed
        assert refreshed.version.id == store.current("good")
        assert len(bad.known) >= 2, "the back-off was skipped"


def test_a_refresh_is_not_answered_by_what_looked_earlier(store: Store) -> None:
    source = MemorySource([File(b"old")])
    stuck = Stuck(then=source)
    with running(store, {CACHE: stuck}, cache()) as fetcher, ThreadPoolExecutor(1) as pool:
        assert stuck.asked.acquire(timeout=PATIENCE)
        result = pool.submit(lambda: ended(asking.refresh(fetcher.fetches, {CACHE: ""})))
        eventually(lambda: fetcher.fetches._timetable._rows[CACHE].again)
        stuck.let_go.set()
        refreshed = result.result(PATIENCE)[CACHE].refreshed
    assert len(source.known) == 2
    assert refreshed
    assert refreshed.changed, "since it was asked for, although the last look found nothing new"


def test_the_dropped_versions_are_told(store: Store) -> None:
    source = MemorySource([File(b"1")])
    with running(store, {CACHE: source}, cache(retain=1)) as fetcher:
        eventually(lambda: fetcher.fetches.statuses()[0].state is State.IDLE)
        first = store.current(CACHE)
        source.items = [File(b"2")]
        [result] = ended(asking.refresh(fetcher.fetches, {CACHE: ""})).values()
    assert [version.id for version in result.dropped] == [first]


def test_watching_tells_every_cache_and_then_what_changes(store: Store) -> None:
    source = MemorySource([File(b"a")])
    with running(store, {CACHE: source}, cache(prefetch=Prefetch.ON_DEMAND)) as fetcher:
        gone = threading.Event()
        news = asking.watch(fetcher.fetches, gone.is_set)
        assert next(news).state is State.IDLE
        fetcher.fetches.demand(CACHE, "")
        seen = []
        for status in news:
            seen.append(status.state)
            if status.current and status.state is State.IDLE:
                gone.set()
    assert seen[-1] is State.IDLE
    assert all(one is not two for one, two in pairwise(seen) if one is State.IDLE)


def test_a_cache_that_is_withdrawn_while_somebody_waits_is_unknown(store: Store) -> None:
    stuck = Stuck()
    with running(store, {CACHE: stuck}, cache()) as fetcher:
        news = asking.ensure(fetcher.fetches, CACHE, "")
        next(news)
        fetcher.declare()
        with pytest.raises(UnknownCache):
            list(news)
        stuck.let_go.set()


def test_a_cache_that_the_node_ceases_to_hold_while_somebody_waits_is_refused(store: Store) -> None:
    stuck = Stuck()
    with running(store, {CACHE: stuck}, replace(cache(), node_selector={"disk": "ssd"})) as fetcher:
        news = asking.ensure(fetcher.fetches, CACHE, "")
        next(news)
        fetcher.fetches.locate(Node("node-1", {}))
        with pytest.raises(Precondition, match="node 'node-1' has not disk=ssd"):
            list(news)
        stuck.let_go.set()


def test_a_refresh_of_all_is_none_of_what_the_node_does_not_hold_and_says_so(store: Store) -> None:
    elsewhere = replace(cache("elsewhere"), node_selector={"disk": "ssd"})
    with running(store, {CACHE: MemorySource([File(b"a")])}, cache(interval=None)) as fetcher:
        fetcher.fetches.locate(Node("node-1", {}))
        fetcher.declare(elsewhere, cache(interval=None))
        result = ended(asking.refresh(fetcher.fetches, {"elsewhere": "", CACHE: ""}))
    assert "node 'node-1' has not disk=ssd" in result["elsewhere"].error
    assert result[CACHE].refreshed


def test_the_end_is_told_to_everybody_who_waits(store: Store) -> None:
    stuck = Stuck()
    with running(store, {CACHE: stuck}, cache(), grace=0.1) as fetcher:
        waiting = [
            asking.ensure(fetcher.fetches, CACHE, ""),
            asking.refresh(fetcher.fetches, {CACHE: ""}),
            asking.watch(fetcher.fetches, lambda: False),
        ]
        for one in waiting:
            next(one)
    for one in waiting:
        with pytest.raises(Stopping):
            list(one)
    stuck.let_go.set()
    eventually(lambda: not at_work())
