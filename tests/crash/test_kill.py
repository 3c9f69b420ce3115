"""SIGKILL between any two steps of the driver, then a start: what was published works, what was half-made is gone."""

from __future__ import annotations

import random
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import pytest

from csi import syscalls
from tests.cachefetch.fakes import CACHE
from tests.csi.driver import POOL, POOLED, listing, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefetch.model import Version
    from tests.csi.driver import Driver

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]
RUNNER = ("-m", "tests.crash.runner")
MOST_STEPS = 150
"""More than any call has; a call that never gets to its end fails the test."""


def armed(driver: Driver, thread: str, number: int) -> None:
    """Start a driver that is killed before the step of that number."""
    driver.end()
    driver.start("--fetch-wait", "1s", python=(*RUNNER, "kill", thread, str(number)))
    if driver.config.read_text() == POOLED:
        until(driver.ready)


def died(driver: Driver, call: Callable[[], object]) -> bool:
    """Make the call; whether the driver died of it. Its answer must be OK or the lost connection."""
    assert driver.process
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}, error.details()
        assert driver.process.wait(10) == -signal.SIGKILL
        return True
    return False


def check_bystander(driver: Driver) -> None:
    """The volume that was published before all this still shows the golden files, and is known."""
    assert (driver.target("bystander") / "lib" / "a.js").read_text() == "module.exports = 1"
    driver.publish("bystander")


def test_at_any_step_of_a_publish(each: Driver, version: Version) -> None:
    """After each kill the volume is either whole, or gone with all its parts; then it is published as if new."""
    driver = each
    driver.publish("bystander")
    steps = half_made = whole = 0
    for steps in range(1, MOST_STEPS):
        volume_id = f"v{steps}"
        armed(driver, "rpc", steps)
        if not died(driver, lambda volume_id=volume_id: driver.publish(volume_id)):
            break
        mounted = driver.target(volume_id) in driver.mounts()
        driver.restart()
        assert (driver.store.records.read(volume_id) is not None) == mounted
        half_made, whole = half_made + (not mounted), whole + mounted
        driver.check()
        check_bystander(driver)
        driver.publish(volume_id)
        driver.check()
        assert (driver.target(volume_id) / "lib" / "a.js").exists()
        driver.client.unpublish(volume_id, driver.target(volume_id))
        assert not driver.target(volume_id).exists()
        assert driver.store.records.ids() == ["bystander"]
    else:
        pytest.fail("the publish has no end")
    driver.restart()
    assert half_made > 3
    assert whole > 0
    until(lambda: list(driver.store.trash.iterdir()) == [])


def test_at_any_step_of_an_unpublish(each: Driver, version: Version) -> None:
    """After each kill the next unpublish works, and a publish instead of it, too."""
    driver = each
    driver.publish("bystander")
    steps = 0
    for steps in range(1, MOST_STEPS):
        volume_id = f"v{steps}"
        target = driver.target(volume_id)
        driver.publish(volume_id)
        armed(driver, "rpc", steps)
        if not died(driver, lambda volume_id=volume_id, target=target: driver.client.unpublish(volume_id, target)):
            break
        driver.restart()
        driver.check()
        check_bystander(driver)
        if steps % 2:
            driver.publish(volume_id)
            driver.check()
        driver.client.unpublish(volume_id, target)
        assert not target.exists()
        assert driver.store.records.ids() == ["bystander"]
    else:
        pytest.fail("the unpublish has no end")
    driver.restart()
    assert steps > 4
    until(lambda: list(driver.store.trash.iterdir()) == [])


def test_at_any_step_of_the_recovery(driver: Driver, version: Version) -> None:
    """A start that is killed leaves nothing that the next start cannot finish."""
    driver.publish("bystander")
    driver.end()
    kills = survived = 0
    for number in range(1, MOST_STEPS):
        half_made(driver, f"v{number}", version)
        process = driver.launch(python=(*RUNNER, "kill", "MainThread", str(number)))
        until(lambda process=process: process.poll() is not None or driver.listens())
        kills, survived = (kills, survived + 1) if process.poll() is None else (kills + 1, 0)
        assert driver.end() == -signal.SIGKILL
        assert driver.targets / "bystander" / "mount" in driver.mounts()
        if survived == 3:
            break
    else:
        pytest.fail("the start has no end")
    assert kills > 10
    driver.start()
    driver.check()
    check_bystander(driver)
    assert driver.store.records.ids() == ["bystander"]
    until(lambda: list(driver.store.trash.iterdir()) == [])


def test_at_any_step_of_making_ready_trees(driver: Driver, version: Version) -> None:
    """What was half-made never becomes ready; what was ready is taken by the next process."""
    driver.config.write_text(POOLED)
    driver.publish("bystander")
    driver.end()
    kills = 0
    for number in range(1, MOST_STEPS):
        for place in driver.ready():
            driver.store.discard(place)
        process = driver.launch(python=(*RUNNER, "kill", "pool", str(number)))
        until(lambda process=process: process.poll() is not None or len(driver.ready()) == POOL)
        died = process.poll() is not None
        kills += died
        assert driver.end() == -signal.SIGKILL
        golden = listing(driver.store.tree(CACHE, version.id))
        assert all(listing(place) == golden for place in driver.ready())
        if not died:
            break
    else:
        pytest.fail("the pool is never full")
    assert kills > 5
    driver.start()
    until(lambda: len(driver.ready()) == POOL)
    assert [place for place in driver.state.glob("pool/deps/*/*") if place not in driver.ready()] == []
    check_bystander(driver)
    until(lambda: list(driver.store.trash.iterdir()) == [])


def half_made(driver: Driver, volume_id: str, version: Version) -> None:
    """What a driver leaves that was killed before it mounted: with a tree from the pool, and with a private view."""
    driver.target(volume_id)
    place = driver.store.records.place(volume_id)
    (place / "tree" / "lib").mkdir(parents=True)
    (place / "tree" / "lib" / "a.js").hardlink_to(driver.store.tree(CACHE, version.id) / "lib" / "a.js")
    record = driver.store.records.read("bystander")
    assert record
    text = (driver.store.records.place("bystander") / "volume.json").read_text()
    (place / "volume.json").write_text(text.replace("bystander", volume_id))
    room = driver.store.records.place(f"{volume_id}-private") / "room"
    room.mkdir(parents=True)
    syscalls.mount("tmpfs", room, 0, fstype="tmpfs")
    (room / "upper").mkdir()


def test_at_random_moments_of_many_calls(pooled: Driver, version: Version) -> None:
    """Kills by the clock, between and within system calls, with 4 threads that publish and unpublish."""
    driver = pooled
    generator = random.Random(1)
    driver.publish("bystander")
    for _ in range(12):
        stop = threading.Event()
        threads = [threading.Thread(target=busy, args=(driver, f"t{number}", stop)) for number in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(generator.uniform(0.02, 0.3))
        assert driver.process
        driver.process.kill()
        driver.process.wait(10)
        stop.set()
        for thread in threads:
            thread.join(30)
        driver.restart()
        driver.check()
        check_bystander(driver)
        for number in range(4):
            driver.publish(f"t{number}")
            driver.client.unpublish(f"t{number}", driver.target(f"t{number}"))
        assert driver.store.records.ids() == ["bystander"]
        assert driver.mounts() == [driver.target("bystander")]


def busy(driver: Driver, volume_id: str, stop: threading.Event) -> None:
    target = driver.target(volume_id)
    client = driver.client
    while not stop.is_set():
        with suppress(grpc.RpcError):
            client.publish(volume_id, target)
            client.unpublish(volume_id, target)


def test_a_kill_leaves_the_volume_of_a_pod_that_uses_it(driver: Driver, version: Version) -> None:
    """Open files and working directories in the volume live on; unpublish waits for them."""
    target = driver.publish("v")
    with (target / "lib" / "a.js").open() as file:
        driver.restart()
        assert file.read() == "module.exports = 1"
        with pytest.raises(grpc.RpcError):
            driver.client.unpublish("v", target)
        driver.check()
    driver.client.unpublish("v", target)
    assert not target.exists()
