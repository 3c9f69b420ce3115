"""How long `cachefetch populate` takes against `cp -al` of the same tree: whole processes, interleaved, medians.

    python bench/link.py [--files 100000] [--runs 9] [--place DIR]

Everything is made below a new directory of DIR and removed at the end. Exits with 1 when the ratio is above TARGET.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET = 1.2
_PER_DIRECTORY = 20  # as in a node_modules tree
_CACHEFETCH = (sys.executable, "-m", "cachefetch")


def main() -> int:
    """Measure, print, clean up; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="goldlink-bench-", dir=args.place))
    try:
        ratio = measure(place, args.files, args.runs)
    finally:
        shutil.rmtree(place)
    print(f"ratio      {ratio:.2f}, target at most {TARGET}")
    return 0 if ratio <= TARGET else 1


def measure(place: Path, files: int, runs: int) -> float:
    """The ratio of the medians."""
    flags = ("--state-dir", str(place / "state"), "--config", str(place / "caches.yaml"))
    make_source(place / "source", files)
    (place / "caches.yaml").write_text(
        f"caches:\n- {{name: bench, source: {{type: directory, path: {place}/source}}, refresh: {{manual: true}}}}\n"
    )
    run((*_CACHEFETCH, "refresh", *flags))
    golden = (place / "state" / "caches" / "bench" / "current").resolve() / "tree"
    ours, theirs = place / "populate", place / "cp"
    commands = {
        ours: (*_CACHEFETCH, "populate", *flags, "bench", str(ours)),
        theirs: ("cp", "-al", str(golden), str(theirs)),
    }
    times: dict[Path, list[float]] = {ours: [], theirs: []}
    for number in range(runs + 1):
        # The order alternates, so that neither of the two always meets the caches that the other warmed.
        for dest in (ours, theirs) if number % 2 else (theirs, ours):
            seconds = run(commands[dest])
            check(golden, dest, files)
            shutil.rmtree(dest)
            if number:  # the first round warms up
                times[dest].append(seconds)
    medians = {dest: statistics.median(each) for dest, each in times.items()}
    for dest, command in ((ours, "cachefetch populate"), (theirs, "cp -al")):
        spread = f"{min(times[dest]):.3f} to {max(times[dest]):.3f}"
        print(f"{command:<20} {medians[dest]:.3f} s, median of {runs} ({spread}), {files} files")
    return medians[ours] / medians[theirs]


def make_source(source: Path, files: int) -> None:
    """A tree of many small files."""
    numbers = iter(range(files))
    for directory in itertools.count():
        batch = list(itertools.islice(numbers, _PER_DIRECTORY))
        if not batch:
            return
        below = source / f"package-{directory // 20:04d}" / f"lib-{directory:05d}"
        below.mkdir(parents=True)
        for number in batch:
            (below / f"module-{number}.js").write_text(f"exports.n = {number}\n")


def run(command: Sequence[str]) -> float:
    """Seconds that the command took; its output matters only when it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}")
    return seconds


def check(golden: Path, tree: Path, files: int) -> None:
    """What was measured must be the work: every file there, and shared."""
    found = list(tree.rglob("*.js"))
    sample = found[0].relative_to(tree)
    if len(found) != files or not (golden / sample).samefile(found[0]):
        raise SystemExit(f"{tree} is no link tree of {golden}: {len(found)} files")


if __name__ == "__main__":
    sys.exit(main())
