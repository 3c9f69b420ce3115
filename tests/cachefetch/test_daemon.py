from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cachefetch.daemon import Limits
from cachefetch.logs import fields_of
from tests.cachefetch.fakes import CACHE, File, MemorySource, publish
from tests.cachefetch.fetching import PATIENCE, Defect, Endless, Fetcher, Stuck, at_work, cache, eventually, running

if TYPE_CHECKING:
    from cachefetch.sources.base import Known, Source
    from cachefetch.stage import Stage
    from cachefetch.store import Store

Events = Callable[[str], list[Mapping[str, object]]]


def happens(times: int, events: Events, name: str) -> None:
    eventually(lambda: len(events(name)) >= times)


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Events:
    """The fields of each event of that name, so far."""
    caplog.set_level(logging.DEBUG, "cachefetch")
    return lambda name: [fields_of(record) for record in caplog.records if record.getMessage() == name]


def test_every_declared_cache_is_refreshed(store: Store, events: Events) -> None:
    sources = {name: MemorySource([File(b"a", name.encode())]) for name in ("one", "two", "three")}
    with running(store, sources, *map(cache, sources)):
        eventually(lambda: len(events("refreshed")) == 3)
    for name in sources:
        version_id = store.current(name)
        assert version_id
        assert (store.tree(name, version_id) / "a").read_text() == name


def test_a_cache_is_refreshed_again_after_its_interval_and_old_versions_go(store: Store, events: Events) -> None:
    source = MemorySource([File(b"a", b"0")])
    with running(store, {CACHE: source}, cache(interval=0.05, retain=1)):
        for number in range(1, 4):
            happens(number, events, "refreshed")
            source.items = [File(b"a", b"%d" % number)]
        happens(4, events, "refreshed")
        happens(3, events, "dropped")
        eventually(lambda: list(store.trash.iterdir()) == [])
    assert len(store.versions(CACHE)) == 1


def test_an_unchanged_cache_is_no_event_above_debug(
    store: Store, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    with running(store, {CACHE: MemorySource([File(b"a")])}, cache(interval=0.02)):
        eventually(lambda: len(events("unchanged")) >= 3)
    levels = {record.levelno for record in caplog.records if record.getMessage() == "unchanged"}
    assert levels == {logging.DEBUG}


def test_a_manual_cache_with_a_version_is_left_alone(store: Store, events: Events) -> None:
    version = publish(store, [File(b"a")])
    manual = MemorySource([File(b"a", b"new")])
    with running(store, {CACHE: manual, "other": MemorySource()}, cache(interval=None), cache("other")):
        eventually(lambda: events("refreshed"))
    assert manual.known == []
    assert store.current(CACHE) == version.id


def test_a_failure_is_retried_after_a_back_off_and_others_go_on(store: Store, events: Events) -> None:
    version = publish(store, [File(b"a")], "bad")
    bad = MemorySource(fail_resolve=True)
    with running(store, {"bad": bad, "good": MemorySource()}, cache("bad", interval=0.01), cache("good")):
        eventually(lambda: events("refreshed") and events("refresh_failed"))
    [failure] = events("refresh_failed")
    assert failure["cache"] == "bad"
    assert failure["served"] == version.id
    assert str(failure["error"]) == "the origin went away"
    assert failure["retry_s"] in range(5, 9)
    assert store.current("bad") == version.id


def test_a_recovery_is_an_event(store: Store, events: Events) -> None:
    """The change of the declaration makes it due at once, so that the test need not wait for the back-off."""
    publish(store, [File(b"a")])
    source = MemorySource([File(b"a")], fail_resolve=True)
    with running(store, {CACHE: source}, cache()) as fetcher:
        eventually(lambda: events("refresh_failed"))
        source.fail_resolve = False
        fetcher.declare(cache(retain=3))
        eventually(lambda: events("refreshed") or events("unchanged"))


def test_a_defect_of_a_source_is_logged_with_its_traceback_and_ends_nothing(
    store: Store, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    with running(store, {"bad": Defect(), "good": MemorySource()}, cache("bad"), cache("good")) as fetcher:
        eventually(lambda: events("refreshed") and events("refresh_failed"))
        fetcher.declare(cache("good", retain=3))
        eventually(lambda: events("unchanged"))
    record = next(record for record in caplog.records if record.getMessage() == "refresh_failed")
    assert record.exc_info


def test_a_new_cache_is_refreshed_at_once_and_a_withdrawn_one_no_more(store: Store, events: Events) -> None:
    old, new = MemorySource([File(b"a")]), MemorySource([File(b"b")])
    with running(store, {"old": old, "new": new}, cache("old", interval=0.02)) as fetcher:
        eventually(lambda: events("refreshed"))
        fetcher.declare(cache("new", interval=0.02))
        eventually(lambda: len(new.known) > 1)
        asked = len(old.known)
        eventually(lambda: len(new.known) > 5)
    assert len(old.known) <= asked + 1, "one that ran may have ended"


def test_the_end_interrupts_a_fetch_and_keeps_what_was_downloaded(store: Store, events: Events) -> None:
    endless = Endless()
    with running(store, {CACHE: endless}, cache()):
        assert endless.begun.wait(PATIENCE)
    assert events("interrupted") == [{"cache": CACHE}]
    assert len(list((store.root / "staging" / CACHE).glob("*/partial"))) == 1
    assert store.current(CACHE) is None


def test_the_end_does_not_wait_for_what_is_stuck(store: Store, events: Events) -> None:
    stuck = Stuck()
    with running(store, {CACHE: stuck}, cache(), grace=0.1):
        assert stuck.asked.acquire(timeout=PATIENCE)
    assert events("abandoned") == [{"cache": CACHE}]
    stuck.let_go.set()
    eventually(lambda: not at_work())


def test_no_more_than_four_work_at_a_time_and_the_fifth_gets_its_turn(store: Store, events: Events) -> None:
    stuck = Stuck()
    names = ["a", "b", "c", "d"]
    with running(store, {**dict.fromkeys(names, stuck), "e": MemorySource()}, *map(cache, [*names, "e"])):
        for _ in names:
            assert stuck.asked.acquire(timeout=PATIENCE)
        assert events("refreshed") == []
        stuck.let_go.set()
        eventually(lambda: events("refreshed"))


def test_the_number_of_refreshes_at_a_time_is_the_administrators(store: Store, events: Events) -> None:
    stuck = Stuck()
    sources: dict[str, Source] = {"a": stuck, "b": MemorySource()}
    with running(store, sources, *map(cache, sources), limits=Limits(concurrency=1)) as fetcher:
        assert stuck.asked.acquire(timeout=PATIENCE)
        assert [status.state for status in fetcher.fetches.statuses()] == ["looking", "queued"]
        stuck.let_go.set()
        eventually(lambda: events("refreshed"))


def test_the_bandwidth_slows_a_fetch_down_and_its_end_does_not_wait(store: Store, events: Events) -> None:
    """At a byte a second the second piece would have to wait for a quarter of an hour."""
    source = MemorySource([File(b"a", bytes(1000)), File(b"b", bytes(1000))])
    with running(store, {CACHE: source}, cache(), limits=Limits(bandwidth=1)) as fetcher:
        eventually(lambda: fetcher.fetches.statuses()[0].done == 1000)
    assert events("interrupted") == [{"cache": CACHE}]
    assert store.current(CACHE) is None


class Left:
    """A source whose whole content was downloaded by an earlier try."""

    def __init__(self) -> None:
        self.size = None
        self.meta: dict[str, str] = {}

    def resolve(self, known: Known | None) -> Left:
        return self

    def fill(self, stage: Stage) -> None:
        stage.recalled(2000)
        for name in (b"a", b"b"):
            stage.file(name, 0o644, 0, io.BytesIO(bytes(1000)))


def test_what_is_there_from_an_earlier_try_costs_no_bandwidth_and_is_not_counted(store: Store, events: Events) -> None:
    """At a byte a second it would take half an hour."""
    with running(store, {CACHE: Left()}, cache(), limits=Limits(bandwidth=1)) as fetcher:
        eventually(lambda: events("refreshed"))
        value = fetcher.metrics.registry.get_sample_value
        assert not value("goldlink_fetched_bytes_total", {"cache": CACHE, "source": "directory"})
    assert events("refreshed")[0]["fetched"] == 0


def test_another_process_at_work_is_no_failed_try(store: Store, events: Events) -> None:
    with store.refreshing(CACHE), running(store, {CACHE: MemorySource()}, cache()) as fetcher:
        eventually(lambda: events("refresh_failed"))
        eventually(lambda: fetcher.fetches.statuses()[0].state == "failed")
        assert fetcher.fetches.statuses()[0].failures == 0


def test_what_happened_is_counted(store: Store, events: Events) -> None:
    source = MemorySource([File(b"a", b"12345")])
    sources = {CACHE: source, "bad": MemorySource(fail_resolve=True)}
    with running(store, sources, cache(), cache("bad")) as fetcher:
        eventually(lambda: events("refreshed") and events("refresh_failed"))
        value = fetcher.metrics.registry.get_sample_value
        assert value("goldlink_fetched_bytes_total", {"cache": CACHE, "source": "directory"}) == 5
        for result in ("changed", "unavailable"):
            labels = {"source": "directory", "result": result}
            eventually(partial(value, "goldlink_refresh_seconds_count", labels))


def test_waiting_ends_when_another_thread_stops_the_daemon(store: Store) -> None:
    fetcher = Fetcher(store, {})
    fetcher.daemon.start()
    threading.Timer(0.05, fetcher.daemon.stop).start()
    fetcher.daemon.wait()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_daemon_that_dies_is_no_orderly_end(store: Store) -> None:
    fetcher = Fetcher(store, {}, Limits(concurrency="many"))  # type: ignore[arg-type]  # to kill the schedule
    fetcher.daemon.start()
    with pytest.raises(RuntimeError, match="has died"):
        fetcher.daemon.wait()
    fetcher.daemon.stop()
