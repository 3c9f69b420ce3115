"""A real driver for tests, and what it must leave behind: no mounts, golden files untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cachefetch.store import Store
from tests.cachefetch.fakes import Dir, File, Link, check_store, publish
from tests.csi.driver import LIMITED, POOL, POOLED, PRIVATE, Driver, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cachefetch.model import Version

ITEMS = (
    Dir(b"lib"),
    File(b"lib/a.js", b"module.exports = 1"),
    File(b"lib/deep/b.js", b"2"),
    File(b"bin/run", b"#!/bin/sh\n", mode=0o755),
    File("naïve name\n".encode(), b"odd"),
    Link(b"out", b"/etc"),
    Link(b"lib/self", b"a.js"),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store without a driver; afterwards every golden version still equals its manifest."""
    store = Store.open(tmp_path / "state")
    yield store
    check_store(store)


@pytest.fixture
def driver_before_start(tmp_path: Path) -> Iterator[Driver]:
    """A driver with an empty store that the test starts itself."""
    driver = Driver(tmp_path)
    yield driver
    driver.close()
    check_store(driver.store)


@pytest.fixture
def version(driver_before_start: Driver) -> Version:
    """A version of the cache `deps`."""
    return publish(driver_before_start.store, ITEMS)


@pytest.fixture
def driver(driver_before_start: Driver, version: Version) -> Driver:
    """A driver that runs, with one version of the cache `deps`."""
    driver_before_start.start("--fetch-wait", "300ms")
    return driver_before_start


@pytest.fixture
def pooled(driver_before_start: Driver, version: Version) -> Driver:
    """A driver that runs, with link trees ready for the cache `deps`."""
    driver_before_start.config.write_text(POOLED)
    driver_before_start.start("--fetch-wait", "300ms")
    until(lambda: len(driver_before_start.ready()) == POOL)
    return driver_before_start


@pytest.fixture
def private(driver_before_start: Driver, version: Version) -> Driver:
    """A driver that runs and publishes private views of the cache `deps`."""
    return _private(driver_before_start, PRIVATE)


@pytest.fixture
def limited(driver_before_start: Driver, version: Version) -> Driver:
    """The same with a limit for what a view may hold of its own."""
    return _private(driver_before_start, LIMITED)


def _private(driver: Driver, config: str) -> Driver:
    driver.config.write_text(config)
    driver.asks = {"access": "private", "readonly": False}
    driver.start("--fetch-wait", "300ms")
    return driver


@pytest.fixture(params=["driver", "pooled"])
def either(request: pytest.FixtureRequest) -> Driver:
    """The one and the other."""
    driver: Driver = request.getfixturevalue(request.param)
    return driver
