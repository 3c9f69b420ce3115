"""The names and labels that dashboards rely on, and one registry for each process."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from csi.metrics import LINK_BUCKETS, RPC_BUCKETS, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples of the text that a scrape gets, by name and labels."""
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_all_metrics_have_their_documented_names_and_labels() -> None:
    metrics = Metrics("1.2.3")
    metrics.rpc_seconds.labels(method="Probe", code="OK").observe(0.0007)
    metrics.rpc_in_flight.inc()
    metrics.link_seconds.labels(mode="hardlink").observe(0.2)
    metrics.link_fallbacks.labels(mode="copy", cause="EMLINK").inc(3)
    metrics.waiting_publishes.set_function(lambda: 7)
    metrics.config_valid.set(1)
    metrics.watch_volumes(lambda: {("deps", "abc"): 2})
    metrics.watch_private(lambda: {("deps", "abc"): 1})
    seen = samples(metrics)
    assert seen["goldlink_build_info", (("version", "1.2.3"),)] == 1
    rpc = (("code", "OK"), ("method", "Probe"))
    assert seen["goldlink_rpc_seconds_count", rpc] == 1
    assert seen["goldlink_rpc_seconds_bucket", (("code", "OK"), ("le", "0.0005"), ("method", "Probe"))] == 0
    assert seen["goldlink_rpc_seconds_bucket", (("code", "OK"), ("le", "0.001"), ("method", "Probe"))] == 1
    assert seen["goldlink_rpc_in_flight", ()] == 1
    assert seen["goldlink_link_seconds_sum", (("mode", "hardlink"),)] == 0.2
    assert seen["goldlink_link_fallbacks_total", (("cause", "EMLINK"), ("mode", "copy"))] == 3
    assert seen["goldlink_waiting_publishes", ()] == 7
    assert seen["goldlink_config_valid", ()] == 1
    assert seen["goldlink_volumes", (("cache", "deps"), ("version", "abc"))] == 2
    assert seen["goldlink_private_volumes", (("cache", "deps"), ("version", "abc"))] == 1


def test_volumes_are_counted_at_each_scrape_and_leave_no_stale_series() -> None:
    metrics = Metrics("1")
    now = {("deps", "old"): 1}
    metrics.watch_volumes(lambda: now)
    assert ("goldlink_volumes", (("cache", "deps"), ("version", "old"))) in samples(metrics)
    now = {("deps", "new"): 4}
    volumes = {key: value for key, value in samples(metrics).items() if key[0] == "goldlink_volumes"}
    assert volumes == {("goldlink_volumes", (("cache", "deps"), ("version", "new"))): 4}


def test_registering_does_not_count() -> None:
    calls: list[int] = []

    def count() -> dict[tuple[str, str], int]:
        calls.append(1)
        return {}

    Metrics("1").watch_volumes(count)
    assert calls == []


def test_two_registries_do_not_share() -> None:
    first, second = Metrics("1"), Metrics("1")
    first.config_valid.set(1)
    assert samples(second)["goldlink_config_valid", ()] == 0


def test_buckets_reach_the_deadline_of_kubelet_and_are_sorted() -> None:
    assert RPC_BUCKETS[0] == 0.0005
    assert RPC_BUCKETS[-1] == 120
    for buckets in (RPC_BUCKETS, LINK_BUCKETS):
        assert list(buckets) == sorted(set(buckets))
