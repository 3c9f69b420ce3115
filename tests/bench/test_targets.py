"""Verdicts come from the figures: a bad one is called missed."""

from __future__ import annotations

from bench.page import table
from bench.samples import quantile
from bench.targets import check


def tables(rate: float) -> dict[str, list[dict[str, str | int | float]]]:
    rows: list[dict[str, str | int | float]] = [
        {"files": 1000, "pool": pool, "callers": 32, "pairs_per_s": rate} for pool in ("hit", "miss")
    ]
    return {"throughput": rows, "sound": [{"volumes": 30, "wrong": 0}]}


def test_a_target_holds_exactly_when_its_figure_does() -> None:
    assert [target.holds for target in check(tables(150.0))] == [True, True, True]
    assert [target.holds for target in check(tables(149.9))] == [False, False, True]


def test_a_volume_may_cost_the_start_of_a_pod_a_tenth_of_a_second() -> None:
    for more, holds in ((100.0, True), (100.1, False), (-3.0, True)):
        rows: list[dict[str, str | int | float]] = [
            {"pod_with": "cache volume", "files": 1000, "p50_ms": 1200.0 + more},
            {"pod_with": "difference", "files": 1000, "p50_ms": more},
        ]
        assert [target.holds for target in check({"pod_start": rows})] == [holds]


def test_parts_that_were_not_measured_have_no_verdict() -> None:
    assert check({}) == []


def test_a_quantile_is_the_nearest_rank() -> None:
    assert quantile(list(range(1, 101)), 0.99) == 99
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([7.0], 0.99) == 7.0


def test_a_table_of_the_page_has_a_line_for_each_row() -> None:
    assert table([{"a_b": "x", "n": 1200}, {"a_b": "y", "n": 0.125}]).splitlines() == [
        "| a b | n |", "|---|---:|", "| x | 1,200 |", "| y | 0.125 |",
    ]  # fmt: skip
