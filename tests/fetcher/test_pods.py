"""Pods that wait for a cache: the real driver and the real fetcher on one store."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.csi.driver import Driver, until
from tests.servers.nginx import running_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from tests.fetcher.process import FetcherProcess
    from tests.servers.nginx import Nginx

pytestmark = pytest.mark.root
PODS = 50
SIZE, RATE = 24 << 20, 8 << 20  # bytes, bytes a second


@pytest.fixture
def driver(tmp_path: Path, fetcher: FetcherProcess) -> Iterator[Driver]:
    """A driver with the store and the configuration of the fetcher; the test starts it."""
    driver = Driver(tmp_path)
    driver.config = fetcher.config
    yield driver
    driver.close()


@pytest.fixture
def slow(tmp_path: Path, fetcher: FetcherProcess) -> Iterator[Nginx]:
    """A server from which the cache `deps` takes three seconds; nobody fetches it before it is asked for."""
    with running_nginx(tmp_path / "nginx", rate=RATE) as nginx:
        (nginx.root / "file").write_bytes(bytes(SIZE))
        source = {"type": "http", "url": f"{nginx.url}/slow/file", "cache": {"prefetch": "onDemand"}}
        fetcher.declare(deps=source)
        yield nginx


def publish_all(driver: Driver, pool: ThreadPoolExecutor) -> list[Future[float]]:
    """Fifty publishes at once; each result is the time at which it was done."""

    def one(number: int) -> float:
        driver.publish(f"pod-{number}", cache="deps")
        return time.monotonic()

    results = [pool.submit(one, number) for number in range(PODS)]
    until(lambda: driver.metric("goldlink_waiting_publishes") == PODS)
    return results


def test_pods_start_within_two_seconds_after_the_fetch(driver: Driver, fetcher: FetcherProcess, slow: Nginx) -> None:
    fetcher.start()
    driver.start("--metrics-address", "127.0.0.1:0")
    with ThreadPoolExecutor(PODS) as pool:
        results = publish_all(driver, pool)
        until(lambda: fetcher.store.current("deps"), 60)
        arrived = time.monotonic()
        assert max(result.result() for result in results) - arrived < 2
    driver.check()
    sent = slow.traffic().sent("/slow/")
    assert sent <= SIZE + (4 << 20), "one download for all"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_fetcher_that_is_restarted_fails_no_waiting_pod(
    driver: Driver, fetcher: FetcherProcess, slow: Nginx, number: int
) -> None:
    fetcher.start()
    driver.start("--metrics-address", "127.0.0.1:0")
    with ThreadPoolExecutor(PODS) as pool:
        results = publish_all(driver, pool)
        until(lambda: fetcher.status("deps").done > SIZE // 4, 60)
        fetcher.end(number)
        fetcher.start()
        until(lambda: fetcher.store.current("deps"), 60)
        arrived = time.monotonic()
        assert max(result.result() for result in results) - arrived < 2
    driver.check()
    assert slow.traffic().sent("/slow/") < 2 * SIZE


def test_a_pod_whose_cache_does_not_come_in_time_hears_how_far_it_is(
    driver: Driver, fetcher: FetcherProcess, slow: Nginx
) -> None:
    fetcher.start()
    driver.start("--fetch-wait", "1500ms")
    with pytest.raises(grpc.RpcError) as error:
        driver.publish("pod", cache="deps")
    assert error.value.code() is grpc.StatusCode.ABORTED
    text = error.value.details()
    assert text
    assert "cache 'deps' is not on this node yet (fetching " in text
    assert "of 24 MiB, " in text
    until(lambda: fetcher.store.current("deps"), 60)
    driver.publish("pod", cache="deps")
    driver.check()


@pytest.mark.alone
def test_waiting_pods_slow_the_fetchers_other_calls_down_for_nobody(
    driver: Driver, fetcher: FetcherProcess, slow: Nginx
) -> None:
    """A tenth of a second is a hundred times what a call takes; starved ones would wait for the fetch."""
    fetcher.start()
    driver.start("--metrics-address", "127.0.0.1:0")
    with ThreadPoolExecutor(PODS) as pool:
        results = publish_all(driver, pool)
        for _ in range(20):
            assert fetcher.status("deps").state in {"looking", "fetching"}
        assert not any(result.done() for result in results), "the calls were answered while all of them waited"
        for result in results:
            result.result()
