"""Publish and unpublish as kubelet sees them: through gRPC, interleaved with Probe as the yardstick."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from bench.samples import OBJECTS, drop_caches, summary, timed
from tests.csi.client import Client
from tests.csi.driver import until

if TYPE_CHECKING:
    from pathlib import Path

    from bench.samples import Row
    from tests.csi.driver import Driver

_READY_SECONDS = 900.0
_REPEATS = 100


@dataclass
class Calls:
    """Seconds of each call, by method."""

    probe: list[float] = field(default_factory=list)
    publish: list[float] = field(default_factory=list)
    unpublish: list[float] = field(default_factory=list)
    repeated: int = 0
    """Unpublishes that had to be called again because another program looked into the volume just then."""

    def add(self, other: Calls) -> None:
        """Take over the calls of another one."""
        self.probe += other.probe
        self.publish += other.publish
        self.unpublish += other.unpublish
        self.repeated += other.repeated

    def rows(self, **circumstances: str | float) -> list[Row]:
        """One row a method."""
        return [
            {**circumstances, "method": method, **summary(seconds), "repeated": self.repeated}
            for method, seconds in (("Probe", self.probe), ("publish", self.publish), ("unpublish", self.unpublish))
        ]


def declare(driver: Driver, pools: dict[str, int]) -> None:
    """Write the configuration: these caches, with pools of these sizes."""
    lines = [
        f"- {{name: {name}, source: {{type: directory, path: /srv}}, pool: {pool}}}" for name, pool in pools.items()
    ]
    driver.config.write_text("\n".join(["caches:", *lines]) + "\n" if lines else "caches: []\n")


def ready(driver: Driver, cache: str) -> list[Path]:
    """The link trees that wait in the pool."""
    return [place for place in driver.state.glob(f"pool/{cache}/*/*") if not place.name.startswith(".")]


def wait_ready(driver: Driver, pools: dict[str, int]) -> None:
    """Wait until every pool is full and nothing is left in the trash."""
    for cache, pool in pools.items():
        until(lambda cache=cache, pool=pool: len(ready(driver, cache)) == pool, _READY_SECONDS)  # type: ignore[misc]
    until(lambda: not any(driver.store.trash.iterdir()), _READY_SECONDS)


def cycles(driver: Driver, client: Client, cache: str, count: int, *, name: str, cold: bool = False) -> Calls:
    """`count` times Probe, publish, unpublish; with `cold` the kernel forgets its dentries and inodes before each."""
    calls = Calls()
    if cold:
        os.sync()  # what is dirty cannot be dropped
    for number in range(count):
        volume = f"{name}-{number}"
        target = driver.target(volume)
        if cold:
            drop_caches(OBJECTS)
        with timed(calls.publish):
            client.publish(volume, target, cache=cache)
        with timed(calls.probe):
            client.probe()
        if cold:
            drop_caches(OBJECTS)
        with timed(calls.unpublish):
            calls.repeated += _unpublish(client, volume, target)
        target.parent.rmdir()
    return calls


def _unpublish(client: Client, volume: str, target: Path) -> int:
    """Unpublish as kubelet does, which calls again while a mount is busy; returns how often."""
    for repeated in range(_REPEATS):
        try:
            client.unpublish(volume, target)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
        else:
            return repeated
    raise SystemExit(f"{target} stays busy: find out which program uses it")


def concurrent(driver: Driver, cache: str, callers: int, count: int, *, name: str) -> tuple[Calls, float]:
    """`count` cycles spread over so many callers, each with a connection of its own; also the pairs in a second."""
    start = threading.Barrier(callers + 1)

    def call(caller: int) -> Calls:
        client = Client(driver.socket)
        client.probe()  # connects
        start.wait()
        try:
            return cycles(driver, client, cache, count // callers, name=f"{name}-{caller}")
        finally:
            client.close()

    with ThreadPoolExecutor(callers) as pool:
        parts = [pool.submit(call, caller) for caller in range(callers)]
        start.wait()
        started = time.perf_counter()
        done = [part.result() for part in parts]
        seconds = time.perf_counter() - started
    total = Calls()
    for each in done:
        total.add(each)
    return total, len(total.publish) / seconds


def fill(driver: Driver, cache: str, count: int) -> list[tuple[str, Path]]:
    """Publish `count` volumes that stay."""
    volumes = []
    for number in range(count):
        volume = f"standing-{number}"
        volumes.append((volume, driver.target(volume)))
        driver.client.publish(*volumes[-1], cache=cache)
    return volumes
