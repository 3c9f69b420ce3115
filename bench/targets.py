"""What goldlink promises of its speed, held against what was measured. Pure: tables in, verdicts out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cost import ADDITIONAL, FIRST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.samples import Row

    Tables = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class Target:
    """One promise and what became of it."""

    claim: str
    measured: str
    holds: bool

    @property
    def verdict(self) -> str:
        """In one word."""
        return "holds" if self.holds else "MISSED"


def check(tables: Tables) -> list[Target]:
    """Every target that the tables have figures for."""
    found: list[Target] = []
    for of in (_calls, _standing, _throughput, _delivery, _engine, _cost, _feel, _process, _pods):
        try:
            found += of(tables)
        except LookupError:  # that part was not measured
            continue
    return found


def select(tables: Tables, table: str, **where: str | float) -> list[Row]:
    """The rows of a table with these values.

    Raises:
        LookupError: there is none.
    """
    rows = [row for row in tables[table] if all(row.get(name) == value for name, value in where.items())]
    if not rows:
        raise LookupError(f"table {table} has no row with {where}")
    return rows


def value(tables: Tables, table: str, column: str, **where: str | float) -> float:
    """The number in the first of these rows."""
    return float(select(tables, table, **where)[0][column])


def sizes(tables: Tables, table: str) -> list[int]:
    """The numbers of files in a table, ascending."""
    return sorted({int(row["files"]) for row in tables[table]})


def _calls(tables: Tables) -> Iterator[Target]:
    small, large = sizes(tables, "rpc")[0], sizes(tables, "rpc")[-1]
    quiet: Row = {"callers": 1, "standing": 0, "dentries": "warm"}
    for method in ("publish", "unpublish"):
        for pool in ("hit", "miss"):
            name = f"{method}, pool {pool}"

            def of(files: int, which: str, column: str, pool: str = pool) -> float:
                return value(tables, "rpc", column, files=files, method=which, pool=pool, **quiet)

            growth = of(large, method, "p50_ms") / of(small, method, "p50_ms")
            yield _most(f"{name}: p50 at {large:,} files / p50 at {small:,}", growth, 1.5)
            probe = of(large, "Probe", "p50_ms")
            yield _most(f"{name}: p50 / p50 of Probe, {large:,} files", of(large, method, "p50_ms") / probe, 5)
            yield _most(f"{name}: p99 / p50 of Probe, {large:,} files", of(large, method, "p99_ms") / probe, 20)


def _standing(tables: Tables) -> Iterator[Target]:
    large = sizes(tables, "rpc")[-1]
    standing = max(int(row["standing"]) for row in tables["rpc"])
    for method in ("publish", "unpublish"):
        for namespaces in (1, 2):
            case: Row = {"files": large, "pool": "hit", "standing": standing, "namespaces": namespaces}
            own, probe = (value(tables, "rpc", "p50_ms", method=which, **case) for which in (method, "Probe"))
            yield _most(
                f"{method}, {standing:,} volumes mounted, {namespaces} namespaces: p50 / p50 of Probe", own / probe, 5
            )


def _throughput(tables: Tables) -> Iterator[Target]:
    for pool in ("hit", "miss"):
        for row in select(tables, "throughput", callers=32, pool=pool):
            yield _least(f"32 callers, pool {pool}: pairs a second, {row['files']:,} files", row["pairs_per_s"], 150)
    for row in tables["sound"]:
        claim = f"volumes that are writable or differ from the golden tree, of {row['volumes']}"
        yield _most(claim, row["wrong"], 0)


def _delivery(tables: Tables) -> Iterator[Target]:
    files = sizes(tables, "delivery")[-1]
    for ours in ("goldlink, from the pool", "goldlink, golden tree bound"):
        own = value(tables, "delivery", "p50_ms", files=files, way=ours, what="make")
        for way, times in (("cp -al", 100), ("cp -a", 1000), ("tar extraction", 1000)):
            other = value(tables, "delivery", "p50_ms", files=files, way=way, what="make")
            yield _least(f"{ours}: times faster than {way}, {files:,} files", other / own, times)


def _engine(tables: Tables) -> Iterator[Target]:
    def of(what: str) -> float:
        return value(tables, "engine", "p50_ms", what=what)

    for maker in ("pool's child", "cachefetch populate"):
        yield _most(f"{maker} / cp -al", of(maker) / of("cp -al"), 1.1)
        yield _most(f"{maker} / Go, hardlinks in parallel", of(maker) / of("Go, hardlinks in parallel"), 1.0)
    yield _most("reaper's child / rm -rf", of("reaper's child") / of("rm -rf"), 1.1)
    for row in tables["trash"]:
        claim = f"trash: seconds until a link tree is gone (rm -rf took {row['rm_s']} s)"
        yield _most(claim, row["trash_s"], 1 + float(row["rm_s"]))


def _cost(tables: Tables) -> Iterator[Target]:
    for row in select(tables, "cost", volume=ADDITIONAL):
        yield _most(f"additional volume, cache {row['cache']}: own bytes in %", row["bytes_percent"], 1)
    for row in select(tables, "cost", volume=FIRST):
        yield Target(
            f"volume with the pool's tree, cache {row['cache']}: own inodes are its directories, as its statistics say",
            f"{row['own_inodes']} owned, {row['reported_inodes']} reported, {row['directories']} directories",
            row["own_inodes"] == row["reported_inodes"] == row["directories"],
        )


def _feel(tables: Tables) -> Iterator[Target]:
    for view in ("volume from the pool", "volume, golden tree bound"):
        for row in select(tables, "feel", view=view):
            yield _most(f"{view}: {row['task']}, {row['state']}, against the golden tree itself", row["ratio"], 1.03)


def _process(tables: Tables) -> Iterator[Target]:
    for row in tables["process"]:
        files = sizes(tables, "rpc")[-1]
        yield _most(f"driver's memory in MiB after all calls, {files:,} files", row["busy_peak_mib"], 80)
        yield _most(f"driver's memory in MiB after a start with {row['volumes']} volumes", row["peak_mib"], 80)
        yield _most(f"seconds from start to first answer, {row['volumes']} volumes", row["start_s"], 1)


def _pods(tables: Tables) -> Iterator[Target]:
    for row in select(tables, "pod_start", pod_with="difference"):
        claim = f"start of a pod with a volume of {row['files']:,} files, minus that with an emptyDir, median in ms"
        yield _most(claim, row["p50_ms"], 100)


def _most(claim: str, number: float | str, limit: float) -> Target:
    return Target(claim, f"{float(number):.4g} (at most {limit:g})", float(number) <= limit)


def _least(claim: str, number: float | str, limit: float) -> Target:
    return Target(claim, f"{float(number):,.4g} (at least {limit:g})", float(number) >= limit)
