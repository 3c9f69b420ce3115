"""Many calls at once, processes that die at any moment: each call OK or a code that says why, and nothing is left."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from csi import syscalls
from csi.disks.ids import disk_id
from csi.pb import csi_pb2
from tests.cachefetch.fakes import File, publish
from tests.csi.disks.cluster import READERS, WRITER, MiB

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.csi.disks.cluster import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

ITEMS = tuple(File(f"f{number}".encode(), b"x" * 5000) for number in range(50))
THREADS = 8


def code_of(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        answer: Any = error  # every one of them is a grpc.Call, too
        return str(answer.code().name)
    return "OK"


def insist(call: Callable[[], object]) -> None:
    """Repeat while the answer is ABORTED, as the sidecars do."""
    while (code := code_of(call)) == "ABORTED":
        time.sleep(0.05)
    assert code == "OK"


def test_identical_calls_at_once_make_one_thing(cluster: Callable[..., Cluster]) -> None:
    """From two controllers; each is OK or ABORTED."""
    one = cluster(controllers=2)
    for member in one.controllers:
        publish(member.store, ITEMS)
    clients = one.controllers * 4
    with ThreadPoolExecutor(THREADS) as pool:
        for call in (
            lambda client: client.create("same"),
            lambda client: client.create("cached", 0, wanted=READERS, cache="deps"),
            lambda client: client.snapshot("snap", client.create("same").volume_id),
            lambda client: client.attach(client.create("same").volume_id, "node-0"),
            lambda client: client.detach(client.create("same").volume_id, "node-0"),
        ):
            codes = Counter(pool.map(lambda client, call=call: code_of(lambda: call(client)), clients))
            assert set(codes) <= {"OK", "ABORTED"}
            assert codes["OK"]
    assert len(one.controllers[0].volumes()) == 2
    assert len(list((one.disks / "sealed").iterdir())) == 2
    with ThreadPoolExecutor(THREADS) as pool:
        for disk in one.controllers[0].volumes():
            codes = Counter(pool.map(lambda client, disk=disk: code_of(lambda: client.delete(disk)), clients))
            assert set(codes) <= {"OK", "ABORTED"}
    assert one.controllers[1].volumes() == []


def test_conflicting_calls_at_once_have_one_winner(cluster: Callable[..., Cluster]) -> None:
    """One size is made and the other refused; one node gets the disk and the other does not."""
    one = cluster(controllers=2, nodes=2)
    for round_ in range(5):
        sizes = [8 * MiB, 9 * MiB] * 4
        with ThreadPoolExecutor(THREADS) as pool:
            codes = list(
                pool.map(
                    lambda size, client: code_of(lambda: client.create(f"race-{round_}", size, limit=size)),  # noqa: B023
                    sizes,
                    one.controllers * 4,
                )
            )
        assert set(codes) <= {"OK", "ALREADY_EXISTS", "ABORTED"}
        assert len({size for size, code in zip(sizes, codes, strict=True) if code == "OK"}) == 1
    disk = one.controllers[0].volumes()[0]
    with ThreadPoolExecutor(THREADS) as pool:
        codes = list(pool.map(lambda node: code_of(lambda: node.stage(disk, WRITER)), one.nodes * 4))
    winners = {node.name for node, code in zip(one.nodes * 4, codes, strict=True) if code == "OK"}
    assert len(winners) == 1
    assert set(codes) <= {"OK", "FAILED_PRECONDITION", "ABORTED"}
    for node in one.nodes:
        node.unstage(disk)


def test_publish_and_unpublish_at_once_end_consistent(cluster: Callable[..., Cluster]) -> None:
    one = cluster()
    (controller,), (node,) = one.controllers, one.nodes
    disk = controller.create("busy").volume_id
    path = node.stage(disk, WRITER)

    def either(number: int) -> str:
        if number % 2:
            return code_of(lambda: node.publish_staged(disk, path, WRITER))
        return code_of(lambda: node.unpublish(disk))

    with ThreadPoolExecutor(THREADS) as pool:
        codes = Counter(pool.map(either, range(200)))
    assert set(codes) <= {"OK", "ABORTED"}
    node.withdraw(disk)
    assert one.mounts() == []


def test_five_hundred_disks_leave_nothing(cluster: Callable[..., Cluster]) -> None:
    """Created, published, unpublished and deleted in random order from eight threads: no leak, no INTERNAL."""
    one = cluster(nodes=2)
    (controller,) = one.controllers
    version = publish(controller.store, ITEMS)
    descriptors = [member_descriptors(member) for member in one.members]
    random_ = random.Random(7)

    def live(number: int) -> None:
        node = random_.choice(one.nodes)
        if number % 2:
            wanted = READERS
            # ABORTED when the last disk of the version went, with the image, while this one was about to appear.
            insist(lambda: controller.create(f"disk-{number}", 0, wanted=wanted, cache="deps"))
        else:
            wanted = WRITER
            insist(lambda: controller.create(f"disk-{number}", 2 * MiB))
        disk = disk_id(f"disk-{number}")
        insist(lambda: controller.attach(disk, node.name, wanted))
        insist(lambda: node.publish(disk, wanted))
        insist(lambda: node.withdraw(disk))
        insist(lambda: controller.detach(disk, node.name))
        insist(lambda: controller.delete(disk))

    resident = []
    for half in (range(250), range(250, 500)):
        numbers = list(half)
        random_.shuffle(numbers)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(live, numbers))
        resident.append([resident_kib(member) for member in one.members])
    assert all(after - before < 8 * 1024 for before, after in zip(*resident, strict=True)), resident
    assert one.mounts() == one.loops() == one.files() == []
    assert controller.store.has("deps", version.id)
    for member, before in zip(one.members, descriptors, strict=True):
        assert member_descriptors(member) <= before + THREADS
    for node in one.nodes:
        assert list((node.state / "run" / "disks").iterdir()) == []


def resident_kib(member: Member) -> int:
    status = Path(f"/proc/{member.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def member_descriptors(member: Member) -> int:
    return len(list(Path(f"/proc/{member.process.pid}/fd").iterdir()))


def test_controller_killed_at_any_moment_leaves_nothing(cluster: Callable[..., Cluster]) -> None:
    """What it was doing is done by the repeated call; a part of it is never seen."""
    one = cluster()
    (controller,) = one.controllers
    publish(controller.store, ITEMS)
    random_ = random.Random(3)

    def work(number: int) -> None:
        disk = controller.create(f"disk-{number}", 4 * MiB).volume_id
        controller.snapshot(f"snap-{number}", disk)
        controller.create(f"shared-{number}", 0, wanted=READERS, volume=disk)
        controller.create(f"cached-{number}", 0, wanted=READERS, cache="deps")
        controller.expand(disk, 6 * MiB)
        controller.delete(disk)

    for number in range(8):
        thread = threading.Thread(target=lambda number=number: code_of(lambda: work(number)))
        thread.start()
        time.sleep(random_.uniform(0.0, 0.25))
        controller.kill()
        thread.join()
        controller.start()
        work(number)
    snapshots = controller.controller.ListSnapshots(csi_pb2.ListSnapshotsRequest())
    assert len(snapshots.entries) == 8
    for entry in snapshots.entries:
        controller.delete_snapshot(entry.snapshot.snapshot_id)
    for disk in controller.volumes():
        assert not controller.get(disk).status.volume_condition.abnormal
        controller.delete(disk)
    for orphan in (one.disks / "sealed").iterdir():  # of jobs that were killed before a record referred to them
        old = time.time() - 3600
        os.utime(orphan, (old, old))
    controller.kill()
    controller.start()
    assert one.files() == []


def test_node_killed_and_started_again_knows_what_it_has(cluster: Callable[..., Cluster]) -> None:
    """Mounts live without it; repeats are OK; nobody else gets the disk meanwhile; afterwards all of it goes."""
    one = cluster(nodes=2)
    (controller,), (first, second) = one.controllers, one.nodes
    disk = controller.create("lives").volume_id
    target = first.publish(disk, WRITER)
    first.kill()
    (target / "while").write_text("dead")
    assert code_of(lambda: second.stage(disk, WRITER)) == "FAILED_PRECONDITION"
    first.start()
    assert code_of(lambda: second.stage(disk, WRITER)) == "FAILED_PRECONDITION"
    assert first.publish(disk, WRITER) == target
    assert (target / "while").read_text() == "dead"
    first.withdraw(disk)
    assert one.mounts() == []
    second.publish(disk, WRITER)
    second.withdraw(disk)


def test_node_that_lost_its_mounts_gives_the_disk_back(cluster: Callable[..., Cluster]) -> None:
    """As after a reboot: the plugin starts, and nothing is mounted."""
    one = cluster(nodes=2)
    (controller,), (first, second) = one.controllers, one.nodes
    disk = controller.create("rebooted").volume_id
    target = first.publish(disk, WRITER)
    first.kill()
    for place in (target, first.staging / disk):
        syscalls.umount(place, 0)
    first.start()
    second.publish(disk, WRITER)
    second.withdraw(disk)
    first.withdraw(disk)


def test_dead_node_loses_the_disk_by_unpublish_only(cluster: Callable[..., Cluster]) -> None:
    """ControllerUnpublish is the word of the cluster that the node is gone (force detach)."""
    one = cluster(nodes=2)
    (controller,), (first, second) = one.controllers, one.nodes
    disk = controller.create("forced").volume_id
    controller.attach(disk, first.name)
    first.publish(disk, WRITER)
    first.kill()
    assert code_of(lambda: second.stage(disk, WRITER)) == "FAILED_PRECONDITION"
    controller.detach(disk, first.name)
    second.publish(disk, WRITER)
    second.withdraw(disk)
    first.start()
    first.withdraw(disk)
