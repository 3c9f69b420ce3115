from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from cachefetch.config import Cache
from cachefetch.metrics import Metrics, kind
from cachefetch.work import State, Status
from tests.cachefetch.fakes import CACHE, File, publish
from tests.cachefetch.fetching import cache

if TYPE_CHECKING:
    from cachefetch.store import Store


def status(name: str, state: State, current: str = "", failures: int = 0) -> Status:
    return Status(name, state, current, 0, None, None, "", failures, "")


def test_what_the_caches_do_is_looked_at_with_each_scrape(store: Store) -> None:
    version = publish(store, [File(b"a")])
    told = [status(CACHE, State.IDLE, version.id), status("new", State.FAILED, failures=3)]
    metrics = Metrics("1")
    metrics.watch(lambda: told, store)
    value = metrics.registry.get_sample_value
    assert value("goldlink_caches", {"state": "idle"}) == 1
    assert value("goldlink_caches", {"state": "queued"}) == 0
    assert value("goldlink_refresh_failures", {"cache": "new"}) == 3
    age = value("goldlink_current_age_seconds", {"cache": CACHE})
    assert age is not None
    assert 0 <= age < 3600
    told.clear()
    assert value("goldlink_refresh_failures", {"cache": "new"}) is None, "no stale series"


def test_a_current_version_that_is_gone_meanwhile_has_no_age(store: Store) -> None:
    metrics = Metrics("1")
    metrics.watch(lambda: [status(CACHE, State.IDLE, "0" * 64)], store)
    assert metrics.registry.get_sample_value("goldlink_current_age_seconds", {"cache": CACHE}) is None


def test_every_metric_is_described_and_counted_by_the_kind_of_its_source() -> None:
    metrics, declared = Metrics("1"), cache()
    metrics.counter_of(declared)(5)
    metrics.refreshed(declared, 0.1, "changed")
    text = generate_latest(metrics.registry).decode()
    assert 'goldlink_fetched_bytes_total{cache="deps",source="directory"} 5.0' in text
    assert 'goldlink_refresh_seconds_count{result="changed",source="directory"} 1.0' in text
    assert isinstance(declared, Cache)
    assert kind(declared) == "directory"
