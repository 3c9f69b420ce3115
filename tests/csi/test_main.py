"""The process: how it starts, what it refuses, what it says, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from csi import syscalls
from tests.cachefetch.fakes import CACHE, File, publish
from tests.csi.driver import CONFIG, POOL, POOLED, until

if TYPE_CHECKING:
    from cachefetch.model import Version
    from tests.csi.driver import Driver

pytestmark = pytest.mark.root
RUNNER = ("-m", "tests.crash.runner")


def answer(call: Any) -> str:
    try:
        call.result(timeout=30)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


# Starting


def test_the_socket_appears_when_everything_is_served(driver: Driver) -> None:
    assert driver.client.probe()
    driver.publish("v")
    assert os.stat(driver.socket).st_mode & 0o777 == 0o600  # noqa: PTH116


def test_a_stale_socket_is_replaced(driver: Driver) -> None:
    driver.end(signal.SIGKILL)
    assert driver.socket.exists()
    assert not driver.listens()
    driver.start()
    assert driver.client.probe()


def test_a_file_at_the_socket_is_not_removed(driver_before_start: Driver) -> None:
    driver = driver_before_start
    driver.socket.write_text("theirs")
    code, text = driver.run()
    assert (code, driver.socket.read_text()) == (1, "theirs")
    assert "--endpoint" in text


def test_a_second_driver_on_the_same_state_is_refused(driver: Driver) -> None:
    target = driver.publish("v")
    code, text = driver.run("--endpoint", f"unix://{driver.root}/other.sock")
    assert code == 1
    assert f"another driver runs with --state-dir {driver.state}" in text.splitlines()[-1]
    driver.publish("v")
    assert driver.mounts() == [target]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("caches:\n  - {name: deps}", "caches[0].source: is missing"),
        ("caches:\n  - {name: deps, sauce: {}}", "caches[0].sauce: unknown key"),
        ("caches: 7", "caches: "),
        ("", "the configuration: is empty"),
        (None, "cannot be read"),
    ],
)
def test_a_broken_configuration_ends_with_2_and_the_key(
    driver_before_start: Driver, config: str | None, words: str
) -> None:
    if config is None:
        driver_before_start.config.unlink()
    else:
        driver_before_start.config.write_text(config)
    code, text = driver_before_start.run()
    assert code == 2
    assert words in text
    assert "Traceback" not in text
    assert not driver_before_start.socket.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--metrics-address", "9808"), "--metrics-address"),
        (("--driver-name", "-"), "--driver-name"),
        (("--fetch-wait", "soon"), "--fetch-wait"),
        (("--endpoint", "tcp://localhost:1"), "--endpoint"),
    ],
)
def test_bad_usage_ends_with_2_before_anything_is_touched(
    driver_before_start: Driver, arguments: tuple[str, str], words: str
) -> None:
    code, text = driver_before_start.run("--state-dir", str(driver_before_start.root / "untouched"), *arguments)
    assert code == 2
    assert words in text
    assert not (driver_before_start.root / "untouched").exists()


def test_an_address_in_use_ends_with_1(driver_before_start: Driver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, text = driver_before_start.run("--metrics-address", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 1
    assert "--metrics-address" in text


def test_a_store_of_two_mounts_is_refused(driver_before_start: Driver) -> None:
    driver = driver_before_start
    volumes = driver.state / "volumes"
    syscalls.mount(volumes, volumes, syscalls.MS_BIND)
    try:
        code, text = driver.run()
    finally:
        syscalls.umount(volumes, 0)
    assert code == 1
    assert "two mounts" in text
    assert f"mount the whole state directory {driver.state} once" in text
    assert not driver.socket.exists()


def test_a_store_on_a_remote_file_system_is_refused(driver_before_start: Driver) -> None:
    """FUSE stands for all of them here: what is behind it cannot be known."""
    driver = driver_before_start
    remote, mirror = driver.root / "remote", driver.root / "mirror"
    remote.mkdir()
    mirror.mkdir()
    subprocess.run(["bindfs", str(mirror), str(remote)], check=True)
    try:
        code, text = driver.run("--state-dir", str(remote))
    finally:
        subprocess.run(["umount", str(remote)], check=True)
    assert code == 1
    assert "fuse" in text
    assert "mount a directory of a local disk there" in text


def test_a_read_only_state_directory_is_refused_with_a_sentence(driver_before_start: Driver) -> None:
    driver = driver_before_start
    syscalls.mount(driver.state, driver.state, syscalls.MS_BIND)
    syscalls.mount("", driver.state, syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY)
    try:
        code, text = driver.run()
    finally:
        syscalls.umount(driver.state, 0)
    assert code == 1
    assert "Read-only file system" in text.splitlines()[-1]
    assert str(driver.state) in text.splitlines()[-1]


def test_a_file_as_state_directory_is_refused_with_a_sentence(driver_before_start: Driver) -> None:
    code, text = driver_before_start.run("--state-dir", str(driver_before_start.config))
    assert code == 1
    assert str(driver_before_start.config) in text.splitlines()[-1]


# Running


def test_a_configuration_that_breaks_while_running_stays_out(driver_before_start: Driver, version: Version) -> None:
    """One error line for each broken content, a metric, and the last valid one in force; then the repaired one."""
    driver = driver_before_start
    driver.start("--metrics-address", "127.0.0.1:0")
    assert driver.metric("goldlink_config_valid") == 1
    driver.config.write_text("caches:\n  - {name: deps, source: {type: directory, path: srv}}")
    until(lambda: driver.metric("goldlink_config_valid") == 0)
    time.sleep(1.5)  # longer than one look at the file: the error must not be repeated
    (told,) = driver.events("config")
    assert told["level"] == "error"
    assert "caches[0].source.path" in told["error"]
    driver.publish("v")
    driver.config.write_text(CONFIG + "  - {name: more, source: {type: directory, path: /srv}}\n")
    until(lambda: driver.metric("goldlink_config_valid") == 1)
    publish(driver.store, [File(b"x")], cache="more")
    driver.publish("w", cache="more")


def test_metrics_and_health_are_served(driver_before_start: Driver, version: Version) -> None:
    driver = driver_before_start
    driver.config.write_text(POOLED)
    driver.start("--metrics-address", "127.0.0.1:0")
    until(lambda: len(driver.ready()) == POOL)
    driver.publish("v")
    text = driver.get("/metrics")
    assert f'goldlink_volumes{{cache="{CACHE}",version="{version.id}"}} 1.0' in text
    assert 'goldlink_rpc_seconds_count{code="OK",method="NodePublishVolume"} 1.0' in text
    assert 'goldlink_link_seconds_count{mode="hardlink"}' in text
    assert driver.get("/healthz") == "ok\n"


def test_every_log_line_parses_and_tells_of_each_call(driver: Driver, version: Version) -> None:
    driver.publish("v")
    with pytest.raises(grpc.RpcError):
        driver.publish('w"=\n', cache="no\n such")
    driver.client.unpublish("v", driver.target("v"))
    published, failed, unpublished = driver.events("rpc")
    assert (published["method"], published["code"], published["volume"]) == ("NodePublishVolume", "OK", "v")
    assert (published["cache"], published["version"], published["link_mode"]) == (CACHE, version.short, "golden")
    assert (failed["code"], failed["level"]) == ("INVALID_ARGUMENT", "warning")
    assert (unpublished["method"], unpublished["code"]) == ("NodeUnpublishVolume", "OK")


def test_the_trash_is_empty_soon_after_an_unpublish(driver: Driver) -> None:
    for number in range(5):
        driver.publish(f"v{number}")
        driver.client.unpublish(f"v{number}", driver.target(f"v{number}"))
    until(lambda: list(driver.store.trash.iterdir()) == [])
    assert driver.store.records.ids() == []


def test_published_volumes_need_no_driver(driver: Driver) -> None:
    target = driver.publish("v")
    for number in (signal.SIGTERM, signal.SIGKILL):
        driver.end(number)
        assert (target / "lib" / "a.js").read_text() == "module.exports = 1"
        driver.start()
        driver.publish("v")
        driver.check()


# Rebooting


def reboot(driver: Driver) -> None:
    """What a reboot leaves: files, no mounts, records of another boot."""
    driver.end()
    for point in driver.mounts():
        syscalls.umount(point, 0)
    for record in driver.store.records.all():
        place = driver.store.records.place(record.id) / "volume.json"
        place.write_text(place.read_text().replace(record.boot_id, "00000000-0000-0000-0000-000000000000"))
    (driver.state / "run" / "boot-id").write_text("00000000-0000-0000-0000-000000000000")


def test_a_reboot_ends_volumes_and_keeps_versions(driver: Driver, version: Version) -> None:
    driver.publish("v")
    driver.publish("w")
    until((driver.state / "run" / "boot-id").exists)
    reboot(driver)
    driver.start()
    assert driver.store.records.ids() == []
    until(lambda: list(driver.store.trash.iterdir()) == [])
    until(lambda: (driver.state / "run" / "boot-id").read_text() != "00000000-0000-0000-0000-000000000000")
    assert driver.store.has(CACHE, version.id)
    assert not driver.events("withdrawn")
    assert (driver.publish("v") / "lib" / "a.js").exists()


def test_what_the_power_cut_took_is_withdrawn_and_named(driver: Driver, version: Version) -> None:
    other = publish(driver.store, [File(b"sound")], cache="model")
    until((driver.state / "run" / "boot-id").exists)
    reboot(driver)
    file = driver.store.tree(CACHE, version.id) / "lib" / "a.js"
    times = file.stat()
    os.truncate(file, 3)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    driver.start("--fetch-wait", "200ms")
    until(lambda: driver.events("withdrawn"))
    (told,) = driver.events("withdrawn")
    assert (told["cache"], told["version"], told["level"]) == (CACHE, version.short, "error")
    assert "lib/a.js" in told["damage"]
    assert not driver.store.has(CACHE, version.id)
    assert driver.store.has("model", other.id)
    with pytest.raises(grpc.RpcError) as caught:
        driver.publish("v")
    assert caught.value.code() is grpc.StatusCode.ABORTED
    driver.publish("w", cache="model")


# Stopping


def test_sigterm_aborts_what_waits_and_ends_with_0(driver_before_start: Driver, version: Version) -> None:
    driver = driver_before_start
    driver.start("--fetch-wait", "1h")
    process = driver.process
    assert process
    calls = [driver.client.start_publish(f"v{n}", driver.target(f"v{n}"), cache="model") for n in range(30)]
    until(lambda: all(volume_busy(driver, f"v{n}") for n in range(30)))
    process.send_signal(signal.SIGTERM)
    assert {answer(call) for call in calls} == {"ABORTED"}
    assert process.wait(10) == 0
    assert not driver.socket.exists()
    assert driver.store.records.ids() == []
    assert driver.events("stopping")
    assert not driver.events("abandoned")


def volume_busy(driver: Driver, volume_id: str) -> bool:
    try:
        driver.client.unpublish(volume_id, driver.target(volume_id))
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.ABORTED
    return False


def slowed(driver: Driver) -> bool:
    """Whether the runner has stopped a call on its way."""
    return "slow" in driver.log_file.read_text()


def test_sigterm_lets_a_running_publish_finish(driver_before_start: Driver, version: Version) -> None:
    driver = driver_before_start
    driver.start(python=(*RUNNER, "slow", "os.mkdir", "2"))
    process = driver.process
    assert process
    call = driver.client.start_publish("v", driver.target("v"))
    until(lambda: slowed(driver))
    process.send_signal(signal.SIGTERM)
    assert answer(call) == "OK"
    assert process.wait(10) == 0
    assert (driver.target("v") / "lib" / "a.js").exists()
    driver.check()


@pytest.mark.slow
def test_sigterm_with_a_handler_that_hangs_still_ends_with_0(driver_before_start: Driver, version: Version) -> None:
    driver = driver_before_start
    driver.start(python=(*RUNNER, "slow", "os.mkdir", "1000"))
    process = driver.process
    assert process
    call = driver.client.start_publish("v", driver.target("v"))
    until(lambda: slowed(driver))
    process.send_signal(signal.SIGTERM)
    assert answer(call) != "OK"
    assert process.wait(10) == 0
    assert driver.events("abandoned")
    assert not driver.socket.exists()
    driver.start()
    assert driver.store.records.ids() == []
    driver.publish("v")
    driver.check()


def test_health_says_that_it_stops(driver_before_start: Driver, version: Version) -> None:
    driver = driver_before_start
    driver.start("--metrics-address", "127.0.0.1:0", python=(*RUNNER, "slow", "os.mkdir", "2"))
    process = driver.process
    assert process
    call = driver.client.start_publish("v", driver.target("v"))
    until(lambda: slowed(driver))
    process.send_signal(signal.SIGTERM)
    until(lambda: driver.events("stopping"))
    with pytest.raises(urllib.error.HTTPError) as caught:
        driver.get("/healthz")
    with caught.value as response:
        assert (response.code, response.read()) == (503, b"stopping\n")
    assert answer(call) == "OK"
    assert process.wait(10) == 0
