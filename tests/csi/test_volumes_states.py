"""Any order of calls, refreshes, collections, withdrawals, restarts and interference keeps the rules of volumes."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cachefetch import trash
from cachefetch.errors import Conflict, GoldlinkError, NotReady, Precondition
from cachefetch.store import Store
from tests.cachefetch.fakes import CACHE, Dir, File, check_store, publish
from tests.csi.test_volumes import Node

if TYPE_CHECKING:
    from cachefetch.records import VolumeRecord

IDS = st.sampled_from(["v1", "v2", "v3"])
PATHS = st.sampled_from(["", "lib"])


class Life(RuleBasedStateMachine):
    """One node; `self.live` is what must be published: volume id to (version, subtree)."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.node = Node(Store.open(self.root / "state"), self.root)
        self.store = self.node.store
        self.live: dict[str, tuple[str, str]] = {}
        self.foreign: set[str] = set()
        self.boots = 1

    @initialize()
    def first_version(self) -> None:
        self.refresh(0)

    @rule(number=st.integers(0, 5))
    def refresh(self, number: int) -> None:
        publish(self.store, [Dir(b"lib"), File(b"lib/same", b"same"), File(b"n", str(number).encode())])

    @rule(volume_id=IDS, path=PATHS)
    def publish(self, volume_id: str, path: str) -> None:
        current = self.store.current(CACHE)
        try:
            record, repeated = self.node.publish(volume_id, path=path, choose=self.choose)
        except Conflict:
            assert volume_id in self.foreign or self.live[volume_id][1] != path
        except Precondition:
            assert volume_id in self.foreign
        except NotReady:
            assert current is None
            assert volume_id not in self.live
        else:
            assert repeated == (volume_id in self.live)
            assert (record.version, record.path) == self.live.setdefault(volume_id, (current or "", path))

    def choose(self) -> str:
        if current := self.store.current(CACHE):
            return current
        raise NotReady("there is none")

    @rule(volume_id=IDS)
    def unpublish(self, volume_id: str) -> None:
        try:
            self.node.unpublish(volume_id)
        except Precondition:
            assert volume_id in self.foreign
        else:
            self.live.pop(volume_id, None)
            assert not self.node.target(volume_id).exists()

    @rule(volume_id=IDS)
    def publish_that_cannot_mount(self, volume_id: str) -> None:
        self.node.mounter.fail_next("bind_readonly", OSError("no"))
        try:
            self.node.publish(volume_id, choose=self.choose)
        except (OSError, GoldlinkError):
            pass
        else:
            assert volume_id in self.live  # a repeat, which mounts nothing
        self.node.mounter._failures.clear()

    @rule(retain=st.sampled_from([1, 2, None]))
    def collect(self, retain: int | None) -> None:
        self.store.gc(CACHE, retain)

    @rule()
    def withdraw_current(self) -> None:
        if current := self.store.current(CACHE):
            self.store.drop(CACHE, current)

    @rule()
    def restart(self) -> None:
        self.node.boot(f"boot-{self.boots}")
        self.node.volumes.recover()

    @rule()
    def reboot(self) -> None:
        self.boots += 1
        self.node.mounter.mounts.clear()
        self.live.clear()
        self.restart()

    @rule(volume_id=IDS)
    def somebody_litters(self, volume_id: str) -> None:
        target = self.node.target(volume_id)
        if volume_id not in self.live and not target.exists():
            target.mkdir()
            (target / "theirs").write_text("x")
            self.foreign.add(volume_id)

    @rule(volume_id=IDS)
    def somebody_mounts(self, volume_id: str) -> None:
        if volume_id not in self.foreign:
            self.node.target(volume_id).mkdir(exist_ok=True)
            self.node.mounter.mount_foreign(self.root, self.node.target(volume_id))
            self.foreign.add(volume_id)

    @rule(volume_id=IDS)
    def somebody_unmounts_by_hand(self, volume_id: str) -> None:
        mount = self.node.mounter.at(self.node.target(volume_id))
        if mount and volume_id not in self.foreign:
            self.node.mounter.mounts.remove(mount)
            self.live.pop(volume_id, None)

    @rule(volume_id=IDS)
    def somebody_tidies_up(self, volume_id: str) -> None:
        target = self.node.target(volume_id)
        mount = self.node.mounter.at(target)
        if mount and mount.source == self.root:
            self.node.mounter.mounts.remove(mount)
        (target / "theirs").unlink(missing_ok=True)
        self.foreign.discard(volume_id)

    @rule()
    def empty_trash(self) -> None:
        trash.empty(self.store.trash)
        assert list(self.store.trash.iterdir()) == []

    @invariant()
    def at_most_one_mount_of_ours_at_a_target(self) -> None:
        ours = Counter(mount.target for mount in self.node.mounter.mounts if mount.source != self.root)
        assert set(ours.values()) <= {1}

    @invariant()
    def what_is_live_is_mounted_whole(self) -> None:
        for volume_id, (version, path) in self.live.items():
            record = self.store.records.read(volume_id)
            assert record is not None
            assert (record.version, record.path) == (version, path)
            tree = self.node.tree(volume_id)
            assert (tree / "lib" / "same").read_bytes() == b"same"
            assert any(mount.source == tree / path for mount in self.node.mounter.mounts)

    @invariant()
    def nothing_else_stays(self) -> None:
        """No mount without a record; records only of volumes, one each."""
        records: dict[str, VolumeRecord] = {record.target: record for record in self.store.records.all()}
        for mount in self.node.mounter.mounts:
            if mount.source != self.root:
                assert str(mount.target) in records
                assert mount.readonly
        assert len(self.store.records.ids()) <= 3

    def teardown(self) -> None:
        for volume_id in ("v1", "v2", "v3"):
            self.somebody_tidies_up(volume_id)
            self.node.unpublish(volume_id)
        assert self.store.records.ids() == []
        assert self.node.mounter.mounts == []
        check_store(self.store)
        shutil.rmtree(self.root)


Life.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLife = pytest.mark.slow(Life.TestCase)
