"""The life of a volume, with a mounter that can fail at any step; the files and the store are real."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from cachefetch.errors import Busy, Conflict, GoldlinkError, InvalidRequest, NotReady, Precondition, UnknownVolume
from cachefetch.linktree import link_tree
from cachefetch.model import LinkMode
from csi.pool import Slot
from csi.requests import Access, parse_publish
from csi.targets import Targets
from csi.volumes import Volumes, check_subtree
from tests.cachefetch.fakes import CACHE, Dir, File, Link, publish
from tests.csi.client import publish_request
from tests.csi.conftest import ITEMS
from tests.csi.fakes import FakeMounter, FakeViews

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachefetch.model import Version
    from cachefetch.records import VolumeRecord
    from cachefetch.store import Store


class Trees:
    """A pool that has a tree for everybody, until it is told to be empty."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.empty = False
        self.wants = False
        self.given: list[Slot] = []
        self.taken = 0

    def take(self, cache: str, version: str, dest: Path) -> Slot | None:
        if self.empty:
            return None
        self.taken += 1
        return Slot.of(link_tree(self.store.tree(cache, version), dest))

    def lost(self, cache: str, version: str) -> None:
        self.taken -= 1

    def give(self, cache: str, version: str, tree: Path, slot: Slot) -> bool:
        self.lost(cache, version)
        if self.wants:
            tree.rename(self.store.root / "pool" / slot.name)
            self.given.append(slot)
        return self.wants


class Node:
    """Volumes on a fake mounter; `boot` starts anew on the same store."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store = store
        self.pods = root / "pods"
        self.pods.mkdir()
        self.mounter = FakeMounter()
        self.trees = Trees(store)
        self.views = FakeViews(self.mounter)
        self.discards = 0
        self.boot("boot-1")

    def boot(self, boot_id: str) -> None:
        """A new process; another boot id is a reboot, which ends every mount."""
        self.volumes = Volumes(
            self.store,
            Targets(self.mounter),
            self.trees,
            self.views,
            boot_id=boot_id,
            on_discard=self.count_discard,
        )

    def count_discard(self) -> None:
        self.discards += 1

    def target(self, volume_id: str) -> Path:
        (self.pods / volume_id).mkdir(exist_ok=True)
        return self.pods / volume_id / "mount"

    def publish(
        self, volume_id: str, *, choose: Callable[[], str] | None = None, target: Path | None = None, **given: Any
    ) -> tuple[VolumeRecord, bool]:
        request = parse_publish(publish_request(volume_id, target or self.target(volume_id), **given))
        return self.volumes.publish(request, choose or (lambda: self.store.current(CACHE) or ""))

    def unpublish(self, volume_id: str) -> None:
        self.volumes.unpublish(volume_id, self.target(volume_id))

    def tree(self, volume_id: str) -> Path:
        return self.store.records.place(volume_id) / "tree"

    def mounted(self) -> Counter[Path]:
        return Counter(mount.target for mount in self.mounter.mounts)


@pytest.fixture
def node(store: Store, tmp_path: Path) -> Node:
    return Node(store, tmp_path)


@pytest.fixture
def version(store: Store) -> Version:
    return publish(store, ITEMS)


def not_wanted() -> str:
    raise AssertionError("a version was chosen for a volume that is there")


def test_publish_records_links_and_mounts_read_only(node: Node, version: Version) -> None:
    record, repeated = node.publish("v", path="lib")
    assert (repeated, record.version) == (False, version.id)
    slot = Slot.parse(record.slot)
    assert slot is not None
    assert slot.link_mode is LinkMode.HARDLINK
    mount = node.mounter.at(node.target("v"))
    assert mount is not None
    assert (mount.source, mount.readonly) == (node.tree("v") / "lib", True)
    assert node.store.records.read("v") == record
    assert node.volumes.count() == {(CACHE, version.id): 1}
    golden = node.store.tree(CACHE, version.id)
    assert (node.tree("v") / "lib" / "a.js").samefile(golden / "lib" / "a.js")


def test_a_repeat_changes_nothing_and_keeps_the_version(node: Node, version: Version) -> None:
    first, _ = node.publish("v")
    publish(node.store, [File(b"new")])
    again, repeated = node.publish("v", choose=not_wanted)
    assert (again, repeated) == (first, True)
    assert node.mounted() == {node.target("v"): 1}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"path": "lib"}, "path"),
        ({"access": "private", "readonly": False}, "access"),
        ({"version": "f" * 64}, "version"),
        ({"cache": "model"}, "cache"),
        ({"namespace": "team-b"}, "namespace"),
    ],
)
def test_another_request_for_a_live_volume_is_a_conflict(
    node: Node, version: Version, change: dict[str, Any], key: str
) -> None:
    before, _ = node.publish("v")
    with pytest.raises(Conflict, match=f"published with {key}"):
        node.publish("v", choose=not_wanted, **change)
    assert node.store.records.read("v") == before
    assert node.mounted() == {node.target("v"): 1}


def test_another_target_for_a_live_volume_is_refused(node: Node, version: Version) -> None:
    node.publish("v")
    with pytest.raises(Precondition, match="unpublish it there"):
        node.publish("v", target=node.target("w"), choose=not_wanted)
    assert node.mounted() == {node.target("v"): 1}
    assert not node.target("w").exists()


def test_a_volume_whose_pod_directory_is_out_of_sight_keeps_its_files(node: Node, version: Version) -> None:
    """The mount may live on where this process cannot see it; nothing may take its tree away."""
    node.publish("v")
    node.pods.rename(node.pods.with_name("away"))
    node.mounter.mounts.clear()
    assert node.volumes.recover() == 1
    with pytest.raises(Precondition, match="no parent directory"):
        node.volumes.publish(parse_publish(publish_request("v", node.pods / "v" / "mount")), not_wanted)
    (node.pods / "w").mkdir(parents=True)
    with pytest.raises(Precondition, match="unpublish it there"):
        node.publish("v", target=node.target("w"), choose=not_wanted)
    assert (node.tree("v") / "lib" / "a.js").exists()


@pytest.mark.parametrize(("verb", "late"), [("bind_readonly", False), ("look", False), ("look", True)])
def test_a_failed_publish_leaves_nothing_and_the_next_one_works(
    node: Node, version: Version, verb: str, late: bool
) -> None:
    node.mounter.fail_next(verb, OSError(errno.EIO, "a bad disk"), late=late)
    with pytest.raises(OSError, match="a bad disk"):
        node.publish("v")
    assert node.store.records.ids() == []
    assert not node.target("v").exists()
    assert node.mounter.mounts == []
    assert node.publish("v")[1] is False


def test_a_failed_choice_leaves_nothing(node: Node, version: Version) -> None:
    def choose() -> str:
        raise NotReady("not yet")

    with pytest.raises(NotReady):
        node.publish("v", choose=choose)
    assert node.store.records.ids() == []
    assert node.publish("v")[1] is False


def test_a_version_dropped_between_choice_and_use_is_tried_again(node: Node, version: Version) -> None:
    def choose() -> str:
        node.store.drop(CACHE, version.id)
        return version.id

    with pytest.raises(NotReady, match="dropped meanwhile"):
        node.publish("v", choose=choose)
    assert node.store.records.ids() == []


def test_a_target_in_the_way_is_told_before_anything_is_waited_for(node: Node, version: Version) -> None:
    node.target("v").write_text("theirs")
    with pytest.raises(Precondition):
        node.publish("v", choose=not_wanted)
    assert node.store.records.ids() == []


def test_unpublish_ends_the_volume_and_repeats_are_fine(node: Node, version: Version) -> None:
    node.publish("v")
    for _ in range(3):
        node.unpublish("v")
        assert node.store.records.ids() == []
        assert not node.target("v").exists()
    assert node.mounter.mounts == []
    assert node.discards == 1
    node.unpublish("never heard of")


def test_unpublish_at_another_target_leaves_the_volume(node: Node, version: Version) -> None:
    node.publish("v")
    node.volumes.unpublish("v", node.target("w"))
    assert node.mounted() == {node.target("v"): 1}
    assert node.volumes.usage("v", node.target("v")).abnormal == ""


def test_unpublish_with_a_foreign_file_changes_nothing(node: Node, version: Version) -> None:
    node.publish("v")
    node.mounter.mounts.clear()
    (node.target("v") / "theirs").write_text("x")
    with pytest.raises(Precondition):
        node.unpublish("v")
    assert node.store.records.ids() == ["v"]
    (node.target("v") / "theirs").unlink()
    node.unpublish("v")
    assert node.store.records.ids() == []


def test_unpublish_does_not_need_the_version(node: Node, version: Version) -> None:
    node.publish("v")
    node.store.drop(CACHE, version.id)
    assert "withdrawn" in node.volumes.usage("v", node.target("v")).abnormal
    node.unpublish("v")
    assert node.store.records.ids() == []


def test_usage_tells_what_is_shared_and_what_is_owned(node: Node, version: Version) -> None:
    node.publish("v")
    usage = node.volumes.usage("v", node.target("v"))
    assert (usage.shared_bytes, usage.shared_inodes) == (version.totals.bytes, version.totals.entries)
    directories = [
        path for path in (node.tree("v"), *node.tree("v").rglob("*")) if path.is_dir() and path.name != "out"
    ]
    assert usage.own_inodes == len(directories)
    assert usage.own_bytes == sum(path.stat().st_blocks * 512 for path in directories)
    assert usage.abnormal == ""


def test_usage_of_what_is_not_there_is_not_found(node: Node, version: Version) -> None:
    node.publish("v")
    for volume_id, path in (("w", node.target("w")), ("v", node.target("w")), ("w", node.target("v"))):
        with pytest.raises(UnknownVolume):
            node.volumes.usage(volume_id, path)


def test_a_volume_that_lost_its_mount_is_abnormal(node: Node, version: Version) -> None:
    node.publish("v")
    mount = node.mounter.mounts[0]
    mount.readonly = False
    assert "writable" in node.volumes.usage("v", node.target("v")).abnormal
    node.mounter.mounts.clear()
    assert "not mounted" in node.volumes.usage("v", node.target("v")).abnormal


@pytest.mark.parametrize("path", ["lib", "lib/deep"])
def test_a_subtree_of_directories_is_shown(node: Node, version: Version, path: str) -> None:
    node.publish("v", path=path)
    assert node.mounter.mounts[0].source == node.tree("v") / path


@pytest.mark.parametrize("path", ["out", "out/ssh", "lib/a.js", "lib/self", "lib/a.js/x", "missing", "lib/missing/x"])
def test_a_subtree_that_leads_elsewhere_or_nowhere_is_refused(node: Node, version: Version, path: str) -> None:
    with pytest.raises(InvalidRequest, match="is no directory of this version"):
        node.publish("v", path=path)
    assert node.store.records.ids() == []
    assert node.mounter.mounts == []


def test_a_symlink_to_a_directory_of_the_tree_is_refused_too(store: Store) -> None:
    """What it leads to is the origin's choice, and may be another thing in the next version."""
    version = publish(store, [Dir(b"a"), Link(b"b", b"a")])
    check_subtree(store.tree(CACHE, version.id), "a")
    with pytest.raises(InvalidRequest):
        check_subtree(store.tree(CACHE, version.id), "b")


def test_recovery_keeps_what_is_mounted_and_drops_the_rest(node: Node, version: Version) -> None:
    node.publish("lives")
    node.publish("unmounted")
    node.mounter.mounts.pop()
    (node.store.records.place("half")).mkdir()
    (node.store.records.place("half") / ".volume.json.0011").write_text("{")
    (node.store.records.place("damaged")).mkdir()
    (node.store.records.place("damaged") / "volume.json").write_text('{"id": "damaged", "cache"')
    (node.store.records.directory / ".probe-0011").write_text("another process looks whether the store is fit")
    node.boot("boot-1")
    assert node.volumes.recover() == 1
    assert node.store.records.ids() == [".probe-0011", "lives"]
    assert node.publish("lives", choose=not_wanted)[1] is True
    assert node.publish("unmounted")[1] is False


def test_a_reboot_ends_every_volume_and_no_version(node: Node, version: Version) -> None:
    node.publish("v")
    node.publish("w")
    node.mounter.mounts.clear()
    node.boot("boot-2")
    assert node.volumes.recover() == 0
    assert node.store.records.ids() == []
    assert node.store.has(CACHE, version.id)
    assert node.publish("v")[0].boot_id == "boot-2"


def test_recovery_is_not_stopped_by_a_volume_that_was_remounted(node: Node, version: Version) -> None:
    node.publish("v")
    node.mounter.mounts[0].readonly = False
    node.boot("boot-1")
    assert node.volumes.recover() == 1
    with pytest.raises(Precondition, match="writable"):
        node.publish("v", choose=not_wanted)
    node.unpublish("v")
    assert node.store.records.ids() == []


def test_a_volume_below_a_foreign_mount_keeps_its_files(node: Node, version: Version) -> None:
    """A container that runs still reads them, whatever was mounted over its target on the node later."""
    node.publish("v")
    foreign = node.mounter.mount_foreign(node.pods, node.target("v"))
    node.boot("boot-1")
    assert node.volumes.recover() == 1
    with pytest.raises(Precondition, match="foreign mount"):
        node.publish("v", choose=not_wanted)
    with pytest.raises(Precondition, match="foreign mount"):
        node.unpublish("v")
    assert (node.tree("v") / "lib" / "a.js").exists()
    node.mounter.mounts.remove(foreign)
    assert node.publish("v", choose=not_wanted)[1] is True


def test_calls_for_one_volume_exclude_each_other(node: Node, version: Version) -> None:
    inside, go = threading.Event(), threading.Event()

    def choose() -> str:
        inside.set()
        assert go.wait(20)
        return version.id

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(node.publish, "v", choose=choose)
        assert inside.wait(20)
        with pytest.raises(Busy):
            node.publish("v")
        with pytest.raises(Busy):
            node.unpublish("v")
        node.publish("w")
        go.set()
        assert waiting.result(20)[1] is False
    assert node.mounted() == {node.target("v"): 1, node.target("w"): 1}


def test_many_threads_leave_a_consistent_state(node: Node, version: Version) -> None:
    """8 threads publish, conflict and unpublish one volume: each call is OK, busy or refused, and then all is whole."""
    barrier = threading.Barrier(8)

    def work(number: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        barrier.wait()
        for turn in range(20):
            try:
                if (number + turn) % 3 == 0:
                    node.unpublish("v")
                else:
                    node.publish("v", path="lib" if number % 2 else "")
                answers["OK"] += 1
            except GoldlinkError as error:
                answers[type(error).__name__] += 1
        return answers

    with ThreadPoolExecutor(8) as pool:
        answers = sum(pool.map(work, range(8)), Counter[str]())
    assert set(answers) <= {"OK", "Busy", "Conflict"}
    assert answers.total() == 160
    assert set(node.mounted().values()) <= {1}
    assert node.store.records.ids() == (["v"] if node.mounter.mounts else [])
    node.unpublish("v")
    assert list(node.store.records.directory.iterdir()) == []


def test_without_a_ready_tree_the_golden_tree_is_bound_and_its_version_pinned(node: Node, version: Version) -> None:
    node.trees.empty = True
    record, _ = node.publish("v", path="lib")
    golden = node.store.tree(CACHE, version.id)
    assert record.slot == ""
    assert node.mounter.mounts[0].source == golden / "lib"
    assert [path.name for path in node.store.records.place("v").iterdir()] == ["volume.json"]
    usage = node.volumes.usage("v", node.target("v"))
    assert (usage.shared_bytes, usage.own_bytes, usage.own_inodes) == (version.totals.bytes, 0, 0)
    publish(node.store, [File(b"new")])
    publish(node.store, [File(b"newer")])
    dropped = node.store.gc(CACHE, retain=1)
    assert version.id not in {gone.id for gone in dropped}
    assert golden.is_dir()
    node.unpublish("v")
    assert node.discards == 0
    assert node.store.records.ids() == []
    assert [gone.id for gone in node.store.gc(CACHE, retain=1)] == [version.id]


def test_a_golden_tree_that_is_bound_is_recognised_without_its_record(node: Node, version: Version) -> None:
    """Somebody lost the records: unpublish still takes away what goldlink mounted."""
    node.trees.empty = True
    node.publish("v")
    node.store.records.remove("v")
    node.unpublish("v")
    assert node.mounter.mounts == []


def test_a_tree_goes_back_to_the_pool_where_it_is_wanted(node: Node, version: Version) -> None:
    record, _ = node.publish("v")
    node.trees.wants = True
    node.unpublish("v")
    assert [slot.name for slot in node.trees.given] == [record.slot]
    assert node.discards == 0
    assert node.store.records.ids() == []


def test_the_pool_hears_of_every_tree_that_does_not_come_back(node: Node, version: Version) -> None:
    node.publish("v")
    assert (node.trees.taken, node.volumes.linked()) == (1, {(CACHE, version.id): 1})
    node.mounter.mounts.clear()  # somebody unmounted it
    node.publish("v")
    assert node.trees.taken == 1
    node.unpublish("v")
    assert (node.trees.taken, node.volumes.linked()) == (0, {})
    node.mounter.fail_next("bind_readonly", OSError(errno.EIO, "mount"))
    with pytest.raises(OSError, match="mount"):
        node.publish("blocked")
    assert node.trees.taken == 0


def test_a_damaged_version_is_not_withdrawn_from_under_a_volume(node: Node, version: Version) -> None:
    node.trees.empty = True
    node.publish("v")
    with pytest.raises(Busy, match="volumes v show"):
        node.store.drop(CACHE, version.id)
    assert node.store.current(CACHE) is None
    assert node.store.tree(CACHE, version.id).is_dir()
    node.unpublish("v")
    node.store.drop(CACHE, version.id)
    assert not node.store.has(CACHE, version.id)


def publish_private(node: Node, volume_id: str, **given: Any) -> tuple[VolumeRecord, bool]:
    return node.publish(volume_id, access="private", readonly=False, **given)


def test_a_private_volume_is_a_view_of_the_golden_tree_of_its_own(node: Node, version: Version) -> None:
    record, repeated = publish_private(node, "v", path="lib")
    place = node.store.records.place("v")
    mount = node.mounter.at(node.target("v"))
    assert mount is not None
    assert (repeated, mount.source, mount.readonly) == (False, place / "upper", False)
    assert node.views.lowers == [node.store.tree(CACHE, version.id) / "lib"]
    assert (record.slot, record.access, record.limit) == ("", "private", 0)
    assert node.store.records.read("v") == record
    assert not node.tree("v").exists()


def test_a_private_volume_is_repeated_without_a_second_mount(node: Node, version: Version) -> None:
    first, _ = publish_private(node, "v")
    publish(node.store, [File(b"new")])
    (node.store.records.place("v") / "upper" / "mine").write_text("stays")
    again, repeated = publish_private(node, "v", choose=not_wanted)
    assert (again, repeated) == (first, True)
    assert node.mounted() == {node.target("v"): 1}
    assert (node.store.records.place("v") / "upper" / "mine").exists()


def test_what_was_written_to_a_private_volume_goes_to_the_trash(node: Node, version: Version) -> None:
    publish_private(node, "v")
    (node.store.records.place("v") / "upper" / "mine").write_text("x")
    node.trees.wants = True
    for _ in range(2):
        node.unpublish("v")
        assert node.store.records.ids() == []
        assert not node.target("v").exists()
    assert node.mounter.mounts == []
    assert (node.discards, node.trees.given) == (1, [])
    assert [path.name for path in node.store.trash.glob("*-v/upper/*")] == ["mine"]
    publish_private(node, "v")
    assert list((node.store.records.place("v") / "upper").iterdir()) == []


def test_a_private_volume_pins_its_version(node: Node, version: Version) -> None:
    publish_private(node, "v")
    assert node.volumes.count() == node.volumes.count(Access.PRIVATE) == {(CACHE, version.id): 1}
    assert node.volumes.count(Access.SHARED) == {}
    with pytest.raises(Busy, match="volumes v show"):
        node.store.drop(CACHE, version.id)
    for content in (b"newer", b"newest"):
        publish(node.store, [File(b"new", content)])
        assert version.id not in {gone.id for gone in node.store.gc(CACHE, retain=1)}
    node.unpublish("v")
    assert version.id in {gone.id for gone in node.store.gc(CACHE, retain=1)}


def test_a_failed_private_publish_leaves_nothing(node: Node, version: Version) -> None:
    node.views.failure = OSError(errno.EIO, "a bad disk")
    with pytest.raises(OSError, match="a bad disk"):
        publish_private(node, "v")
    node.views.failure = None
    with pytest.raises(InvalidRequest):
        publish_private(node, "v", path="missing")
    assert node.store.records.ids() == []
    assert not node.target("v").exists()
    assert node.mounter.mounts == []
    assert publish_private(node, "v")[1] is False


def test_private_volumes_survive_a_process_and_no_reboot(node: Node, version: Version) -> None:
    record, _ = publish_private(node, "v")
    room = node.store.records.place("half") / "room"
    room.mkdir(parents=True)
    node.mounter.mount_foreign(room, room)
    node.boot("boot-1")
    assert node.volumes.recover() == 1
    assert node.mounted() == {node.target("v"): 1}
    assert node.store.records.ids() == ["v"]
    assert publish_private(node, "v", choose=not_wanted) == (record, True)
    node.mounter.mounts.clear()
    node.boot("boot-2")
    assert node.volumes.recover() == 0
    assert node.store.records.ids() == []


def test_a_private_volume_is_unpublished_without_its_record(node: Node, version: Version) -> None:
    publish_private(node, "v")
    (node.store.records.place("v") / "volume.json").write_text("{")
    node.unpublish("v")
    assert node.mounter.mounts == []
    assert node.store.records.ids() == []


def test_the_usage_of_a_private_volume_is_of_what_it_writes_to(node: Node, version: Version) -> None:
    publish_private(node, "v")
    usage = node.volumes.usage("v", node.target("v"))
    assert usage.space is not None
    total, used, available = usage.space.bytes
    assert 0 < used < total
    assert 0 < available < total
    assert (usage.shared_bytes, usage.own_bytes, usage.abnormal) == (version.totals.bytes, 0, "")
    node.mounter.mounts.clear()
    gone = node.volumes.usage("v", node.target("v"))
    assert gone.space is None
    assert "not mounted" in gone.abnormal


def test_the_limit_is_chosen_for_new_views_only(node: Node, version: Version) -> None:
    request = parse_publish(publish_request("v", node.target("v"), access="private", readonly=False))
    first, _ = node.volumes.publish(request, lambda: version.id, limit=1 << 30)
    assert node.views.limits == [1 << 30]
    assert first.limit == 1 << 30
    assert node.volumes.publish(request, not_wanted, limit=0) == (first, True)
