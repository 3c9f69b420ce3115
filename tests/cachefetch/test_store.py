from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cachefetch import trash
from cachefetch.errors import Busy, InvalidRequest, SourceError, UnknownVersion
from cachefetch.model import Totals
from cachefetch.progress import Silent
from cachefetch.records import VolumeRecord
from cachefetch.refresh import refresh
from cachefetch.store import Store
from cachefetch.verify import verify
from tests.cachefetch.fakes import (
    CACHE,
    Dir,
    File,
    Link,
    MemorySource,
    below,
    check_store,
    declared,
    held_locks,
    memory,
    publish,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachefetch.model import Version
    from tests.cachefetch.fakes import Item

ONE: list[Item] = [File(b"a", b"1", token=b"1"), Dir(b"d"), File(b"d/b", b"2", 0o755, token=b"2"), Link(b"d/l", b"b")]
TWO: list[Item] = [File(b"a", b"changed", token=b"3"), *ONE[1:]]


def record(volume_id: str, version_id: str, cache: str = CACHE) -> VolumeRecord:
    return VolumeRecord(id=volume_id, cache=cache, version=version_id, target="/target")


def ids(versions: list[Version]) -> list[str]:
    return [version.id for version in versions]


# Publishing


def test_a_published_version_is_current_and_holds_what_was_staged(store: Store) -> None:
    version = publish(store, ONE)
    assert store.current(CACHE) == version.id
    assert store.has(CACHE, version.id)
    tree = store.tree(CACHE, version.id)
    assert below(tree) == {"a", "d", "d/b", "d/l"}
    assert (tree / "a").read_bytes() == b"1"
    assert (tree / "d" / "l").readlink() == Path("b")
    assert version.totals == Totals(4, 2, 2)
    assert store.versions(CACHE) == [version] == [store.version(CACHE, version.id)]
    assert store.caches() == [CACHE]


def test_the_same_content_published_twice_is_one_version_with_the_same_inodes(store: Store) -> None:
    first = publish(store, ONE)
    place = store.tree(CACHE, first.id).parent
    before = {path: path.lstat().st_ino for path in place.rglob("*")}
    assert publish(store, ONE) == first
    assert {path: path.lstat().st_ino for path in place.rglob("*")} == before
    assert store.versions(CACHE) == [first]


def test_the_order_in_which_a_source_delivers_does_not_matter(store: Store) -> None:
    first = publish(store, ONE)
    assert publish(store, [ONE[1], *reversed(ONE[2:]), ONE[0]]).id == first.id


def test_a_version_that_comes_back_is_current_again(store: Store) -> None:
    first, second = publish(store, ONE), publish(store, TWO)
    assert ids(store.versions(CACHE)) == [first.id, second.id]
    assert publish(store, ONE).id == first.id == store.current(CACHE)


def test_caches_do_not_know_each_other(store: Store) -> None:
    one, other = publish(store, ONE, "one"), publish(store, ONE, "other")
    assert one.id == other.id
    store.gc("one", None)
    assert store.versions("one") == []
    assert store.versions("other") == [other]


def test_only_what_is_published_can_be_current(store: Store) -> None:
    publish(store, ONE)
    current = store.current(CACHE)
    for wrong in ("0a" * 32, ""):
        with pytest.raises((UnknownVersion, InvalidRequest)):
            store.set_current(CACHE, wrong)
    assert store.current(CACHE) == current


def test_what_is_not_there_is_said_to_be_unknown(store: Store) -> None:
    assert store.current(CACHE) is None
    assert store.versions(CACHE) == []
    assert not store.has(CACHE, "0a" * 32)
    assert store.origin(CACHE) is None
    with pytest.raises(UnknownVersion, match="0a0a"):
        store.version(CACHE, "0a" * 32)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".", "A"])
def test_a_name_that_is_no_cache_s_reaches_no_file(store: Store, name: str) -> None:
    uses: list[Callable[[], object]] = [
        lambda: store.current(name), lambda: store.versions(name), lambda: store.tree(name, "0a" * 32),
        lambda: store.origin(name), lambda: store.gc(name, 1), lambda: store.drop(name, "0a" * 32),
        lambda: publish(store, ONE, name),
    ]  # fmt: skip
    before = below(store.root)
    for use in uses:
        with pytest.raises(InvalidRequest):
            use()
    assert below(store.root) == before


@pytest.mark.parametrize("version_id", ["", "..", "../../x", "0a"])
def test_a_text_that_is_no_version_id_reaches_no_file(store: Store, version_id: str) -> None:
    publish(store, ONE)
    uses: list[Callable[[str, str], object]] = [store.tree, store.manifest, store.has, store.drop, store.set_current]
    for use in uses:
        with pytest.raises(InvalidRequest):
            use(CACHE, version_id)


def test_a_version_is_found_by_the_start_of_its_id(store: Store) -> None:
    first, second = publish(store, ONE), publish(store, TWO)
    assert store.find(CACHE, first.short) == first
    assert store.find(CACHE, second.id) == second
    for prefix, found in (("", "2 versions"), ("x", "none")):
        with pytest.raises(UnknownVersion, match=found):
            store.find(CACHE, prefix)


def test_users_are_counted_by_version_from_the_records(store: Store) -> None:
    first, second = publish(store, ONE), publish(store, TWO)
    for volume_id, version in (("v1", first), ("v2", second), ("v3", second)):
        store.records.write(record(volume_id, version.id))
    store.records.write(record("v4", first.id, "other"))
    assert store.users(CACHE) == {first.id: 1, second.id: 2}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"noise")])
def test_one_version_with_a_damaged_manifest_does_not_hide_the_others(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """It can be listed, verified, withdrawn and collected like any other."""
    store = Store.open(tmp_path / "state")
    first, second = publish(store, ONE), publish(store, TWO)
    damage(store.manifest(CACHE, first.id))
    assert set(ids(store.versions(CACHE))) == {first.id, second.id}
    found = store.find(CACHE, first.short)
    assert found.totals == Totals(0, 0, 0)
    assert list(verify(store, CACHE, found.id))
    assert ids(store.gc(CACHE, 1)) == [first.id]
    check_store(store)


def test_the_origin_is_known_until_its_version_is_gone(store: Store) -> None:
    version = publish(store, ONE)
    origin = store.origin(CACHE)
    assert origin is not None
    assert origin.meta["version"] == version.id
    assert origin.token(b"a") == b"1"
    origin.close()
    store.drop(CACHE, version.id)
    assert store.origin(CACHE) is None


def test_one_refreshes_at_a_time(store: Store) -> None:
    with store.refreshing(CACHE):
        with pytest.raises(Busy, match="being refreshed by another process"), store.refreshing(CACHE):
            pytest.fail("two refreshes")
        with store.refreshing("other"):
            pass


# Getting rid of versions


def test_gc_keeps_the_newest_the_current_and_the_used(store: Store) -> None:
    versions = [publish(store, [File(b"n", str(number).encode())]) for number in range(6)]
    for number, version in enumerate(versions):
        os.utime(store.tree(CACHE, version.id).parent, (number, number))
    store.records.write(record("v", versions[1].id))
    store.set_current(CACHE, versions[0].id)
    assert ids(store.gc(CACHE, 2)) == ids(versions[2:5])
    assert ids(store.versions(CACHE)) == ids([versions[0], versions[1], versions[5]])
    assert store.current(CACHE) == versions[0].id
    assert store.gc(CACHE, 2) == []


def test_of_an_undeclared_cache_everything_goes_but_what_is_used(store: Store) -> None:
    first, second = publish(store, ONE), publish(store, TWO)
    store.records.write(record("v", first.id))
    assert ids(store.gc(CACHE, None)) == [second.id]
    assert store.current(CACHE) is None, "no new volume gets it"
    assert store.caches() == [CACHE]
    shutil.rmtree(store.records.place("v"))
    assert ids(store.gc(CACHE, None)) == [first.id]
    assert store.caches() == []


def test_the_current_version_of_an_undeclared_cache_stays_current_while_it_is_used(store: Store) -> None:
    version = publish(store, ONE)
    store.records.write(record("v", version.id))
    assert store.gc(CACHE, None) == []
    assert store.current(CACHE) == version.id


def test_the_downloads_of_a_cache_that_was_never_published_go_with_its_declaration(store: Store) -> None:
    source = MemorySource(ONE, fail_at=0)
    with pytest.raises(SourceError):
        refresh(store, declared(), source, Silent())
    (scratch,) = (store.root / "staging" / CACHE).iterdir()
    (scratch / "partial").write_bytes(b"half")
    assert store.caches() == [CACHE]
    assert store.gc(CACHE, 1) == []
    assert below(store.root / "staging") == {CACHE, f"{CACHE}/{scratch.name}", f"{CACHE}/{scratch.name}/partial"}
    store.gc(CACHE, None)
    assert below(store.root / "staging") == set()
    assert store.caches() == []


def test_while_somebody_reads_nothing_is_collected_or_withdrawn(store: Store) -> None:
    first = publish(store, ONE)
    publish(store, TWO)
    with store.pin(CACHE), store.pin(CACHE):
        with pytest.raises(Busy):
            store.gc(CACHE, 1)
        with pytest.raises(Busy):
            store.drop(CACHE, first.id)
        assert store.has(CACHE, first.id)
    assert ids(store.gc(CACHE, 1)) == [first.id]


def test_a_stage_under_way_keeps_the_version_that_it_links_from(store: Store) -> None:
    publish(store, ONE)
    with store.refreshing(CACHE), store.stage(CACHE, "s"), pytest.raises(Busy):
        store.gc(CACHE, None)


def test_a_withdrawn_version_is_absent_rather_than_wrong(store: Store) -> None:
    first, second = publish(store, ONE), publish(store, TWO)
    store.drop(CACHE, first.id)
    assert store.current(CACHE) == second.id
    store.drop(CACHE, second.id)
    assert store.current(CACHE) is None
    assert store.versions(CACHE) == []
    assert publish(store, TWO).id == second.id


def test_a_damaged_version_that_a_volume_shows_directly_stays_but_no_new_volume_gets_it(store: Store) -> None:
    """Renaming the golden tree away would empty the running pod's volume; one with a link tree of its own is safe."""
    version = publish(store, ONE)
    store.records.write(record("shown", version.id))
    store.records.write(VolumeRecord(id="linked", cache=CACHE, version=version.id, target="/target", slot="1"))
    with pytest.raises(Busy, match=r"volumes shown show version .*: delete their pods"):
        store.drop(CACHE, version.id)
    assert store.current(CACHE) is None
    assert store.has(CACHE, version.id)
    shutil.rmtree(store.records.place("shown"))
    store.drop(CACHE, version.id)
    assert not store.has(CACHE, version.id)


def test_link_trees_of_a_collected_version_keep_their_files(store: Store) -> None:
    version = publish(store, ONE)
    (store.root / "pool" / "tree").hardlink_to(store.tree(CACHE, version.id) / "a")
    store.drop(CACHE, version.id)
    trash.empty(store.trash)
    status = (store.root / "pool" / "tree").stat()
    assert (store.root / "pool" / "tree").read_bytes() == b"1"
    assert (status.st_mode & 0o7777, status.st_nlink) == (0o444, 1)


# Many at once


def test_a_reader_of_current_never_sees_an_absent_version_in_a_thousand_switches() -> None:
    with memory() as place:
        store = Store.open(Path(place))
        both = [publish(store, ONE).id, publish(store, TWO).id]
        contents: set[bytes] = set()
        failures: list[BaseException] = []
        done = threading.Event()

        def read() -> None:
            try:
                while not done.is_set():
                    current = store.current(CACHE)
                    assert current in both
                    assert store.has(CACHE, current)
                    contents.add((store.root / "caches" / CACHE / "current" / "tree" / "a").read_bytes())
            except BaseException as error:  # noqa: BLE001  (told to the main thread)
                failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(1000):
            store.set_current(CACHE, both[number % 2])
        done.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert contents == {b"1", b"changed"}


READER = """
import sys
from pathlib import Path
from cachefetch.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
reads = 0
while not Path(sys.argv[2]).exists():
    with store.pin("deps"):
        current = store.current("deps")
        for _ in range(5):
            assert (store.tree("deps", current) / "a").read_bytes(), current
    reads += 1
assert reads
"""


def test_pinned_readers_in_other_processes_never_lose_their_version(tmp_path: Path) -> None:
    """Publishing and collecting go on meanwhile, as they do on a node."""
    with memory() as place:
        store = Store.open(Path(place))
        publish(store, [File(b"a", b"0")])
        command = [sys.executable, "-c", READER, place, str(tmp_path / "stop")]
        readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for reader in readers:
            assert reader.stdout
            assert reader.stdout.readline() == "ready\n"
        collected = 0
        for number in itertools.count(1):
            publish(store, [File(b"a", str(number).encode())])
            with suppress(Busy):
                collected += len(store.gc(CACHE, 1))
            trash.empty(store.trash)
            if number >= 100 and collected >= 3:
                break
        (tmp_path / "stop").touch()
        for reader in readers:
            reader.communicate()
            assert reader.returncode == 0
        check_store(store)


class Life(RuleBasedStateMachine):
    """Everything that can happen to a cache, in any order, against a model of what must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.place = memory()
        self.store = Store.open(Path(self.place.name))
        self.pins: list[ExitStack] = []
        self.present: set[str] = set()
        self.volumes: dict[str, str] = {}
        self.current: str | None = None

    def teardown(self) -> None:
        for pin in self.pins:
            pin.close()
        check_store(self.store)
        self.place.cleanup()

    @rule(number=st.integers(0, 4))
    def publish(self, number: int) -> None:
        self.current = publish(self.store, [File(b"n", str(number).encode(), token=b"%d" % number), *ONE]).id
        self.present.add(self.current)

    @rule()
    def pin(self) -> None:
        pin = ExitStack()
        pin.enter_context(self.store.pin(CACHE))
        self.pins.append(pin)

    @precondition(lambda self: self.pins)
    @rule()
    def unpin(self) -> None:
        self.pins.pop().close()

    @precondition(lambda self: self.present)
    @rule(volume=st.sampled_from(["v1", "v2"]), data=st.data())
    def use(self, volume: str, data: st.DataObject) -> None:
        self.volumes[volume] = data.draw(st.sampled_from(sorted(self.present)))
        self.store.records.write(record(volume, self.volumes[volume]))

    @precondition(lambda self: self.volumes)
    @rule()
    def leave(self) -> None:
        volume, _ = self.volumes.popitem()
        self.store.discard(self.store.records.place(volume))

    @rule(retain=st.integers(1, 3) | st.none())
    def collect(self, retain: int | None) -> None:
        if self.pins:
            with pytest.raises(Busy):
                self.store.gc(CACHE, retain)
            return
        dropped = set(ids(self.store.gc(CACHE, retain)))
        used = set(self.volumes.values())
        if retain is None:
            assert dropped == self.present - used
            self.current = self.current if self.current in used else None
        else:
            assert dropped.isdisjoint({self.current, *used})
            assert len(self.present - dropped - used) <= max(retain, 1)
        self.present -= dropped

    @precondition(lambda self: self.present and not self.pins)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        version_id = data.draw(st.sampled_from(sorted(self.present - set(self.volumes.values())) or [""]))
        if version_id:
            self.store.drop(CACHE, version_id)
            self.present.discard(version_id)
            self.current = None if self.current == version_id else self.current

    @rule()
    def empty_trash(self) -> None:
        trash.empty(self.store.trash)

    @rule()
    def open_again(self) -> None:
        self.store = Store.open(Path(self.place.name))

    @invariant()
    def what_must_be_there_is_there(self) -> None:
        assert set(ids(self.store.versions(CACHE))) == self.present
        assert self.store.current(CACHE) == self.current
        assert self.store.users(CACHE).keys() == set(self.volumes.values())
        assert {f"{CACHE}@versions"} >= set(held_locks(self.store.root)) or not self.pins


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestLife = Life.TestCase


# Killed at any moment

STEPS = {
    "open", "fcntl.flock", "sqlite3.connect", "os.rename", "os.mkdir", "os.link", "os.symlink", "os.remove",
    "os.rmdir", "os.utime", "os.chmod", "os.chown",
}  # fmt: skip


def first_refresh(root: Path) -> None:
    refresh(Store.open(root), declared(), MemorySource(ONE), Silent())


def later_refresh(root: Path) -> None:
    store = Store.open(root)
    refresh(store, declared(), MemorySource(TWO), Silent())
    store.gc(CACHE, 1)
    trash.empty(store.trash)


def back_and_forth(root: Path) -> None:
    store = Store.open(root)
    for items in (TWO, ONE):
        refresh(store, declared(), MemorySource(items), Silent())
    store.gc(CACHE, 1)


def withdraw(root: Path) -> None:
    store = Store.open(root)
    current = store.current(CACHE)
    assert current
    store.drop(CACHE, current)
    refresh(store, declared(), MemorySource(ONE), Silent())


def undeclare(root: Path) -> None:
    store = Store.open(root)
    store.gc(CACHE, None)
    trash.empty(store.trash)


def use_and_leave(root: Path) -> None:
    store = Store.open(root)
    current = store.current(CACHE)
    assert current
    with store.pin(CACHE):
        store.records.write(record("v", current))
    refresh(store, declared(), MemorySource(TWO), Silent())
    store.gc(CACHE, 1)
    assert store.has(CACHE, current)
    store.discard(store.records.place("v"))


SCENARIOS = {
    each.__name__: each for each in (first_refresh, later_refresh, back_and_forth, withdraw, undeclare, use_and_leave)
}
ALWAYS_CURRENT = {"later_refresh", "back_and_forth", "use_and_leave"}


def kill_at(step: int) -> None:
    """Let this process be killed before its step of that number (docs.python.org, audit events table)."""
    seen = 0

    def hook(event: str, _arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in STEPS:  # os.kill is an event, too
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def crash_everywhere(name: str, place: Path) -> None:
    """Run the scenario again and again in a child each, killed one step later each time, until one gets through."""
    for step in itertools.count(1):
        pid = os.fork()
        if pid == 0:
            root = place / str(step)
            try:
                if name != "first_refresh":
                    first_refresh(root)
                kill_at(step)
                SCENARIOS[name](root)
            except BaseException:  # noqa: BLE001  (the parent hears of it by the status)
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.fixture(params=sorted(SCENARIOS))
def crashed(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[Path]]]:
    """A scenario and the directories it left, killed at each of its steps."""
    with memory() as place:
        program = "import sys; from pathlib import Path; from tests.cachefetch.test_store import crash_everywhere\n"
        program += "crash_everywhere(sys.argv[1], Path(sys.argv[2]))"
        subprocess.run([sys.executable, "-c", program, request.param, place], check=True, cwd=Path(__file__).parents[2])
        yield request.param, sorted(Path(place).iterdir(), key=lambda path: int(path.name))


@pytest.mark.slow
def test_killed_at_any_step_the_store_is_sound_and_the_next_refresh_leaves_nothing_behind(
    crashed: tuple[str, list[Path]],
) -> None:
    scenario, roots = crashed
    assert len(roots) > 20
    for root in roots:
        store = Store.open(root)
        current = store.current(CACHE)
        assert current is None or store.has(CACHE, current)
        assert current or scenario not in ALWAYS_CURRENT, root
        for version in store.versions(CACHE):
            assert list(verify(store, CACHE, version.id)) == [], root
        shutil.rmtree(root / "volumes" / "v", ignore_errors=True)
        result = refresh(store, declared(), MemorySource(TWO), Silent())
        store.gc(CACHE, 1)
        trash.empty(store.trash)
        check_store(store)
        left = below(root) - {str(path.relative_to(root)) for path in store.tree(CACHE, result.version.id).rglob("*")}
        version_place = f"caches/{CACHE}/versions/{result.version.id}"
        assert {path for path in left if not path.startswith("locks/")} == {
            "caches", f"caches/{CACHE}", f"caches/{CACHE}/current", f"caches/{CACHE}/origin.db",
            f"caches/{CACHE}/versions", version_place, f"{version_place}/manifest", f"{version_place}/tree",
            "locks", "pool", "run", "staging", f"staging/{CACHE}", "trash", "volumes",
        }, root  # fmt: skip
