"""Everything that the driver measures, in one registry of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from csi.pool import Slot

RPC_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 90, 120)
"""Seconds. A publish from the pool takes about a millisecond; kubelet gives up after 120 s."""
LINK_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
"""Seconds. 100,000 hardlinks take about 0.3 s; a copied tree may take minutes."""


class Metrics:
    """The metrics of one process; built in `__main__` and handed to whoever measures."""

    def __init__(self, version: str) -> None:
        """Make the registry; `version` is that of the package."""
        self.registry = registry = CollectorRegistry()
        build = Info("goldlink_build", "The running version of the driver.", registry=registry)
        build.info({"version": version})
        self.rpc_seconds = Histogram(
            "goldlink_rpc_seconds",
            "Time that RPCs took, by method and gRPC code.",
            ("method", "code"),
            buckets=RPC_BUCKETS,
            registry=registry,
        )
        self.rpc_in_flight = Gauge("goldlink_rpc_in_flight", "RPCs that run now.", registry=registry)
        self.link_seconds = Histogram(
            "goldlink_link_seconds",
            "Time that making a whole link tree took, by its link mode.",
            ("mode",),
            buckets=LINK_BUCKETS,
            registry=registry,
        )
        self.link_fallbacks = Counter(
            "goldlink_link_fallbacks_total",
            "Files that were not hardlinked or not reflinked: the link mode they got and the errno that was the cause.",
            ("mode", "cause"),
            registry=registry,
        )
        self.waiting_publishes = Gauge(
            "goldlink_waiting_publishes", "Publishes that wait for a version to arrive on this node.", registry=registry
        )
        self.config_valid = Gauge(
            "goldlink_config_valid", "1 if the configuration file as it is now is in force, else 0.", registry=registry
        )

    def watch_volumes(self, count: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Report `goldlink_volumes`: `count` is called at each scrape and gives the volumes of (cache, version)."""
        self.registry.register(_PerVersion("goldlink_volumes", "Published volumes.", count))

    def watch_private(self, count: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Report `goldlink_private_volumes`, as `watch_volumes` does for all of them."""
        text = "Published volumes that have a private view."
        self.registry.register(_PerVersion("goldlink_private_volumes", text, count))

    def watch_pool(self, ready: Callable[[], Mapping[tuple[str, str], Sequence[Slot]]]) -> None:
        """Report the pool: `ready` is called at each scrape and gives the ready trees of (cache, version)."""

        def per_version(measure: Callable[[Slot], int]) -> Callable[[], Mapping[tuple[str, str], int]]:
            return lambda: {key: sum(map(measure, slots)) for key, slots in ready().items()}

        for name, text, measure in (
            ("goldlink_pool_trees", "Link trees that are ready.", lambda _slot: 1),
            (
                "goldlink_pool_bytes",
                "Disk space of the ready trees beyond the golden ones.",
                lambda slot: slot.own_bytes,
            ),
            ("goldlink_pool_inodes", "Inodes of the ready trees beyond the golden ones.", lambda slot: slot.own_inodes),
        ):
            self.registry.register(_PerVersion(name, text, per_version(measure)))


class _PerVersion(Collector):
    """Counts when asked, so that a cache or version that is gone leaves no stale series behind."""

    def __init__(self, name: str, text: str, count: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._name = name
        self._text = text
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = self._family()
        for (cache, version), number in sorted(self._count().items()):
            family.add_metric((cache, version), number)
        yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The name without counting: registering must not need the store."""
        yield self._family()

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._text, labels=("cache", "version"))
