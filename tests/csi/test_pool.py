"""Ready trees: taken once each, complete, of the current version only, and never more than was allowed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachefetch.background import BackgroundStopped
from cachefetch.config import Cache, Config, Directory
from cachefetch.errors import OutOfSpace
from cachefetch.linktree import LinkReport, link_tree
from cachefetch.model import LinkMode
from cachefetch.store import Store
from csi.pool import Pool, Slot
from tests.cachefetch.fakes import CACHE, File, below, memory, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ITEMS = (File(b"a"), File(b"lib/b", b"2"))


class Making:
    """Makes trees in this process; can be told to fail half-way."""

    def __init__(self) -> None:
        self.made = 0
        self.error: Exception | None = None

    def link(self, source: Path, dest: Path) -> LinkReport:
        if self.error:
            dest.mkdir()
            raise self.error
        self.made += 1
        return link_tree(source, dest)


class Bench:
    """A pool on a real store."""

    def __init__(self, store: Store, pool: int) -> None:
        self.store = store
        self.maker = Making()
        self.discards = 0
        self.reports: list[LinkReport] = []
        self.limit(pool)
        self.pool = self.open()

    def limit(self, pool: int) -> None:
        self.config = Config(caches=(Cache(name=CACHE, source=Directory(path="/srv"), pool=pool),))

    def open(self) -> Pool:
        return Pool(
            self.store,
            self.maker,
            config=lambda: self.config,
            on_link=lambda report, _seconds: self.reports.append(report),
            on_discard=self.count,
        )

    def count(self) -> None:
        self.discards += 1

    def ready(self, version: str) -> int:
        return len(self.pool.ready().get((CACHE, version), ()))

    def place(self, version: str) -> Path:
        return self.store.root / "pool" / CACHE / version


def until(met: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def stopped() -> bool:
    return not any(thread.name == "pool" for thread in threading.enumerate())


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    bench = Bench(store, 3)
    yield bench
    bench.pool.stop()
    until(stopped)  # a tree that is being made holds the cache's lock


@pytest.fixture
def filled(bench: Bench) -> str:
    """The pool runs and is full; the id of the version."""
    version = publish(bench.store, ITEMS).id
    bench.pool.start({})
    until(lambda: bench.ready(version) == 3)
    return version


def test_it_fills_up_to_the_limit_and_no_further(bench: Bench, filled: str) -> None:
    time.sleep(0.1)
    assert bench.ready(filled) == bench.maker.made == len(bench.reports) == 3
    assert len(below(bench.place(filled)) & {slot.name for slot in bench.pool.ready()[CACHE, filled]}) == 3


def test_what_is_taken_is_a_complete_tree_of_golden_files(bench: Bench, filled: str, tmp_path: Path) -> None:
    slot = bench.pool.take(CACHE, filled, tmp_path / "tree")
    assert slot is not None
    assert (slot.own_inodes, slot.link_mode) == (2, LinkMode.HARDLINK)
    golden = bench.store.tree(CACHE, filled)
    assert below(tmp_path / "tree") == below(golden)
    assert (tmp_path / "tree" / "lib" / "b").samefile(golden / "lib" / "b")


def test_what_volumes_have_counts(bench: Bench, filled: str, tmp_path: Path) -> None:
    """What the pool costs does not grow with the number of volumes."""
    for number in range(3):
        assert bench.pool.take(CACHE, filled, tmp_path / str(number))
    assert bench.pool.take(CACHE, filled, tmp_path / "fourth") is None
    time.sleep(0.1)
    assert (bench.ready(filled), bench.maker.made) == (0, 3)


def test_what_is_lost_is_replaced(bench: Bench, filled: str, tmp_path: Path) -> None:
    assert bench.pool.take(CACHE, filled, tmp_path / "tree")
    bench.pool.lost(CACHE, filled)
    until(lambda: bench.ready(filled) == 3)
    assert bench.maker.made == 4


def test_what_volumes_have_counts_after_a_restart_too(bench: Bench, filled: str, tmp_path: Path) -> None:
    slot = bench.pool.take(CACHE, filled, tmp_path / "tree")
    assert slot is not None
    bench.pool.stop()
    until(stopped)
    bench.pool = bench.open()
    bench.pool.start({(CACHE, filled): 1})
    time.sleep(0.1)
    assert (bench.ready(filled), bench.maker.made) == (2, 3)
    assert bench.pool.give(CACHE, filled, tmp_path / "tree", slot)
    assert bench.ready(filled) == 3


def test_a_tree_that_cannot_be_taken_stays_ready(bench: Bench, filled: str, tmp_path: Path) -> None:
    """A full disk may refuse the rename; the pool must not shrink with every try."""
    with pytest.raises(FileNotFoundError):
        bench.pool.take(CACHE, filled, tmp_path / "absent" / "tree")
    assert bench.ready(filled) == 3
    for number in range(3):
        assert bench.pool.take(CACHE, filled, tmp_path / str(number))


def test_a_tree_that_cannot_come_back_is_the_callers(bench: Bench, filled: str, tmp_path: Path) -> None:
    """Unpublish must not fail for it, and a repeated one not count it twice."""
    slot = bench.pool.take(CACHE, filled, tmp_path / "tree")
    assert slot is not None
    blocker = bench.place(filled) / slot.name
    blocker.write_bytes(b"")
    assert not bench.pool.give(CACHE, filled, tmp_path / "tree", slot)
    assert (tmp_path / "tree").is_dir()


def test_no_tree_goes_to_two_takers(bench: Bench, filled: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        taken = list(threads.map(lambda number: bench.pool.take(CACHE, filled, tmp_path / str(number)), range(16)))
    names = [slot.name for slot in taken if slot]
    assert len(names) == len(set(names)) == 3


def test_an_unknown_version_has_nothing_ready(bench: Bench, filled: str, tmp_path: Path) -> None:
    assert bench.pool.take(CACHE, "0" * 64, tmp_path / "tree") is None
    assert bench.pool.take("other", filled, tmp_path / "tree") is None


def test_a_tree_comes_back_only_where_one_is_missing(bench: Bench, filled: str, tmp_path: Path) -> None:
    slot = bench.pool.take(CACHE, filled, tmp_path / "one")
    assert slot is not None
    assert bench.pool.give(CACHE, filled, tmp_path / "one", slot)
    assert bench.ready(filled) == 3
    link_tree(bench.store.tree(CACHE, filled), tmp_path / "surplus")
    assert not bench.pool.give(CACHE, filled, tmp_path / "surplus", slot)
    assert (tmp_path / "surplus").is_dir()


def test_a_new_version_gets_its_own_trees_and_those_of_the_old_one_go(
    bench: Bench, filled: str, tmp_path: Path
) -> None:
    slot = bench.pool.take(CACHE, filled, tmp_path / "old")
    assert slot is not None
    new = publish(bench.store, (*ITEMS, File(b"new"))).id
    until(lambda: bench.ready(new) == 3 and not bench.ready(filled))
    assert not bench.pool.give(CACHE, filled, tmp_path / "old", slot)
    until(lambda: not bench.place(filled).exists())
    assert bench.discards >= 2


def test_a_lower_limit_or_an_undeclared_cache_empties_the_pool(bench: Bench, filled: str) -> None:
    bench.limit(1)
    until(lambda: bench.ready(filled) == 1)
    bench.config = Config(caches=())
    until(lambda: bench.ready(filled) == 0)


def test_a_restart_adopts_complete_trees_and_discards_the_others(bench: Bench, filled: str) -> None:
    bench.pool.stop()
    until(stopped)
    (bench.place(filled) / ".0123456789abcdef").mkdir()
    (bench.place(filled) / "odd").mkdir()
    made = bench.maker.made
    bench.pool = bench.open()
    bench.pool.start({})
    assert bench.ready(filled) == 3
    assert bench.maker.made == made
    assert {path.name for path in bench.place(filled).iterdir()} == {
        slot.name for slot in bench.pool.ready()[CACHE, filled]
    }
    assert bench.discards == 2


def test_a_failure_leaves_nothing_and_does_not_spin(bench: Bench) -> None:
    version = publish(bench.store, ITEMS).id
    bench.maker.error = OutOfSpace("no inodes")
    bench.pool.start({})
    until(lambda: bench.discards == 1)
    time.sleep(0.1)
    assert bench.discards == 1
    assert list(bench.place(version).iterdir()) == []


def test_a_driver_that_stops_while_a_tree_is_made_is_no_failure(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    publish(bench.store, ITEMS)
    bench.maker.error = BackgroundStopped("the driver stops")
    bench.pool.start({})
    until(stopped)
    assert bench.discards == 1
    assert caplog.messages == []


def test_a_cache_without_a_version_has_no_pool(bench: Bench) -> None:
    bench.pool.start({})
    time.sleep(0.05)
    assert bench.maker.made == 0
    assert bench.pool.ready() == {}


@given(st.integers(0, 2**60), st.integers(0, 2**40), st.sampled_from(LinkMode))
def test_a_slots_name_says_what_its_tree_costs(own_bytes: int, own_inodes: int, mode: LinkMode) -> None:
    report = LinkReport(directories=own_inodes, own_bytes=own_bytes)
    if mode is not LinkMode.HARDLINK:
        report.modes[mode] += 1
    slot = Slot.of(report)
    assert Slot.parse(slot.name) == slot
    assert (slot.own_bytes, slot.own_inodes, slot.link_mode) == (own_bytes, report.own_inodes, mode)


@given(st.text(max_size=60))
def test_any_other_name_is_no_slot(name: str) -> None:
    slot = Slot.parse(name)
    assert slot is None or slot.name == name


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["take", "give", "publish"]), max_size=12))
def test_whatever_happens_each_tree_is_in_one_place(steps: list[str]) -> None:
    """A tree is ready, or taken, or in the trash; never two of these, and never lost."""
    with memory() as directory:
        root = Path(directory)
        bench = Bench(Store.open(root / "state"), 2)
        versions = [publish(bench.store, ITEMS).id]
        bench.pool.start({})
        taken: list[tuple[str, Path, Slot]] = []
        try:
            for number, step in enumerate(steps):
                if step == "publish":
                    versions.append(publish(bench.store, (*ITEMS, File(b"new", str(number).encode()))).id)
                elif step == "take":
                    dest = root / str(number)
                    if slot := bench.pool.take(CACHE, versions[-1], dest):
                        taken.append((versions[-1], dest, slot))
                elif taken:
                    version, dest, slot = taken.pop()
                    if not bench.pool.give(CACHE, version, dest, slot):
                        bench.store.discard(dest)
            in_volumes = sum(version == versions[-1] for version, *_ in taken)
            until(lambda: bench.ready(versions[-1]) == 2 - in_volumes)
        finally:
            bench.pool.stop()
            until(stopped)
        for version, slots in bench.pool.ready().items():
            assert {path.name for path in bench.place(version[1]).iterdir()} == {slot.name for slot in slots}
        assert all(dest.is_dir() for _, dest, _ in taken)
