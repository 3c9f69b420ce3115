"""Private volumes as kubelet sees them: real calls to the real driver, which makes real overlays."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import grpc
import pytest

from csi import mountinfo, syscalls
from csi.pb import csi_pb2
from tests.cachefetch.fakes import CACHE, File, publish
from tests.csi.driver import CONFIG, LIMITED, PRIVATE, until

if TYPE_CHECKING:
    from cachefetch.model import Version
    from tests.csi.driver import Driver

pytestmark = pytest.mark.root


@pytest.fixture(params=["private", "limited"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Without and with a limit."""
    driver: Driver = request.getfixturevalue(request.param)
    return driver


def test_a_pod_writes_to_its_view_and_to_nothing_else(driver: Driver, version: Version) -> None:
    first, second = driver.publish("v"), driver.publish("w")
    shared = driver.publish("shared", access="shared", readonly=True)
    (first / "lib" / "a.js").write_text("mine")
    (first / "bin" / "run").unlink()
    (first / "new").write_text("mine")
    for other in (second, shared):
        assert (other / "lib" / "a.js").read_text() == "module.exports = 1"
        assert (other / "bin" / "run").exists()
        assert not (other / "new").exists()
    subprocess.run([second / "bin" / "run"], check=True)
    driver.check()
    driver.client.unpublish("v", first)
    assert driver.publish("v").joinpath("lib", "a.js").read_text() == "module.exports = 1"


def test_a_repeat_is_ok_and_mounts_once_also_after_a_crash(driver: Driver, version: Version) -> None:
    target = driver.publish("v")
    (target / "mine").write_text("stays")
    publish(driver.store, [File(b"next")])
    driver.publish("v")
    driver.restart()
    driver.publish("v")
    driver.config.write_text(CONFIG)
    driver.restart()
    driver.publish("v")
    assert driver.mounts() == [target]
    assert (target / "mine").read_text() == "stays"
    assert (target / "lib" / "a.js").exists()
    driver.check()


def test_a_subtree_may_be_private(driver: Driver) -> None:
    target = driver.publish("v", path="lib/deep")
    assert [path.name for path in target.iterdir()] == ["b.js"]
    (target / "b.js").write_text("mine")
    driver.check()


def test_the_version_of_a_private_volume_stays(driver: Driver, version: Version) -> None:
    """Through new versions, collections, and what verification would withdraw."""
    target = driver.publish("v")
    for content in (b"1", b"2", b"3"):
        publish(driver.store, [File(b"next", content)])
        driver.store.gc(CACHE, retain=1)
    assert (target / "lib" / "a.js").read_text() == "module.exports = 1"
    assert driver.store.has(CACHE, version.id)
    driver.client.unpublish("v", target)
    driver.store.gc(CACHE, retain=1)
    assert not driver.store.has(CACHE, version.id)


def test_unpublish_throws_away_what_was_written(driver: Driver) -> None:
    target = driver.publish("v")
    deep = target / "lib"
    for _ in range(60):
        deep /= "d" * 60
        deep.mkdir()
    shutil.rmtree(target / "bin")
    (target / "lib" / "a.js").unlink()
    for _ in range(2):
        driver.client.unpublish("v", target)
        assert not target.exists()
        assert driver.store.records.ids() == []
    until(lambda: list(driver.store.trash.iterdir()) == [])
    assert mountinfo.below(driver.root) == []


def test_a_view_in_use_is_not_torn_away(driver: Driver) -> None:
    target = driver.publish("v")
    with (target / "open").open("w"):
        with pytest.raises(grpc.RpcError) as busy:
            driver.client.unpublish("v", target)
        assert busy.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        driver.check()
    driver.client.unpublish("v", target)


def test_unpublish_without_a_record_still_unmounts_ours(driver: Driver) -> None:
    target = driver.publish("v")
    shutil.rmtree(driver.store.records.place("v"), ignore_errors=True)
    driver.client.unpublish("v", target)
    assert not target.exists()
    assert driver.mounts() == []


def test_a_reboot_ends_it(driver: Driver) -> None:
    """Mounts are gone and the boot has another id: what was written is thrown away, the volume comes anew."""
    target = driver.publish("v")
    (target / "mine").write_text("x")
    driver.end()
    syscalls.umount(target, 0)
    record = driver.store.records.place("v") / "volume.json"
    record.write_text(re.sub(r'"boot_id":"[^"]*"', '"boot_id":"earlier"', record.read_text()))
    driver.start()
    assert driver.store.records.ids() == []
    until(lambda: list(driver.store.trash.iterdir()) == [])
    assert not (driver.publish("v") / "mine").exists()


def test_statistics_are_of_what_it_writes_to(driver: Driver, version: Version) -> None:
    target = driver.publish("v")
    (target / "mine").write_bytes(b"x" * (8 << 20))
    answer = driver.client.stats("v", target)
    size, inodes = sorted(answer.usage, key=lambda usage: usage.unit)
    assert (size.unit, inodes.unit) == (csi_pb2.VolumeUsage.BYTES, csi_pb2.VolumeUsage.INODES)
    for usage in (size, inodes):
        assert 0 < usage.used < usage.total
        assert 0 < usage.available <= usage.total - usage.used
    if driver.config.read_text() == LIMITED:
        assert 8 << 20 <= size.used < size.total <= 32 << 20
    assert f"a private view of {version.totals.bytes} bytes" in answer.volume_condition.message
    assert not answer.volume_condition.abnormal
    syscalls.umount(target, 0)
    assert driver.client.stats("v", target).volume_condition.abnormal


def test_private_volumes_are_counted(private: Driver, version: Version) -> None:
    private.end()
    private.start("--metrics-address", "127.0.0.1:0")
    private.publish("v")
    private.publish("shared", access="shared", readonly=True)
    labels = f'{{cache="deps",version="{version.id}"}}'
    lines = private.get("/metrics").splitlines()
    assert f"goldlink_private_volumes{labels} 1.0" in lines
    assert f"goldlink_volumes{labels} 2.0" in lines
    publishes = [line for line in private.events("rpc") if line.get("method") == "NodePublishVolume"]
    assert [line["link_mode"] for line in publishes] == ["overlay", "golden"]


def test_the_limit_is_enforced(limited: Driver) -> None:
    target = limited.publish("v")
    with pytest.raises(OSError, match="No space left") as full, (target / "big").open("wb", buffering=0) as file:
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    assert full.value.errno == errno.ENOSPC
    limited.publish("w")
    limited.check()


def test_private_and_shared_are_not_mixed_up(private: Driver) -> None:
    target = private.publish("v")
    with pytest.raises(grpc.RpcError) as conflict:
        private.client.publish("v", target, access="shared")
    assert conflict.value.code() is grpc.StatusCode.ALREADY_EXISTS
    with pytest.raises(grpc.RpcError) as refused:
        private.client.publish("w", private.target("w"), access="private", readonly=True)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert private.config.read_text() == PRIVATE
    private.check()
