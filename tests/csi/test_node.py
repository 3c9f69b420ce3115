"""The behaviour of the node plugin as kubelet sees it: real calls to the real driver, on real mounts."""

from __future__ import annotations

import errno
import os
import socket
import stat
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from cachefetch import trash
from cachefetch.errors import Busy
from csi import syscalls
from csi.pb import csi_pb2
from tests.cachefetch.fakes import CACHE, File, publish
from tests.csi.client import publish_request
from tests.csi.driver import CONFIG, listing, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cachefetch.model import Version
    from tests.csi.driver import Driver

pytestmark = pytest.mark.root
Code = grpc.StatusCode


@contextmanager
def refused(code: grpc.StatusCode, *words: str) -> Iterator[pytest.ExceptionInfo[grpc.RpcError]]:
    """The call in the body fails with the code, a text that has the words, and no details."""
    with pytest.raises(grpc.RpcError) as caught:
        yield caught
    error = caught.value
    assert error.code() is code, error.details()
    assert [word for word in words if word not in error.details()] == [], error.details()
    assert "grpc-status-details-bin" not in dict(error.trailing_metadata())


# Publishing


def test_a_volume_shows_the_golden_files_themselves(either: Driver, version: Version) -> None:
    target = either.publish("v")
    assert listing(target) == listing(either.store.tree(CACHE, version.id))
    either.check()


def test_a_pinned_version_is_shown_and_not_current(driver: Driver, version: Version) -> None:
    publish(driver.store, [File(b"new")])
    target = driver.publish("v", version=version.id)
    assert (target / "lib" / "a.js").exists()
    assert (driver.publish("w") / "new").exists()


def test_the_same_publish_again_is_ok_and_mounts_once(either: Driver, version: Version) -> None:
    driver = either
    target = driver.publish("v")
    publish(driver.store, [File(b"new")])
    for _ in range(3):
        driver.publish("v")
    driver.restart()
    driver.publish("v")
    assert driver.mounts() == [target]
    assert not (target / "new").exists()
    record = driver.store.records.read("v")
    assert record is not None
    assert record.version == version.id


@pytest.mark.parametrize(
    "change", [{"path": "lib"}, {"namespace": "team-b"}, {"version": "e" * 64}, {"cache": "model"}]
)
def test_other_parameters_for_a_published_volume(driver: Driver, change: dict[str, str]) -> None:
    target = driver.publish("v")
    with refused(Code.ALREADY_EXISTS, "'v'", next(iter(change)), next(iter(change.values()))):
        driver.publish("v", **change)
    assert driver.mounts() == [target]


def test_another_target_for_a_published_volume(driver: Driver) -> None:
    """An inline volume has one place: FAILED_PRECONDITION in the specification's table of second calls."""
    target = driver.publish("v")
    with refused(Code.FAILED_PRECONDITION, str(target)):
        driver.client.publish("v", driver.target("w"))
    assert not driver.target("w").exists()
    assert driver.mounts() == [target]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"colour": "red"}, ["'colour'", "'red'", "cache, version, access, path"]),
        ({"cache": ""}, ["'cache' is missing"]),
        ({"cache": "../x"}, ["'../x'"]),
        ({"path": "../x"}, ["path", "'../x'"]),
        ({"path": "/etc"}, ["path", "'/etc'"]),
        ({"path": "out"}, ["path", "'out'", "no directory"]),
        ({"path": "out/ssh"}, ["path", "'out/ssh'", "no directory"]),
        ({"path": "lib/a.js"}, ["path", "no directory"]),
        ({"version": "v1"}, ["'v1'", "64 hexadecimal"]),
        ({"access": "rw"}, ["access", "'rw'", "shared or private"]),
        ({"readonly": False}, ["readOnly: true", "SELinux"]),
        ({"access": "private"}, ["readonly is true", "readOnly: false"]),
        (
            {"access": "private", "readonly": False},
            ["'private'", "'deps'", "ask the administrator", "private: overlay"],
        ),
    ],
)
def test_wrong_requests_are_told_what_is_allowed(driver: Driver, given: dict[str, Any], words: list[str]) -> None:
    with refused(Code.INVALID_ARGUMENT, *words):
        driver.publish("v", **given)
    assert driver.store.records.ids() == []
    assert not driver.target("v").exists()


def test_wrong_ids_and_targets_are_invalid_in_every_call(driver: Driver) -> None:
    good = str(driver.target("v"))
    for volume_id, target in (("a/b", good), ("..", good), ("", good), ("v", "pods/v"), ("v", ""), ("v", "/a/../b")):
        with refused(Code.INVALID_ARGUMENT):
            driver.client.publish(volume_id, target)
        with refused(Code.INVALID_ARGUMENT):
            driver.client.unpublish(volume_id, target)
    for volume_id, path in (("", good), ("v", ""), ("a/b", good)):
        with refused(Code.INVALID_ARGUMENT):
            driver.client.stats(volume_id, path)
    request = publish_request("v", good)
    request.volume_capability.block.SetInParent()
    with refused(Code.INVALID_ARGUMENT, "block"):
        driver.client.node.NodePublishVolume(request)


# Who may have what


def test_an_unknown_cache_names_only_those_that_the_pod_may_use(driver: Driver) -> None:
    with refused(Code.NOT_FOUND, "'nope'", "caches for namespace 'team-a' are deps, model") as caught:
        driver.publish("v", cache="nope")
    assert "vault" not in caught.value.details()
    with refused(Code.NOT_FOUND, "deps, model, vault"):
        driver.publish("v", cache="nope", namespace="bank")


def test_a_cache_for_others_is_denied_and_nothing_of_it_told(driver: Driver) -> None:
    version = publish(driver.store, [File(b"secret-name", b"x" * 4711)], cache="vault")
    for given in ({}, {"service_account": "builder"}, {"version": version.id}, {"path": "secret-name"}):
        with pytest.raises(grpc.RpcError) as caught:
            driver.publish("v", cache="vault", **given)
        assert caught.value.code() is Code.PERMISSION_DENIED
        for told in (version.id[:6], "secret-name", "4711", "bank", "ci/builder"):
            if told not in given.values():
                assert told not in caught.value.details()
    assert driver.store.records.ids() == []
    driver.publish("v", cache="vault", namespace="bank")
    driver.publish("w", cache="vault", namespace="ci", service_account="builder")


def test_a_live_volume_outlives_its_permission_and_its_cache(driver: Driver) -> None:
    """Kubelet repeats the publish of running pods when it restarts; an error would fail them."""
    publish(driver.store, [File(b"x")], cache="vault")
    driver.publish("v", cache="vault", namespace="bank")
    driver.config.write_text(CONFIG.replace("bank", "nobody"))
    until(lambda: len(driver.events("config")) == 1)
    driver.publish("v", cache="vault", namespace="bank")
    with refused(Code.PERMISSION_DENIED):
        driver.publish("w", cache="vault", namespace="bank")
    driver.config.write_text("caches: []")
    until(lambda: len(driver.events("config")) == 2)
    driver.publish("v", cache="vault", namespace="bank")
    with refused(Code.NOT_FOUND):
        driver.publish("w", cache="vault", namespace="bank")
    until(lambda: collected(driver, "vault"))
    driver.client.stats("v", driver.target("v"))
    assert (driver.target("v") / "x").exists()
    driver.client.unpublish("v", driver.target("v"))


def collected(driver: Driver, cache: str) -> bool:
    """Whether garbage was collected; not while a ready tree of the cache is being made."""
    try:
        driver.store.gc(cache, None)
    except Busy:
        return False
    return True


# Waiting


def test_an_absent_version_is_waited_for_and_then_aborted_with_the_remedy(driver: Driver) -> None:
    with refused(Code.ABORTED, "'model'", "cachefetch refresh model"):
        driver.publish("v", cache="model")
    with refused(Code.ABORTED, "version eeeeeeeeeeee of cache 'deps'"):
        driver.publish("v", version="e" * 64)
    assert driver.store.records.ids() == []


def test_a_callers_deadline_bounds_the_wait(driver_before_start: Driver) -> None:
    """It hears the reason, not DEADLINE_EXCEEDED."""
    driver_before_start.start("--fetch-wait", "1h")
    with refused(Code.ABORTED, "not on this node yet"):
        driver_before_start.client.publish("v", driver_before_start.target("v"), timeout=1.5)


def test_a_version_that_arrives_is_published_within_two_seconds(driver_before_start: Driver) -> None:
    driver = driver_before_start
    driver.start("--fetch-wait", "60s")
    call = driver.client.start_publish("v", driver.target("v"))
    time.sleep(1)  # well into the growing pauses between two looks
    publish(driver.store, [File(b"file")])
    arrived = time.monotonic()
    assert call.result()
    assert time.monotonic() - arrived < 2
    assert (driver.target("v") / "file").exists()


@pytest.mark.alone
def test_two_hundred_waiting_publishes_slow_nobody_down(driver_before_start: Driver, version: Version) -> None:
    """Medians of one run compared as a ratio; the wait for one cache must not be felt by the others.

    Of three rounds the best one counts: what else the machine does only makes calls slower.
    """
    driver = driver_before_start
    driver.start("--fetch-wait", "60s", "--metrics-address", "127.0.0.1:0")

    def medians(round_: str) -> dict[str, float]:
        times: dict[str, list[float]] = {"probe": [], "publish": [], "unpublish": []}
        for number in range(15):
            target = driver.target(f"{round_}{number}")
            for name, call in (
                ("probe", driver.client.probe),
                ("publish", lambda target=target, n=number: driver.client.publish(f"{round_}{n}", target)),
                ("unpublish", lambda target=target, n=number: driver.client.unpublish(f"{round_}{n}", target)),
            ):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
        return {name: statistics.median(values) for name, values in times.items()}

    def best(round_: str) -> dict[str, float]:
        rounds = [medians(f"{round_}{number}-") for number in range(3)]
        return {name: min(one[name] for one in rounds) for name in rounds[0]}

    alone = best("alone")
    calls = [driver.client.start_publish(f"w{n}", driver.target(f"w{n}"), cache="model") for n in range(200)]
    until(lambda: driver.metric("goldlink_waiting_publishes") == 200)
    beside = best("beside")
    assert driver.metric("goldlink_waiting_publishes") == 200
    assert {name: beside[name] / alone[name] for name in alone if beside[name] > 5 * alone[name] + 0.002} == {}
    publish(driver.store, [File(b"model")], cache="model")
    for call in calls:
        call.result()
    assert len(driver.mounts()) == 200
    driver.check()


# One call at a time for a volume


def test_concurrent_calls_for_one_volume_are_ok_or_aborted(either: Driver) -> None:
    """8 threads, identical and conflicting publishes and unpublishes: the state is consistent after, whatever won."""
    driver = either
    target = driver.target("v")

    def work(number: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        for turn in range(25):
            try:
                if (number + turn) % 3 == 0:
                    driver.client.unpublish("v", target)
                else:
                    driver.client.publish("v", target, path="lib" if number % 2 else "")
                answers["OK"] += 1
            except grpc.RpcError as error:
                answers[error.code().name] += 1
        return answers

    with ThreadPoolExecutor(8) as pool:
        answers = sum(pool.map(work, range(8)), Counter[str]())
    assert set(answers) <= {"OK", "ABORTED", "ALREADY_EXISTS"}, answers
    assert answers["OK"] > 0
    driver.check()
    driver.client.unpublish("v", target)
    assert (driver.mounts(), driver.store.records.ids()) == ([], [])


def test_a_volume_in_flight_is_aborted_and_unchanged(driver_before_start: Driver) -> None:
    driver = driver_before_start
    driver.start("--fetch-wait", "60s")
    call = driver.client.start_publish("v", driver.target("v"))
    until(lambda: aborted(lambda: driver.client.unpublish("v", driver.target("v"))))
    with refused(Code.ABORTED, "'v'", "try again"):
        driver.publish("v")
    publish(driver.store, [File(b"file")])
    call.result()
    driver.check()


def aborted(call: Callable[[], object]) -> bool:
    try:
        call()
    except grpc.RpcError as error:
        return error.code() is Code.ABORTED
    return False


def test_a_caller_that_hangs_up_frees_the_volume(driver_before_start: Driver, version: Version) -> None:
    driver = driver_before_start
    driver.start("--fetch-wait", "60s")
    call = driver.client.start_publish("v", driver.target("v"), cache="model")
    until(lambda: aborted(lambda: driver.client.unpublish("v", driver.target("v"))))
    call.cancel()
    until(lambda: not aborted(lambda: driver.client.unpublish("v", driver.target("v"))))
    driver.publish("v")


# Unpublishing


def test_unpublish_of_what_is_not_there_is_ok(either: Driver) -> None:
    driver = either
    driver.client.unpublish("unknown", driver.target("unknown"))
    driver.client.unpublish("unknown", driver.root / "no" / "such" / "parent")
    target = driver.publish("v")
    for _ in range(3):
        driver.client.unpublish("v", target)
        assert not target.exists()
        assert list(target.parent.iterdir()) == []
    assert driver.store.records.ids() == []
    until(lambda: list(driver.store.trash.iterdir()) == [])


def test_unpublish_without_a_record_still_unmounts_ours(either: Driver) -> None:
    """Somebody removed the record, or its directory: kubelet repeats the call for ever on any error."""
    driver = either
    for damage in ("record", "place"):
        target = driver.publish("v")
        place = driver.store.records.place("v")
        if damage == "record":
            (place / "volume.json").unlink()
        else:
            driver.store.discard(place)
            trash.empty(driver.store.trash)
        driver.client.unpublish("v", target)
        assert (driver.mounts(), driver.store.records.ids(), target.exists()) == ([], [], False)


def test_unpublish_of_a_volume_whose_version_is_gone(pooled: Driver, version: Version) -> None:
    driver = pooled
    target = driver.publish("v")
    until(lambda: dropped(driver, version))  # busy while the pool makes a tree of it
    trash.empty(driver.store.trash)
    assert (target / "lib" / "a.js").read_text() == "module.exports = 1"
    driver.publish("v")
    answer = driver.client.stats("v", target)
    assert answer.volume_condition.abnormal
    assert version.short in answer.volume_condition.message
    driver.client.unpublish("v", target)
    assert (driver.mounts(), driver.store.records.ids()) == ([], [])


def dropped(driver: Driver, version: Version) -> bool:
    try:
        driver.store.drop(CACHE, version.id)
    except Busy:
        return False
    return True


def put_file(target: Path) -> None:
    target.mkdir()
    (target / "theirs").write_text("x")


def put_symlink(target: Path) -> None:
    (target.parent / "real").mkdir()
    target.symlink_to("real")


def put_dangling_symlink(target: Path) -> None:
    target.symlink_to("nowhere")


def put_mount(target: Path) -> None:
    target.mkdir()
    (target.parent / "source").mkdir()
    (target.parent / "source" / "theirs").write_text("x")
    syscalls.mount(target.parent / "source", target, syscalls.MS_BIND)


@pytest.mark.parametrize("put", [put_file, put_symlink, put_dangling_symlink, put_mount])
def test_what_is_foreign_is_named_and_never_touched(driver: Driver, put: Callable[[Path], None]) -> None:
    target = driver.target("v")
    put(target)
    before = {str(path): path.lstat().st_ino for path in target.parent.rglob("*")}
    mounts = driver.mounts()
    for call in (driver.client.publish, driver.client.unpublish):
        with refused(Code.FAILED_PRECONDITION, str(target)):
            call("v", target)
    assert {str(path): path.lstat().st_ino for path in target.parent.rglob("*")} == before
    assert driver.mounts() == mounts
    assert driver.store.records.ids() == []
    for _ in mounts:
        syscalls.umount(target, 0)


def test_a_foreign_mount_over_a_live_volume_stays_and_so_does_the_volume(driver: Driver) -> None:
    target = driver.publish("v")
    syscalls.mount("none", target, 0, fstype="tmpfs")
    for call in (driver.client.publish, driver.client.unpublish):
        with refused(Code.FAILED_PRECONDITION, "tmpfs", str(target)):
            call("v", target)
    driver.restart("--fetch-wait", "300ms")
    syscalls.umount(target, 0)
    assert (target / "lib" / "a.js").exists()
    driver.publish("v")
    driver.check()


def test_a_volume_in_use_is_not_torn_away(driver: Driver) -> None:
    target = driver.publish("v")
    with (target / "lib" / "a.js").open(), refused(Code.FAILED_PRECONDITION, str(target), "uses it"):
        driver.client.unpublish("v", target)
    assert driver.mounts() == [target]
    assert (target / "lib" / "a.js").exists()
    driver.client.unpublish("v", target)


# What a pod can do in its volume


def test_root_in_the_volume_can_change_nothing(either: Driver) -> None:
    driver = either
    target = driver.publish("v")
    file, directory = target / "lib" / "a.js", target / "lib"
    attempts: list[Callable[[], object]] = [
        lambda: file.open("w"),
        lambda: file.open("a"),
        lambda: (target / "new").open("x"),
        lambda: file.chmod(0o777),
        lambda: directory.chmod(0o777),
        lambda: os.chown(file, 1000, 1000),
        lambda: os.chown(target / "out", 1000, 1000, follow_symlinks=False),
        file.unlink,
        (target / "out").unlink,
        lambda: file.rename(target / "b"),
        lambda: directory.rename(target / "b"),
        (target / "sub").mkdir,
        (target / "lib" / "deep").rmdir,
        lambda: os.mknod(target / "node", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        lambda: os.mkfifo(target / "fifo"),
        lambda: os.setxattr(file, "user.a", b"b"),
        lambda: os.setxattr(file, "security.selinux", b"b"),
        lambda: os.utime(file),
        lambda: os.utime(target / "out", follow_symlinks=False),
        lambda: os.truncate(file, 0),
        lambda: (target / "link").hardlink_to(file),
        lambda: (target / "symlink").symlink_to("x"),
        lambda: bind_socket(target / "socket"),
    ]
    for number, attempt in enumerate(attempts):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS, number
    # Out of the volume, too: no hardlink leads from it to a writable place.
    with pytest.raises(OSError) as caught:
        (driver.root / "out").hardlink_to(file)
    assert caught.value.errno == errno.EXDEV
    flags = os.statvfs(target).f_flag
    assert flags & os.ST_RDONLY
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV


def bind_socket(path: Path) -> None:
    """Like a program in the pod would: relative, for a socket's path is short."""
    with socket.socket(socket.AF_UNIX) as server:
        fd = os.open(path.parent, os.O_PATH)
        try:
            server.bind(f"/proc/self/fd/{fd}/{path.name}")
        finally:
            os.close(fd)


# Names


@pytest.mark.parametrize(
    "parts",
    [
        ["a b", "c  d"],
        ["ünïcödé", "日本"],
        ["new\nline", "tab\t"],
        ["back\\slash", "quote'\"", "#"],
        ["d"] * 200,
        ["x" * 255, "y" * 255],
    ],
    ids=["spaces", "unicode", "newline", "quotes", "deep", "long"],
)
def test_targets_with_any_names(driver: Driver, parts: list[str]) -> None:
    target = driver.targets.joinpath(*parts)
    target.parent.mkdir(parents=True)
    for volume_id in ("v", "ü ñ:%"):
        driver.client.publish(volume_id, target)
        driver.client.publish(volume_id, target)
        assert (target / "lib" / "a.js").exists()
        assert driver.client.stats(volume_id, target).usage[0].total > 0
        driver.check()
        driver.client.unpublish(volume_id, target)
        assert not target.exists()


def test_a_target_of_the_longest_path(driver: Driver) -> None:
    """4095 bytes are published; one more is refused, and never INTERNAL."""
    room = 4095 - len(str(driver.targets)) - len("/mount")
    names = ["n" * 200] * (room // 201)
    parent = driver.targets
    for name in names:
        parent /= name
        parent.mkdir()
    target = parent / ("m" * (4095 - len(str(parent)) - 1))
    assert len(str(target)) == 4095
    driver.client.publish("v", target)
    driver.check()
    driver.client.unpublish("v", target)
    with refused(Code.INVALID_ARGUMENT, "4095"):
        driver.client.publish("v", f"{target}m")
    with refused(Code.INVALID_ARGUMENT):
        driver.client.publish("v", driver.targets / ("m" * 256) / "mount")


# Statistics and information


def test_statistics(either: Driver, version: Version) -> None:
    driver = either
    target = driver.publish("v")
    record = driver.store.records.read("v")
    assert record
    answer = driver.client.stats("v", target)
    by_unit = {usage.unit: usage for usage in answer.usage}
    size, inodes = by_unit[csi_pb2.VolumeUsage.BYTES], by_unit[csi_pb2.VolumeUsage.INODES]
    assert size.total - size.used == version.totals.bytes
    assert inodes.total - inodes.used == version.totals.entries
    directories = sum(1 for path in (target, *target.rglob("*")) if stat.S_ISDIR(path.lstat().st_mode))
    assert inodes.used == (directories if record.slot else 0)
    assert (size.available, inodes.available) == (0, 0)
    assert not answer.volume_condition.abnormal
    syscalls.umount(target, 0)
    condition = driver.client.stats("v", target).volume_condition
    assert condition.abnormal
    assert "not mounted" in condition.message


@pytest.mark.parametrize(("volume_id", "path"), [("v", "some/path"), ("unknown", "some/path"), ("v", "/elsewhere")])
def test_statistics_of_what_is_not_there(driver: Driver, volume_id: str, path: str) -> None:
    driver.publish("v")
    with refused(Code.NOT_FOUND, volume_id):
        driver.client.stats(volume_id, path)


def test_information_and_capabilities(driver: Driver) -> None:
    info = driver.client.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node) == ("node-1", 0)
    answer = driver.client.node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest())
    rpc = csi_pb2.NodeServiceCapability.RPC
    assert {rpc.GET_VOLUME_STATS, rpc.VOLUME_CONDITION} <= {one.rpc.type for one in answer.capabilities}
