"""Everything that the fetcher measures, in one registry of its own."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cachefetch.errors import DataError, UnknownVersion
from cachefetch.work import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachefetch.config import Cache
    from cachefetch.store import Store
    from cachefetch.work import Status

BUCKETS = (0.01, 0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
"""Seconds. A look at an unchanged source takes some ten milliseconds, a large model an hour."""


class Metrics:
    """The metrics of one fetcher; built in `__main__` and handed to whoever measures."""

    def __init__(self, version: str) -> None:
        """Make the registry; `version` is that of the package."""
        self.registry = registry = CollectorRegistry()
        Info("goldlink_build", "The running version of the fetcher.", registry=registry).info({"version": version})
        self._bytes = Counter(
            "goldlink_fetched_bytes_total", "Bytes that came from sources.", ("cache", "source"), registry=registry
        )
        self._seconds = Histogram(
            "goldlink_refresh_seconds",
            "Time that refreshes took, by source and result: changed, unchanged, or the code of the failure.",
            ("source", "result"),
            buckets=BUCKETS,
            registry=registry,
        )
        self.waiting = Gauge("goldlink_fetch_waiting_calls", "Calls that wait for a version.", registry=registry)
        self.config_valid = Gauge(
            "goldlink_config_valid",
            "1 if the configuration file as it is now is in force, else 0.",
            registry=registry,
        )

    def counter_of(self, cache: Cache) -> Callable[[float], None]:
        """Counts bytes that came for the cache; looked up once, for it is called with every chunk."""
        return self._bytes.labels(cache=cache.name, source=kind(cache)).inc

    def refreshed(self, cache: Cache, seconds: float, result: str) -> None:
        """A refresh ended."""
        self._seconds.labels(source=kind(cache), result=result).observe(seconds)

    def watch(self, statuses: Callable[[], list[Status]], store: Store) -> None:
        """Report what every declared cache is doing, and how old what it serves is, at each scrape."""
        self.registry.register(_Caches(statuses, store))


def kind(cache: Cache) -> str:
    """The type of the cache's source, as the configuration writes it."""
    return str(cache.source.__struct_config__.tag)


class _Caches(Collector):
    """Looks when asked, so that a cache that is gone leaves no stale series behind."""

    def __init__(self, statuses: Callable[[], list[Status]], store: Store) -> None:
        self._statuses = statuses
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """State, failures and age of every cache at this moment."""
        states, failures, age = self._families()
        statuses, now = self._statuses(), time.time()
        for state in State:
            states.add_metric((state.value,), sum(status.state is state for status in statuses))
        for status in statuses:
            failures.add_metric((status.cache,), status.failures)
            with suppress(UnknownVersion, DataError):  # it was withdrawn meanwhile, or `verify` will name it
                if status.current:
                    version = self._store.version(status.cache, status.current)
                    age.add_metric((status.cache,), max(0.0, now - version.published))
        yield from (states, failures, age)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The names without looking: registering must not need the store."""
        yield from self._families()

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily("goldlink_caches", "Declared caches by what they are doing.", labels=("state",)),
            GaugeMetricFamily("goldlink_refresh_failures", "Tries failed since the last success.", labels=("cache",)),
            GaugeMetricFamily("goldlink_current_age_seconds", "Age of the current version.", labels=("cache",)),
        )
