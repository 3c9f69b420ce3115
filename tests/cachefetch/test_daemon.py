from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from cachefetch.config import Cache, Config, Directory, Refresh
from cachefetch.daemon import Daemon
from cachefetch.errors import SourceError
from cachefetch.logs import fields_of
from cachefetch.units import Duration
from tests.cachefetch.fakes import CACHE, File, MemorySource, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefetch.config import AnySource
    from cachefetch.sources.base import Known, Source
    from cachefetch.stage import Stage
    from cachefetch.store import Store

PATIENCE = 30.0
Events = Callable[[str], list[Mapping[str, object]]]


def eventually(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def happens(times: int, events: Events, name: str) -> None:
    eventually(lambda: len(events(name)) >= times)


def cache(name: str = CACHE, *, interval: float | None = 3600, retain: int = 2, path: str | None = None) -> Cache:
    refresh = Refresh(manual=True) if interval is None else Refresh(interval=Duration(interval))
    return Cache(name=name, source=Directory(path=path or f"/{name}"), refresh=refresh, retain=retain)


def config(*caches: Cache) -> Config:
    return Config(caches=caches)


@dataclass
class Origins:
    """Sources by the path that the configuration gives."""

    sources: Mapping[str, Source]

    def __call__(self, config: AnySource) -> Source:
        assert isinstance(config, Directory)
        return self.sources[config.path[1:]]


@dataclass
class Endless:
    """A source that delivers for ever, and notes what it left in the stage's scratch directory."""

    size: int | None = None
    meta: dict[str, str] = field(default_factory=dict)
    begun: threading.Event = field(default_factory=threading.Event)

    def resolve(self, known: Known | None) -> Endless:
        return self

    def read(self, size: int, /) -> bytes:
        self.begun.set()
        time.sleep(0.001)
        return bytes(min(size, 1024))

    def fill(self, stage: Stage) -> None:
        (stage.scratch / "partial").touch()
        stage.file(b"endless", 0o644, 0, self)


@dataclass
class Stuck:
    """A source that does not answer before it is let go."""

    let_go: threading.Event = field(default_factory=threading.Event)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def resolve(self, known: Known | None) -> None:
        self.asked.release()
        self.let_go.wait(PATIENCE)
        raise SourceError("let go")


class Defect:
    """A source with a programming error."""

    def resolve(self, known: Known | None) -> None:
        raise ZeroDivisionError


@contextmanager
def running(store: Store, sources: Mapping[str, Source], *caches: Cache, grace: float = 8.0) -> Iterator[Daemon]:
    daemon = Daemon(store, Origins(sources))
    daemon.declare(config(*caches))
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop(grace)


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
    with running(store, {CACHE: source}, cache()) as daemon:
        eventually(lambda: events("refresh_failed"))
        source.fail_resolve = False
        daemon.declare(config(cache(retain=3)))
        eventually(lambda: events("refreshed") or events("unchanged"))


def test_a_defect_of_a_source_is_logged_with_its_traceback_and_ends_nothing(
    store: Store, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    with running(store, {"bad": Defect(), "good": MemorySource()}, cache("bad"), cache("good")) as daemon:
        eventually(lambda: events("refreshed") and events("refresh_failed"))
        daemon.declare(config(cache("good", retain=3)))
        eventually(lambda: events("unchanged"))
    record = next(record for record in caplog.records if record.getMessage() == "refresh_failed")
    assert record.exc_info


def test_a_new_cache_is_refreshed_at_once_and_a_withdrawn_one_no_more(store: Store, events: Events) -> None:
    old, new = MemorySource([File(b"a")]), MemorySource([File(b"b")])
    with running(store, {"old": old, "new": new}, cache("old", interval=0.02)) as daemon:
        eventually(lambda: events("refreshed"))
        daemon.declare(config(cache("new", interval=0.02)))
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
    eventually(lambda: CACHE not in {thread.name for thread in threading.enumerate()})


def test_no_more_than_four_work_at_a_time_and_the_fifth_gets_its_turn(store: Store, events: Events) -> None:
    stuck = Stuck()
    names = ["a", "b", "c", "d"]
    with running(store, {**dict.fromkeys(names, stuck), "e": MemorySource()}, *map(cache, [*names, "e"])):
        for _ in names:
            assert stuck.asked.acquire(timeout=PATIENCE)
        assert events("refreshed") == []
        stuck.let_go.set()
        eventually(lambda: events("refreshed"))


def test_waiting_ends_when_another_thread_stops_the_daemon(store: Store) -> None:
    daemon = Daemon(store, Origins({}))
    daemon.start()
    threading.Timer(0.05, daemon.stop).start()
    daemon.wait()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_daemon_that_dies_is_no_orderly_end(store: Store) -> None:
    def broken_clock() -> float:
        raise ZeroDivisionError

    daemon = Daemon(store, Origins({}), clock=broken_clock)
    daemon.start()
    with pytest.raises(RuntimeError, match="has died"):
        daemon.wait()
    daemon.stop()
