"""A guard against what would make a publish depend on the size of a version. Ratios of one run, with room for noise."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest

from bench.rpc import Calls, cycles, declare, wait_ready
from bench.trees import Tree, put
from tests.csi.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL, LARGE = "small", "large"
FILES = {SMALL: 100, LARGE: 100_000}
CYCLES = 60
MEASUREMENTS = 3
"""A busy machine may spoil one or two; a publish that walks 100,000 files spoils all."""
GROWTH = 3.0
"""Goal: 1.5. Anything that touches every file costs a thousand times as much."""
OF_PROBE = 12.0
"""Goal: 5. A walk over the tree takes 300 and more."""

pytestmark = [pytest.mark.alone, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Calls]]]:
    """Measures both caches in turns, with a full pool (`hit`) or none (`miss`)."""
    driver = Driver(tmp_path_factory.mktemp("bench"))
    try:
        for cache, files in FILES.items():
            put(driver.store, cache, Tree(files))

        def measure(pool: str) -> dict[str, Calls]:
            pools = dict.fromkeys(FILES, 2 if pool == "hit" else 0)
            declare(driver, pools)
            driver.end()
            driver.start()
            wait_ready(driver, pools)
            calls = {cache: Calls() for cache in FILES}
            for turn in range(3):
                for cache, total in calls.items():
                    total.add(cycles(driver, driver.client, cache, CYCLES // 3, name=f"{pool}-{turn}-{cache}"))
            return calls

        yield measure
    finally:
        driver.close()


@pytest.mark.parametrize("pool", ["miss", "hit"])
def test_publish_and_unpublish_do_not_depend_on_the_number_of_files(
    measured: Callable[[str], dict[str, Calls]], pool: str
) -> None:
    """The median at 100,000 files is that at 100, and a small multiple of Probe's in the same minute."""
    seen = []
    for _ in range(MEASUREMENTS):
        seen.append(_ratios(measured(pool)))
        if all(ratio <= (OF_PROBE if "Probe" in name else GROWTH) for name, ratio in seen[-1].items()):
            return
    pytest.fail(f"pool {pool}: {seen}")


def _ratios(calls: dict[str, Calls]) -> dict[str, float]:
    found = {}
    probe = statistics.median(calls[LARGE].probe)
    for method in ("publish", "unpublish"):
        small, large = (statistics.median(getattr(calls[cache], method)) for cache in (SMALL, LARGE))
        found[f"{method}, large / small"] = round(large / small, 2)
        found[f"{method}, large / Probe"] = round(large / probe, 2)
    return found
