"""Results: kept as JSON, written as CSV, plots and the page docs/benchmarks.md."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench import plots
from bench.page import page
from bench.targets import check

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bench.samples import Row


@dataclass
class Results:
    """Tables of rows, and the machine that they were measured on."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    machine: Row = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Results:
        """What an earlier run wrote; empty when there was none."""
        if not path.exists():
            return cls()
        data = json.loads(path.read_text())
        return cls(data["tables"], data["machine"])

    def keep(self, names: Iterable[str]) -> None:
        """Forget all other tables."""
        self.tables = {name: self.tables[name] for name in names if name in self.tables}

    def clear(self, names: Iterable[str]) -> None:
        """Forget these tables: they are measured anew."""
        for name in names:
            self.tables[name] = []
        self.machine = describe_machine()

    def save(self, path: Path) -> None:
        """Write everything, one row a line, so that two runs can be compared by diff."""
        tables = ",\n".join(
            f"  {json.dumps(name)}: [\n" + ",\n".join(f"    {json.dumps(row)}" for row in rows) + "\n  ]"
            for name, rows in self.tables.items()
        )
        path.write_text(f'{{\n"machine": {json.dumps(self.machine)},\n"tables": {{\n{tables}\n}}\n}}\n')


def describe_machine() -> Row:
    """What the figures depend on."""
    kind = subprocess.run(["stat", "-fc", "%T", "/var/tmp"], check=True, stdout=subprocess.PIPE, text=True)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processors": os.cpu_count() or 0,
        "kernel": platform.release().split("-")[0],
        "filesystem": kind.stdout.strip(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 1),
    }


def write(results: Results, out: Path, docs: Path | None) -> None:
    """Write CSV files and plots to `out`; with `docs` also the page and what it shows. Prints the targets."""
    for name, rows in results.tables.items():
        _write_csv(out / f"{name}.csv", rows)
    plots.draw(results.tables, out)
    for target in check(results.tables):
        print(f"{target.verdict:<7} {target.claim}: {target.measured}")
    if docs is not None:
        pictures = docs / "benchmarks"
        pictures.mkdir(exist_ok=True)
        results.save(pictures / "results.json")
        plots.draw(results.tables, pictures)
        (docs / "benchmarks.md").write_text(page(results.tables, results.machine))


def _write_csv(path: Path, rows: list[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
