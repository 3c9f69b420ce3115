from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cachefetch.config import Cache, Directory, Prefetch, Refresh
from cachefetch.schedule import BACKOFF_LEAST, BACKOFF_MOST, Timetable, backoff
from cachefetch.units import Duration

DRAW = st.floats(0, 1, exclude_max=True)
INTERVAL = 100.0


def cache(name: str = "deps", *, path: str = "/a", manual: bool = False, prefetch: Prefetch = Prefetch.ALWAYS) -> Cache:
    refresh = Refresh(manual=True) if manual else Refresh(interval=Duration(INTERVAL))
    return Cache(name=name, source=Directory(path=path), refresh=refresh, prefetch=prefetch)


def timetable(*caches: Cache, has_version: bool = False, now: float = 0.0, draw: float = 0.5) -> Timetable:
    table = Timetable(lambda: draw)
    table.declare(caches, lambda _name: has_version, now)
    return table


def take(table: Timetable, now: float) -> Cache:
    taken = table.take(now)
    assert taken is not None
    return taken


def test_a_declared_cache_is_due_at_once_and_only_once() -> None:
    table = timetable(cache())
    assert table.next_due() == 0
    assert table.take(0) == cache()
    assert table.take(1e9) is None
    assert table.next_due() is None


@pytest.mark.parametrize("manual", [True, False])
@pytest.mark.parametrize("has_version", [True, False])
@pytest.mark.parametrize("prefetch", list(Prefetch))
def test_what_is_due_at_the_start(manual: bool, has_version: bool, prefetch: Prefetch) -> None:
    """With a version only an interval makes a cache due; without one, only prefetch does."""
    table = timetable(cache(manual=manual, prefetch=prefetch), has_version=has_version)
    expected = not manual if has_version else prefetch is Prefetch.ALWAYS
    assert (table.next_due() is not None) == expected


@given(draw=DRAW)
def test_after_a_success_the_interval_counts_give_or_take_a_tenth(draw: float) -> None:
    table = timetable(cache(), draw=draw)
    taken = take(table, 0)
    table.succeeded(taken, now=1000)
    due = table.next_due()
    assert due is not None
    assert 1000 + 0.9 * INTERVAL <= due <= 1000 + 1.1 * INTERVAL
    assert table.take(math.nextafter(due, 0)) is None
    assert table.take(due) == taken


def test_jitter_depends_on_the_draw() -> None:
    dues = set()
    for draw in (0.0, 0.25, 0.75):
        table = timetable(cache(), draw=draw)
        table.succeeded(take(table, 0), now=0)
        dues.add(table.next_due())
    assert len(dues) == 3


def test_a_manual_cache_is_not_due_again_after_its_first_version() -> None:
    table = timetable(cache(manual=True))
    table.succeeded(take(table, 0), now=0)
    assert table.next_due() is None


@given(failures=st.integers(1, 10**6), draw=DRAW)
def test_the_back_off_stays_within_its_bounds(failures: int, draw: float) -> None:
    assert BACKOFF_LEAST <= backoff(failures, draw) <= BACKOFF_MOST


@given(failures=st.integers(1, 100), draw=DRAW)
def test_the_back_off_never_shrinks(failures: int, draw: float) -> None:
    assert backoff(failures + 1, draw) >= backoff(failures, draw)


def test_failures_back_off_until_a_success() -> None:
    table = timetable(cache(), draw=0.0)
    delays: list[float | None] = []
    now = 0.0
    for _ in range(9):
        delays.append(table.failed(take(table, now), now))
        due = table.next_due()
        assert due is not None
        now = due
    assert delays == [5, 10, 20, 40, 80, 160, 200, 200, 200]
    assert table.succeeded(take(table, now), now) == 9
    now += INTERVAL
    assert table.failed(take(table, now), now) == 5


def test_a_changed_cache_is_due_at_once_even_in_its_back_off() -> None:
    table = timetable(cache())
    table.failed(take(table, 0), now=0)
    table.declare([cache(path="/b")], lambda _name: True, 1)
    assert table.take(1) == cache(path="/b")


def test_an_unchanged_cache_keeps_its_time() -> None:
    table = timetable(cache())
    table.succeeded(take(table, 0), now=0)
    before = table.next_due()
    table.declare([cache(), cache("other")], lambda _name: True, 1)
    assert table.take(1) == cache("other")
    assert table.next_due() == before


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_change_while_it_runs_is_taken_up_when_it_ends(ends_well: bool) -> None:
    """Never two at a time, and the old refresh does not set the time of the new declaration."""
    table = timetable(cache())
    old = take(table, 0)
    table.declare([cache(path="/b")], lambda _name: False, 1)
    assert table.take(2) is None
    if ends_well:
        table.succeeded(old, 3)
    else:
        assert table.failed(old, 3) == 0
    assert table.take(3) == cache(path="/b")


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_cache_withdrawn_while_it_runs_is_not_due_again(ends_well: bool) -> None:
    table = timetable(cache())
    old = take(table, 0)
    table.declare([], lambda _name: True, 1)
    if ends_well:
        table.succeeded(old, 2)
    else:
        assert table.failed(old, 2) is None
    assert table.next_due() is None


def test_the_longest_due_comes_first() -> None:
    table = timetable(cache("late"), now=5)
    table.declare([cache("late"), cache("later")], lambda _name: False, 6)
    assert [taken.name for taken in iter(lambda: table.take(7), None)] == ["late", "later"]


def test_what_is_asked_for_is_due_at_once_and_before_what_is_merely_due() -> None:
    table = timetable(cache("due"), cache("asked", prefetch=Prefetch.ON_DEMAND))
    table.ask("asked", 1)
    assert [taken.name for taken in iter(lambda: table.take(2), None)] == ["asked", "due"]


def test_who_asks_does_not_shorten_the_back_off_but_the_impatient_does() -> None:
    table = timetable(cache(), draw=0.0)
    table.failed(take(table, 0), now=0)
    table.ask("deps", 1)
    assert table.take(4.9) is None
    table.ask("deps", 1, impatient=True)
    assert table.take(1) == cache()


@pytest.mark.parametrize("impatient", [True, False])
def test_asked_for_while_it_runs_it_runs_once_more(impatient: bool) -> None:
    table = timetable(cache())
    taken = take(table, 0)
    table.ask("deps", 1, impatient=impatient)
    table.succeeded(taken, 2)
    table.succeeded(take(table, 2), 3)
    assert table.take(4) is None


def test_asked_for_while_it_runs_and_fails_only_the_impatient_skips_the_back_off() -> None:
    for impatient in (True, False):
        table = timetable(cache())
        taken = take(table, 0)
        table.ask("deps", 1, impatient=impatient)
        table.failed(taken, 2)
        assert (table.take(2) is not None) is impatient


def test_what_is_nobodys_fault_is_tried_again_without_being_counted() -> None:
    table = timetable(cache(), draw=0.0)
    assert table.failed(take(table, 0), 0, counts=False) == BACKOFF_LEAST
    assert table.look("deps").failures == 0


def test_failures_of_an_earlier_process_count() -> None:
    table = timetable(cache(), draw=0.0)
    table.resume("deps", 3, 50)
    assert table.look("deps") == (50, 3, False)
    assert table.failed(take(table, 50), 50) == 40


def test_who_has_asked_already_is_not_put_off_by_failures_of_an_earlier_process() -> None:
    table = timetable(cache())
    table.ask("deps", 0)
    table.resume("deps", 3, 50)
    assert table.take(0) == cache()


def test_what_runs_has_no_time() -> None:
    table = timetable(cache())
    take(table, 0)
    assert table.look("deps") == (None, 0, True)
    assert table.running == 1


class AnyLife(RuleBasedStateMachine):
    """Whatever happens in whatever order, no cache runs twice at a time and none is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Timetable(random.Random(0).random)
        self.now = 0.0
        self.declared: dict[str, Cache] = {}
        self.running: dict[str, Cache] = {}

    @rule(names=st.dictionaries(st.sampled_from("abc"), st.sampled_from(["/a", "/b"])))
    def declare(self, names: dict[str, str]) -> None:
        self.declared = {name: cache(name, path=path) for name, path in names.items()}
        self.table.declare(self.declared.values(), lambda _name: True, self.now)

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        taken = self.table.take(self.now)
        if taken is not None:
            assert taken.name not in self.running
            assert taken == self.declared[taken.name]
            self.running[taken.name] = taken

    @rule(data=st.data(), impatient=st.booleans())
    def ask(self, data: st.DataObject, impatient: bool) -> None:
        if self.declared:
            name = data.draw(st.sampled_from(sorted(self.declared)))
            self.table.ask(name, self.now, impatient=impatient)

    @rule(data=st.data(), ends_well=st.booleans())
    def end(self, data: st.DataObject, ends_well: bool) -> None:
        if self.running:
            ended = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
            if ends_well:
                self.table.succeeded(ended, self.now)
            else:
                self.table.failed(ended, self.now)

    @invariant()
    def every_idle_cache_is_due_within_the_longest_wait(self) -> None:
        """These caches have an interval, so each has a time unless it runs."""
        due = self.table.next_due()
        if set(self.declared) - set(self.running):
            assert due is not None
            assert due <= self.now + BACKOFF_MOST
        else:
            assert due is None


TestAnyLife = AnyLife.TestCase
