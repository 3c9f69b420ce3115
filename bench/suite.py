"""The parts of the benchmark, in order, each on a driver and a store of its own below one new directory."""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import cost, delivery, engine, feel, pod_start, report, rpc, study
from bench.samples import run, spread
from bench.trees import Tree, put
from bench.web import Origin
from csi import syscalls
from tests.csi.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.report import Results
    from bench.samples import Row

SMALL = "f100"
_STANDING = 1000
"""Volumes that are mounted already."""
_CALLERS = (1, 8, 32)
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    files: tuple[int, ...]
    cycles: int
    cold_cycles: int
    pairs: int
    """Publishes and unpublishes by many callers."""
    standing: int
    turns: int
    feel_files: int
    study: tuple[tuple[int, int], ...]
    """Files and their average size."""
    pods: int = 20

    @property
    def large(self) -> int:
        """The size at which ways are compared: 100,000 files, where it is among the sizes."""
        return max(count for count in self.files if count <= 100_000)


QUICK = Scale((100, 1000), 30, 3, 128, 30, 1, 500, ((100, 10_000),), pods=3)
DEFAULT = Scale(
    (100, 10_000, 100_000, 1_000_000), 600, 9, 1024, _STANDING, 2, 10_000, ((100, 100_000), (10_000, 10_000))
)
FULL = Scale(
    (100, 10_000, 100_000, 1_000_000),
    1000, 30, 1024, _STANDING, 7, 50_000,
    ((100, 100_000), (100, 10_000_000), (10_000, 10_000), (100_000, 10_000)),
)  # fmt: skip


@dataclass
class Bench:
    """Where and how much is measured, and what was."""

    place: Path
    out: Path
    scale: Scale
    results: Results

    def table(self, name: str) -> list[Row]:
        """The rows of that table, to append to."""
        return self.results.tables[name]

    @contextmanager
    def driver(self, pools: dict[str, int]) -> Iterator[Driver]:
        """A driver with caches `f<files>` and these pools, which are full."""
        # Deleted at the very end, for the reason that `spread` gives.
        driver = Driver(Path(tempfile.mkdtemp(prefix="driver-", dir=self.place)))
        try:
            for cache in pools:
                put(driver.store, cache, Tree(int(cache.removeprefix("f"))))
            rpc.declare(driver, pools)
            driver.start()
            rpc.wait_ready(driver, pools)
            yield driver
        finally:
            driver.close()


def rpcs(bench: Bench) -> None:
    """Latency of the calls by number of files, pool, callers, standing volumes and dentry cache."""
    scale = bench.scale
    sizes = {f"f{files}": files for files in scale.files}
    with bench.driver(dict.fromkeys(sizes, 0)) as driver:
        _latencies(bench, driver, sizes, "miss")
        driver.end()
        # As many trees as callers where many call: each caller has one volume at a time.
        pools = {cache: max(_CALLERS) + 1 if files == scale.large else 2 for cache, files in sizes.items()}
        rpc.declare(driver, pools)
        driver.start()
        rpc.wait_ready(driver, pools)
        before = driver.log_file.stat().st_size
        _latencies(bench, driver, sizes, "hit")
        missed = driver.log_file.read_bytes()[before:].count(b"pool=miss")
        bench.table("sound").append(engine.pairs_are_sound(driver, f"f{scale.large}", 30))
        rpc.fill(driver, SMALL, scale.standing)
        _standing(bench, driver, sizes, namespaces=1)
        driver.end()
        driver.start(python=("bench/apart.py",))
        _standing(bench, driver, sizes, namespaces=2)
        busy = engine.memory(driver)["peak_mib"]
        bench.table("process").append(
            {"missed_hits": missed, "busy_peak_mib": busy, **engine.restarted(driver, scale.standing)}
        )


def _standing(bench: Bench, driver: Driver, sizes: dict[str, int], namespaces: int) -> None:
    """With many volumes mounted; in two namespaces the kernel does every mount and unmount twice."""
    standing = bench.scale.standing
    for cache, files in sizes.items():
        name = f"standing-{namespaces}-{cache}"
        calls = rpc.cycles(driver, driver.client, cache, bench.scale.cycles, name=name)
        bench.table("rpc").extend(
            calls.rows(files=files, pool="hit", callers=1, standing=standing, dentries="warm", namespaces=namespaces)
        )


def _latencies(bench: Bench, driver: Driver, sizes: dict[str, int], pool: str) -> None:
    scale, table = bench.scale, bench.table("rpc")
    calls_of = {cache: rpc.Calls() for cache in sizes}
    for part in range(3):  # sizes take turns, so that a busy minute of the machine meets all of them
        for cache, total in calls_of.items():
            name = f"{pool}-{part}-{cache}"
            total.add(rpc.cycles(driver, driver.client, cache, scale.cycles // 3, name=name))
    for cache, files in sizes.items():
        table += calls_of[cache].rows(files=files, pool=pool, callers=1, standing=0, dentries="warm", namespaces=1)
        calls = rpc.cycles(driver, driver.client, cache, scale.cold_cycles, name=f"cold-{pool}-{cache}", cold=True)
        table += calls.rows(files=files, pool=pool, callers=1, standing=0, dentries="cold", namespaces=1)
    for callers in _CALLERS:
        cache = f"f{scale.large}"
        calls, rate = rpc.concurrent(driver, cache, callers, scale.pairs, name=f"{pool}-{callers}")
        row: Row = {"files": scale.large, "pool": pool, "callers": callers}
        if callers > 1:  # one caller is above, in turns with the other sizes
            table += calls.rows(**row, standing=0, dentries="warm", namespaces=1)
        bench.table("throughput").append({**row, "pairs": len(calls.publish), "pairs_per_s": round(rate, 1)})


def deliveries(bench: Bench) -> None:
    """The other ways of delivery, on the same trees in the same minutes."""
    golink = delivery.build_golink(bench.out)
    for files in (count for count in bench.scale.files if count <= bench.scale.large):
        cache = f"f{files}"
        with bench.driver({cache: 0}) as driver, tempfile.TemporaryDirectory(dir=bench.place) as work:
            place = Path(work)
            spread(place)
            golden = driver.store.tree(cache, driver.store.current(cache) or "")
            run("tar", "-cf", place / "tree.tar", "-C", golden, ".")
            with Origin(place).running() as origin:
                ways = [
                    delivery.published(driver, "goldlink, golden tree bound", cache),
                    *delivery.mounts(golden, place),
                    *delivery.copies(golden, place / "tree.tar", golink, origin.url),
                ]
                bench.table("delivery").extend(delivery.measure(ways, place, files, bench.scale.turns))
            rpc.declare(driver, {cache: 2})
            rpc.wait_ready(driver, {cache: 2})
            ways = [delivery.published(driver, "goldlink, from the pool", cache)]
            bench.table("delivery").extend(delivery.measure(ways, place, files, bench.scale.turns))


def engines(bench: Bench) -> None:
    """Link engine and reaper."""
    golink = delivery.build_golink(bench.out)
    cache = f"f{bench.scale.large}"
    with bench.driver({cache: 0}) as driver:
        golden = driver.store.tree(cache, driver.store.current(cache) or "")
        populate = engine.populate_command(driver, cache)
        work = driver.root / "work"
        work.mkdir()
        rows = engine.trees(
            golden, work, golink=golink, populate=populate, files=bench.scale.large, turns=2 * bench.scale.turns
        )
        bench.table("engine").extend(rows)
        rpc.declare(driver, {cache: 1})
        rpc.wait_ready(driver, {cache: 1})
        bench.table("trash").append(engine.idle_trash(driver, cache))


def feelings(bench: Bench) -> None:
    """What a pod feels."""
    scale = bench.scale
    cache = f"f{scale.feel_files}"
    with bench.driver({cache: 1}) as driver, ExitStack() as leaving:
        views = feel.views(driver, cache, driver.root, leaving)
        bench.table("feel").extend(feel.measure(views, scale.turns * 8, scale.turns * 2))
        feel.declare_environment(driver, driver.root / "environment")
        views = feel.views(driver, feel.ENVIRONMENT, driver.root, leaving)
        bench.table("feel").extend(feel.imports(views, scale.turns * 8, scale.turns * 2))


def costs(bench: Bench) -> None:
    """Disk space and inodes."""
    for files in (count for count in bench.scale.files if count <= bench.scale.large):
        with bench.driver({f"f{files}": 1}) as driver:
            bench.table("cost").extend(cost.volumes(driver, f"f{files}"))
    with bench.driver({}) as driver:
        feel.declare_environment(driver, driver.root / "environment")
        bench.table("cost").extend(cost.volumes(driver, feel.ENVIRONMENT))
    with bench.driver({}) as driver:
        files = min(10_000, bench.scale.large)
        bench.table("versions").extend(cost.versions(driver.store, "versions", files))


def studies(bench: Bench) -> None:
    """Many nodes."""
    measured = []
    for files, mean in bench.scale.study:
        with tempfile.TemporaryDirectory(dir=bench.place) as work:
            measured += study.measure(Path(work), files, mean, bench.scale.turns)
    bench.table("nodes_measured").extend(study.rows(measured))
    bench.table("nodes").extend(study.compute(measured, _publish_seconds(bench.results.tables.get("rpc", []))))
    study.record(measured, bench.out / "events.jsonl")


def starts(bench: Bench) -> None:
    """Real pods."""
    rows, samples = pod_start.measure(bench.out, bench.scale.large, bench.scale.pods)
    bench.table("pod_start").extend(rows)
    bench.table("pod_starts").extend(samples)


def _publish_seconds(table: list[Row]) -> float:
    """The measured median of a publish."""
    found = [float(row["p50_ms"]) / 1000 for row in table if row["method"] == "publish" and row["callers"] == 1]
    if not found:
        raise SystemExit("the study needs the time of a publish: run the part rpc first, with the same --out")
    return min(found)


PARTS: dict[str, tuple[Callable[[Bench], None], tuple[str, ...]]] = {
    "rpc": (rpcs, ("rpc", "throughput", "sound", "process")),
    "delivery": (deliveries, ("delivery",)),
    "engine": (engines, ("engine", "trash")),
    "feel": (feelings, ("feel",)),
    "cost": (costs, ("cost", "versions")),
    "study": (studies, ("nodes_measured", "nodes")),
    "pods": (starts, ("pod_start", "pod_starts")),
}
"""Each part, and the tables that it fills."""
_ASKED = {"pods"}
"""Measured only when they are named: this one needs the Kubernetes that `make programs` builds."""


def _known(out: Path) -> report.Results:
    """What an earlier run has measured, or else what is published."""
    places = [directory / "results.json" for directory in (out, _ROOT / "docs" / "benchmarks")]
    return report.Results.load(next((place for place in places if place.exists()), places[0]))


def main(description: str | None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--quick", dest="scale", action="store_const", const=QUICK, default=DEFAULT)
    much.add_argument("--full", dest="scale", action="store_const", const=FULL)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure these anew, keep what is there of the others")
    parser.add_argument("--place", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    parser.add_argument("--out", type=Path, default=_ROOT / "build" / "bench")
    parser.add_argument("--publish", action="store_true", help="also write docs/benchmarks.md and docs/benchmarks/")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = _known(args.out)
    parts = args.only or [name for name in PARTS if name not in _ASKED]
    if not args.only:
        results.keep(table for name in _ASKED for table in PARTS[name][1])
    place = Path(tempfile.mkdtemp(prefix="goldlink-bench-", dir=args.place))
    spread(place)
    bench = Bench(place, args.out, args.scale, results)
    syscalls.mount(place, place, syscalls.MS_BIND)
    try:
        syscalls.mount("", place, syscalls.MS_SHARED)  # as kubelet's directory is
        for name in parts:
            started = time.monotonic()
            measure, tables = PARTS[name]
            results.clear(tables)
            measure(bench)
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
            results.save(args.out / "results.json")
    finally:
        syscalls.umount(place, syscalls.MNT_DETACH)
        run("rm", "-rf", place)  # faster than Python
    report.write(results, args.out, _ROOT / "docs" if args.publish else None)
    return 0
