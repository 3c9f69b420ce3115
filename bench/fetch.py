"""How long a fetch takes against `curl | zstd -d | tar x` of the same archive from the same server on loopback.

    python bench/fetch.py [--size 1024] [--files 50000] [--runs 5] [--place DIR]

Both are whole processes, interleaved; medians. The fetch also hashes archive and files, checks every path, writes the
manifest, makes everything durable and publishes; the pipeline is left without sync(1), as people write it. First one
archive of `--size` MiB in large files, then one of `--files` small ones. Exits with 1 when a ratio is above its target.
Everything is made below a new directory of DIR and removed at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.servers.nginx import running_nginx  # noqa: E402  (a script's own directory is on the path, its parent not)

LARGE_TARGET, SMALL_TARGET = 1.3, 4.0
_LARGE = 16 << 20
_PER_DIRECTORY = 50
_PIPELINE = 'curl -sSf "$1" | zstd -dcq | tar -x -C "$2"'


def main() -> int:
    """Measure, print, clean up; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the archive of large files")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="goldlink-bench-", dir=args.place))
    try:
        with running_nginx(place / "nginx") as nginx:
            make_large(place / "large", args.size)
            make_small(place / "small", args.files)
            for name in ("large", "small"):
                pack(place / name, nginx.root / f"{name}.tar.zst")
            large = measure(place, f"{nginx.url}/large.tar.zst", args.runs)
            small = measure(place, f"{nginx.url}/small.tar.zst", args.runs)
    finally:
        shutil.rmtree(place)
    good = report(f"{args.size} MiB", large, LARGE_TARGET)
    return 0 if report(f"{args.files:,} files", small, SMALL_TARGET) and good else 1


def make_large(place: Path, size: int) -> None:
    """Files that compress by about a third, as models and binaries do."""
    place.mkdir()
    for number in range(max(1, (size << 20) // _LARGE)):
        half = os.urandom(_LARGE * 2 // 3)
        (place / f"part-{number:04}").write_bytes(half + bytes(_LARGE - len(half)))


def make_small(place: Path, files: int) -> None:
    """Files of some kilobytes in directories of fifty, as in a node_modules tree."""
    for number in range(files):
        path = place / f"{number // _PER_DIRECTORY:05}" / f"module-{number:06}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"module.exports = {number};\n" * (number % 200 + 1))


def pack(tree: Path, archive: Path) -> None:
    """The tree as tar.zst, and nothing else of it."""
    script = 'tar -c -C "$1" . | zstd -q -3 -T0 -o "$2"'
    subprocess.run(["bash", "-euo", "pipefail", "-c", script, "bench", tree, archive], check=True)
    shutil.rmtree(tree)


def measure(place: Path, url: str, runs: int) -> tuple[float, float]:
    """Median seconds of pipeline and fetch; the first run of each warms the page cache and does not count."""
    state, tree, config = place / "state", place / "tree", place / "caches.yaml"
    config.write_text(f"caches:\n- {{name: bench, source: {{type: http, url: '{url}'}}, refresh: {{manual: true}}}}\n")
    fetch = (sys.executable, "-m", "cachefetch", "refresh", "--state-dir", state, "--config", config)
    pipelines, fetches = [], []
    for number in range(runs + 1):
        tree.mkdir()
        seconds = (timed("bash", "-euo", "pipefail", "-c", _PIPELINE, "bench", url, tree), timed(*fetch))
        for made in (tree, state):
            shutil.rmtree(made)
        os.sync()  # so that nobody writes back what another one has left
        if number:
            pipelines.append(seconds[0])
            fetches.append(seconds[1])
    return statistics.median(pipelines), statistics.median(fetches)


def timed(*command: str | Path) -> float:
    """Seconds that the command took."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - started


def report(name: str, medians: tuple[float, float], target: float) -> bool:
    """Print; returns whether the ratio is within the target."""
    pipeline, fetch = medians
    ratio = fetch / pipeline
    print(f"{name:<14} pipeline {pipeline:6.2f} s   fetch {fetch:6.2f} s   ratio {ratio:.2f}, target at most {target}")
    return ratio <= target


if __name__ == "__main__":
    sys.exit(main())
