"""The cluster hears of everything that is new, once, and of nothing else; whatever it answers, the fetcher goes on."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from cachefetch.cluster import ApiError
from cachefetch.records import VolumeRecord
from cachefetch.reporter import NodeCaches, NodeLabels, PodEvents, Reporter
from cachefetch.reports import Place
from cachefetch.waiting import Pod
from cachefetch.work import State, Status
from tests.cachefetch.fakes import CACHE, File, MemorySource, publish
from tests.cachefetch.fetching import Fetcher, Stuck, cache, eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cachefetch.store import Store

PLACE = Place("node-1", Pod("goldlink", "goldlink-node-x", "uid-of-the-fetcher"))
POD = Pod("team-a", "web-0", "uid-1")
HOUR = 3600.0


@dataclass
class FakeApi:
    """Keeps objects by their paths, and counts calls."""

    objects: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    applied: int = 0
    failure: ApiError | None = None
    refused: str = ""
    """Of a path that the server does not take."""
    node: dict[str, str] = field(default_factory=dict)
    """The labels of `PLACE`'s node, the only one."""

    def apply(self, path: str, thing: Mapping[str, Any]) -> None:
        self.applied += 1
        self._check()
        if self.refused and self.refused in path:
            raise ApiError("refused", 422)
        self.objects[path] = thing

    def delete(self, path: str) -> None:
        self._check()
        self.objects.pop(path, None)

    def names(self, path: str, selector: str) -> list[str]:
        self._check()
        key, _, value = selector.partition("=")
        found = {at: thing for at, thing in self.objects.items() if at.startswith(path)}
        return [at.rpartition("/")[2] for at, thing in found.items() if thing["metadata"]["labels"].get(key) == value]

    def labels(self, path: str) -> dict[str, str]:
        self._check()
        assert path == f"/api/v1/nodes/{PLACE.node}"
        return dict(self.node)

    def _check(self) -> None:
        if self.failure:
            raise self.failure


@dataclass
class Clock:
    now: float = 10_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fetcher(store: Store) -> Fetcher:
    """What is declared, without a daemon that changes it meanwhile."""
    made = Fetcher(store, {})
    made.declare(cache(interval=None))
    return made


@pytest.fixture
def caches(api: FakeApi, store: Store, fetcher: Fetcher, clock: Clock) -> NodeCaches:
    return NodeCaches(api, PLACE, store, fetcher.fetches, clock)


@pytest.fixture
def events(api: FakeApi, store: Store, fetcher: Fetcher, clock: Clock) -> PodEvents:
    return PodEvents(api, PLACE, store, fetcher.fetches, fetcher.waiting, wall=clock)


def told(api: FakeApi) -> list[Any]:
    return list(api.objects.values())


# Caches


def test_each_cache_is_told_once(api: FakeApi, caches: NodeCaches, store: Store) -> None:
    version = publish(store, [File(b"a")])
    publish(store, [File(b"a")], cache="undeclared")
    for _ in range(3):
        caches.look()
    assert {thing["cache"]: thing["state"] for thing in told(api)} == {CACHE: "Ready", "undeclared": "Undeclared"}
    assert next(iter(told(api)))["current"]["id"] == version.id
    assert api.applied == 2


def test_a_new_version_is_told(api: FakeApi, caches: NodeCaches, store: Store) -> None:
    caches.look()
    assert [thing["state"] for thing in told(api)] == ["Fetching"]
    version = publish(store, [File(b"a")])
    caches.look()
    assert [thing["current"]["id"] for thing in told(api)] == [version.id]


def test_a_cache_that_is_gone_is_withdrawn(api: FakeApi, caches: NodeCaches, fetcher: Fetcher) -> None:
    fetcher.declare(cache(interval=None), cache("other", interval=None))
    caches.look()
    fetcher.declare(cache(interval=None))
    caches.look()
    assert [thing["cache"] for thing in told(api)] == [CACHE]


def test_what_the_process_before_told_and_is_gone_is_withdrawn(
    api: FakeApi, caches: NodeCaches, store: Store, clock: Clock
) -> None:
    before = Fetcher(store, {})
    before.declare(cache("gone", interval=None))
    NodeCaches(api, PLACE, store, before.fetches, clock).look()
    caches.look()
    assert [thing["cache"] for thing in told(api)] == [CACHE]


def test_objects_of_other_fetchers_are_let_be(api: FakeApi, caches: NodeCaches, fetcher: Fetcher, store: Store) -> None:
    elsewhere = Place("node-2", PLACE.pod._replace(uid="uid-of-another"))
    NodeCaches(api, elsewhere, store, fetcher.fetches).look()
    caches.look()
    fetcher.declare()
    caches.look()
    assert [thing["node"] for thing in told(api)] == ["node-2"]


def test_what_somebody_deleted_comes_back(api: FakeApi, caches: NodeCaches, clock: Clock) -> None:
    """Its owner's end and a quick restart can cross, for example."""
    caches.look()
    api.objects.clear()
    caches.look()
    assert told(api) == []
    clock.now += HOUR
    caches.look()
    assert [thing["cache"] for thing in told(api)] == [CACHE]


def test_one_that_is_refused_keeps_no_other_back(api: FakeApi, caches: NodeCaches, fetcher: Fetcher) -> None:
    fetcher.declare(cache("a", interval=None), cache("b", interval=None))
    api.refused = "/a."
    with pytest.raises(ApiError, match="refused"):
        caches.look()
    assert [thing["cache"] for thing in told(api)] == ["b"]


def test_a_server_that_is_away_is_told_everything_later(api: FakeApi, caches: NodeCaches, store: Store) -> None:
    caches.look()
    publish(store, [File(b"a")])
    api.failure = ApiError("away")
    with pytest.raises(ApiError, match="away"):
        caches.look()
    api.failure = None
    caches.look()
    assert [thing["state"] for thing in told(api)] == ["Ready"]


def test_a_cluster_without_the_definition_is_told_what_is_missing(api: FakeApi, caches: NodeCaches) -> None:
    api.failure = ApiError("the server could not find the requested resource", 404)
    with pytest.raises(ApiError, match=r"apply crds/nodecaches\.yaml"):
        caches.look()


# Pods


def mount(store: Store, clock: Clock, volume_id: str = "csi-1", **more: Any) -> VolumeRecord:
    version = publish(store, [File(b"a")])
    record = VolumeRecord(
        id=volume_id,
        cache=CACHE,
        target="/pods/uid-1/volumes/kubernetes.io~csi/deps/mount",
        namespace=POD.namespace,
        pod=POD.name,
        **{"version": version.id, "pod_uid": POD.uid, "created": clock.now, **more},
    )
    store.records.write(record)
    return record


def test_a_volume_is_told_once_when_it_is_surely_mounted(
    api: FakeApi, events: PodEvents, store: Store, clock: Clock
) -> None:
    record = mount(store, clock)
    events.look()
    assert told(api) == []
    for _ in range(3):
        clock.now += 1
        events.look()
    [event] = told(api)
    assert record.version[:12] in event["message"]
    assert api.applied == 1


def test_a_volume_that_was_there_before_is_told_of_no_more(
    api: FakeApi, events: PodEvents, store: Store, clock: Clock
) -> None:
    """A restart of all fetchers is no reason to write an event for every pod of the cluster."""
    mount(store, clock, created=clock.now - HOUR)
    events.look()
    assert api.applied == 0


def test_a_volume_without_a_pod_has_nobody_to_tell(api: FakeApi, events: PodEvents, store: Store, clock: Clock) -> None:
    mount(store, clock, pod_uid="", created=clock.now - 2)
    events.look()
    assert api.applied == 0


def test_an_event_of_a_version_that_was_withdrawn_is_told_nevertheless(
    api: FakeApi, events: PodEvents, store: Store, clock: Clock
) -> None:
    mount(store, clock, created=clock.now - 2, version="0" * 64)
    events.look()
    assert ["000000000000" in event["message"] for event in told(api)] == [True]


def test_an_event_that_is_refused_is_not_repeated(api: FakeApi, events: PodEvents, store: Store, clock: Clock) -> None:
    """Its namespace is going, for example."""
    mount(store, clock, created=clock.now - 2)
    api.refused = "events"
    events.look()
    events.look()
    assert api.applied == 1


def test_an_event_that_did_not_get_there_is_repeated(
    api: FakeApi, events: PodEvents, store: Store, clock: Clock
) -> None:
    mount(store, clock, created=clock.now - 2)
    api.failure = ApiError("away")
    with pytest.raises(ApiError):
        events.look()
    api.failure = None
    events.look()
    assert len(told(api)) == 1


def test_a_wait_is_told_when_it_lasts_and_then_now_and_then(
    api: FakeApi, events: PodEvents, fetcher: Fetcher, clock: Clock
) -> None:
    fetcher.waiting._wall = clock
    with fetcher.waiting.of(POD, CACHE):
        events.look()
        assert told(api) == []
        clock.now += 1
        events.look()
        [event] = told(api)
        assert event["message"] == f"cache '{CACHE}' is not on node-1 yet: it waits for its turn to be fetched"
        for _ in range(9):
            clock.now += 1
            events.look()
        assert api.applied == 1
        fetching = fetcher.fetches.next(1)
        assert fetching
        fetcher.fetches.fetching(CACHE, 2048)
        fetcher.fetches.advance(CACHE, 1024)
        clock.now += 1
        events.look()
    [event] = told(api)
    assert (event["count"], "50%" in event["message"]) == (2, True)
    clock.now += 60
    events.look()
    assert api.applied == 2


def test_a_wait_that_says_nothing_new_is_not_told_again(
    api: FakeApi, events: PodEvents, fetcher: Fetcher, clock: Clock
) -> None:
    fetcher.waiting._wall = clock
    with fetcher.waiting.of(POD, CACHE):
        for _ in range(60):
            clock.now += 1
            events.look()
    assert api.applied == 1


@dataclass
class Failing:
    """Fetches whose text is another at each look."""

    status: Status
    clock: Clock

    def statuses(self) -> list[Status]:
        return [dataclasses.replace(self.status, state=State.FAILED, text=f"next in {self.clock.now}")]


def test_a_source_that_stays_down_is_told_less_and_less_often(
    api: FakeApi, events: PodEvents, fetcher: Fetcher, clock: Clock
) -> None:
    """Its text changes at each look, for the next try comes nearer."""
    fetcher.waiting._wall = clock
    events._fetches = Failing(fetcher.fetches.statuses()[0], clock)  # type: ignore[assignment]
    at: list[float] = []
    with fetcher.waiting.of(POD, CACHE):
        start = clock.now
        for _ in range(1000):
            clock.now += 1
            before = api.applied
            events.look()
            at += [clock.now - start] * (api.applied - before)
    assert at == [1, 11, 31, 71, 151, 311, 471, 631, 791, 951]


# The node

SSD = replace(cache("ssd", interval=None), node_selector={"disk": "ssd"})


def test_labels_decide_what_is_held_and_the_last_known_ones_stay(
    api: FakeApi, caches: NodeCaches, fetcher: Fetcher
) -> None:
    fetcher.declare(SSD, cache(interval=None))

    def ssd() -> tuple[str, str]:
        caches.look()
        [found] = [thing for thing in told(api) if thing["cache"] == "ssd"]
        return found["state"], found["message"]

    labels = NodeLabels(api, PLACE, fetcher.fetches)
    assert fetcher.fetches.statuses()[0].state is State.UNHELD, "before anything can have been fetched"
    assert ssd()[0] == "Unheld"
    assert "has not told the labels" in ssd()[1]
    labels.look()
    assert "node 'node-1' has not disk=ssd" in ssd()[1]
    api.node = {"disk": "ssd"}
    labels.look()
    assert ssd()[0] == "Fetching"
    api.failure = ApiError("away")
    with pytest.raises(ApiError, match="away"):
        labels.look()
    api.failure = None
    assert ssd()[0] == "Fetching"
    assert [status.state for status in fetcher.fetches.statuses()] == [State.QUEUED] * 2


# The thread


@pytest.fixture
def reporting(api: FakeApi, store: Store) -> Iterator[Fetcher]:
    stuck = Stuck(MemorySource([File(b"a")]))
    with running(store, {CACHE: stuck}, cache()) as fetcher:
        reporter = Reporter(api, PLACE, store, fetcher.fetches, fetcher.waiting)
        reporter.start()
        with fetcher.waiting.of(POD, CACHE):
            yield fetcher
        stuck.let_go.set()
        reporter.stop()


@pytest.mark.slow
def test_the_thread_tells_of_caches_and_pods(api: FakeApi, reporting: Fetcher) -> None:
    eventually(lambda: {thing["kind"] for thing in told(api)} == {"NodeCache", "Event"})


@pytest.mark.slow
def test_the_thread_takes_the_labels_of_the_node(api: FakeApi, store: Store) -> None:
    api.node = {"disk": "ssd"}
    with running(store, {"ssd": MemorySource([File(b"a")])}) as fetcher:
        reporter = Reporter(api, PLACE, store, fetcher.fetches, fetcher.waiting)
        fetcher.declare(SSD)
        assert fetcher.fetches.unheld
        reporter.start()
        eventually(lambda: store.current("ssd"))
        reporter.stop()


@pytest.mark.slow
def test_a_failure_is_logged_once_and_the_fetcher_goes_on(
    api: FakeApi, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each thing that fails: the labels, and the caches."""
    api.failure = ApiError("away")
    with running(store, {CACHE: MemorySource([File(b"a")])}, cache()) as fetcher:
        reporter = Reporter(api, PLACE, store, fetcher.fetches, fetcher.waiting)
        for _ in range(3):
            for job in reporter._jobs:
                assert reporter._do(job) == (job.run.__qualname__ == "PodEvents.look")
        eventually(lambda: store.current(CACHE))
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.message for record in warnings] == ["cluster_not_told"] * 2
