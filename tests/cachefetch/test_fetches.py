from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from cachefetch.errors import NotReady, Precondition, UnknownCache, UnknownVersion
from cachefetch.fetches import Fetches, Stopping, declaration
from cachefetch.journal import Failure, Journal
from cachefetch.nodes import Node
from cachefetch.refresh import identify
from cachefetch.work import Ended, State
from tests.cachefetch.fakes import CACHE, File, publish
from tests.cachefetch.fetching import cache

if TYPE_CHECKING:
    from cachefetch.config import Cache
    from cachefetch.store import Store

BAD = Ended(1.0, error="it is away: connect it")
GOOD = Ended(1.0)
UNKNOWN = "0" * 64


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fetches(store: Store, *caches: Cache, clock: Clock | None = None, wall: Clock | None = None) -> Fetches:
    made = Fetches(store, Journal.of(store.root), lambda: 0.0, clock=clock or Clock(), wall=wall or Clock())
    made.declare(caches)
    return made


def begin(made: Fetches) -> Cache:
    begun = made.next(4)
    assert begun
    return begun


def test_a_failure_and_its_back_off_survive_a_restart(store: Store) -> None:
    wall = Clock()
    made = fetches(store, cache(), wall=wall)
    assert made.failed(begin(made), BAD) == 5
    wall.now += 2
    [status] = fetches(store, cache(), wall=wall).statuses()
    assert (status.state, status.failures, status.error) == (State.FAILED, 1, BAD.error)
    assert status.next_in == pytest.approx(3)


def test_the_end_of_the_process_is_no_failure(store: Store) -> None:
    made = fetches(store, cache())
    begun = begin(made)
    made.close()
    made.interrupted(begun)
    [status] = fetches(store, cache()).statuses()
    assert (status.state, status.failures) == (State.QUEUED, 0)


def test_a_success_ends_the_failures_for_a_later_process_too(store: Store) -> None:
    clock = Clock()
    made = fetches(store, cache(), clock=clock)
    made.failed(begin(made), BAD)
    clock.now += 10
    assert made.succeeded(begin(made), GOOD) == 1
    assert Journal.of(store.root).read() == {}


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumped_delays_nobody_for_longer_than_the_longest_back_off(store: Store, jump: float) -> None:
    wall = Clock()
    made = fetches(store, cache(), wall=wall)
    made.failed(begin(made), BAD)
    wall.now += jump
    [status] = fetches(store, cache(), wall=wall).statuses()
    assert status.next_in is not None
    assert 0 <= status.next_in <= 300


def test_the_failures_of_another_source_do_not_count(store: Store) -> None:
    failure = Failure(source=identify(cache(path="/other")), count=3, error="x", retry=1e12)
    Journal.of(store.root).write({CACHE: failure})
    assert fetches(store, cache()).statuses()[0].failures == 0


def test_no_more_run_than_there_may(store: Store) -> None:
    made = fetches(store, cache("a"), cache("b"))
    begin(made)
    assert [status.state for status in made.statuses()] == [State.LOOKING, State.QUEUED]
    assert made.running == 1


def test_an_unknown_cache_is_named_with_those_that_are_known(store: Store) -> None:
    made = fetches(store, cache("a"), cache("b"))
    with pytest.raises(UnknownCache, match="no cache 'c': declared are a, b"):
        made.demand("c", "")
    with pytest.raises(UnknownCache):
        made.hurry(["a", "c"])
    with pytest.raises(UnknownCache):
        made.look("c", 1)


def test_another_declaration_than_expected_is_refused_and_the_same_is_not(store: Store) -> None:
    made = fetches(store, cache())
    made.noticed(CACHE, declaration(cache()))
    with pytest.raises(Precondition, match="declared in another way"):
        made.noticed(CACHE, declaration(cache(retain=7)))


def test_every_part_of_a_declaration_counts() -> None:
    found = {declaration(one) for one in (cache(), cache(retain=3), cache(interval=7), cache(path="/x"), cache("b"))}
    assert len(found) == 5


def test_nothing_begins_and_nobody_is_answered_after_the_end(store: Store) -> None:
    made = fetches(store, cache())
    made.close()
    assert made.next(4) is None
    for ask in (made.statuses, lambda: made.look(CACHE, 1)):
        with pytest.raises(Stopping):
            ask()


def test_a_demand_joins_what_runs_for_whatever_is_current_only(store: Store) -> None:
    made = fetches(store, cache())
    assert made.demand(CACHE, "") == 1
    begin(made)
    assert made.demand(CACHE, "") == 1
    assert made.demand(CACHE, UNKNOWN) == 2
    assert made.hurry([CACHE]) == {CACHE: 2}


def test_a_demand_moves_no_cache_that_is_refreshed_by_hand(store: Store) -> None:
    """The version that a pod names is the pod author's text, and which one is current is the administrator's choice."""
    made = fetches(store, cache(interval=None))
    assert made.demand(CACHE, UNKNOWN) == 1, "without a version it is fetched on first use"
    version = publish(store, [File(b"a")])
    with pytest.raises(UnknownVersion, match=f"refreshed by hand only: name {version.short}, which is current"):
        made.demand(CACHE, UNKNOWN)


def test_what_ends_after_its_cache_was_withdrawn_is_forgotten(store: Store) -> None:
    made = fetches(store, cache())
    begun = begin(made)
    made.declare([])
    made.fetching(CACHE, 10)
    made.advance(CACHE, 5)
    assert made.failed(begun, BAD) is None
    made.declare([cache()])
    [status] = made.statuses()
    assert (status.state, status.failures, status.error) == (State.QUEUED, 0, "")


# The node

SSD = replace(cache("ssd"), node_selector={"disk": "ssd"})
MATCHING, OTHER, UNLABELLED = Node("node-1", {"disk": "ssd"}), Node("node-1", {"disk": "hdd"}), Node("node-1")


def states(made: Fetches) -> dict[str, State]:
    return {status.cache: status.state for status in made.statuses()}


def test_without_a_cluster_selectors_are_ignored(store: Store) -> None:
    assert states(fetches(store, SSD)) == {"ssd": State.QUEUED}


@pytest.mark.parametrize(("node", "error"), [(OTHER, Precondition), (UNLABELLED, NotReady)])
def test_what_the_node_does_not_hold_is_not_fetched_and_whoever_asks_hears_why(
    store: Store, node: Node, error: type[Exception]
) -> None:
    made = fetches(store, SSD, cache())
    made.locate(node)
    assert states(made) == {"ssd": State.UNHELD, CACHE: State.QUEUED}
    assert made.statuses()[0].text == made.unheld["ssd"]
    assert begin(made).name == CACHE
    made.noticed("ssd", "")
    for ask in (lambda: made.demand("ssd", ""), lambda: made.look("ssd", 1), lambda: made.hurry(["ssd"])):
        with pytest.raises(error, match="cache 'ssd' is for nodes with disk=ssd"):
            ask()


def test_a_label_that_comes_has_the_cache_fetched_and_one_that_goes_ends_that(store: Store) -> None:
    made = fetches(store, SSD)
    for node, state in ((UNLABELLED, State.UNHELD), (MATCHING, State.QUEUED), (OTHER, State.UNHELD)):
        made.locate(node)
        assert states(made) == {"ssd": state}
    made.declare([SSD, cache()])
    assert states(made) == {"ssd": State.UNHELD, CACHE: State.QUEUED}
    made.locate(MATCHING)
    assert begin(made).name in {"ssd", CACHE}


def test_the_same_labels_again_change_nothing(store: Store) -> None:
    made = fetches(store, SSD)
    made.locate(MATCHING)
    changes = made.changes
    made.locate(Node("node-1", {"disk": "ssd"}))
    assert made.changes == changes


def test_versions_of_a_cache_that_the_node_held_before_stay(store: Store) -> None:
    version = publish(store, [File(b"a")], "ssd")
    made = fetches(store, SSD)
    made.locate(OTHER)
    assert made.statuses()[0].current == version.id
    assert made.find("ssd", "") == version.id


def test_a_back_off_survives_that_the_labels_are_not_known_at_first(store: Store) -> None:
    made = fetches(store, SSD)
    made.failed(begin(made), BAD)
    made = fetches(store, SSD)
    made.locate(UNLABELLED)
    made.locate(MATCHING)
    [status] = made.statuses()
    assert (status.state, status.failures) == (State.FAILED, 1)


def test_progress_is_seen_while_it_runs_and_gone_afterwards(store: Store) -> None:
    made = fetches(store, cache())
    begun = begin(made)
    made.fetching(CACHE, 10)
    made.advance(CACHE, 4)
    [status] = made.statuses()
    assert (status.state, status.done, status.total) == (State.FETCHING, 4, 10)
    made.succeeded(begun, GOOD)
    [status] = made.statuses()
    assert (status.state, status.done, status.total) == (State.IDLE, 0, None)


def test_what_an_earlier_fetch_has_brought_is_done_and_promises_nothing(store: Store) -> None:
    clock = Clock()
    made = fetches(store, cache(), clock=clock)
    begin(made)
    made.fetching(CACHE, 100)
    clock.now += 2
    made.recall(CACHE, 40)
    made.advance(CACHE, 20)
    [status] = made.statuses()
    assert (status.done, status.text) == (60, "fetching 60 B of 100 B, 60%, 4.0 s left")
