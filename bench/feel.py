"""What a pod feels of a tree, by how the tree was delivered: walking, reading, importing; warm and cold."""

from __future__ import annotations

import os
import shutil
import site
import sys
from typing import TYPE_CHECKING

from bench.rpc import declare, wait_ready
from bench.samples import BOTH, drop_caches, run, shell, summary
from cachefetch.config import Cache, Directory
from cachefetch.progress import Silent
from cachefetch.refresh import refresh
from cachefetch.sources import open_source
from csi import syscalls
from csi.mount import KernelMounter

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from bench.samples import Row
    from tests.csi.driver import Driver

_WALK = "find \"$1\" -type f -printf '%s\\n' >/dev/null"
_READ = 'find "$1" -type f -print0 | xargs -0 cat >/dev/null'
_MODULES = "grpc, google.protobuf.text_format, msgspec, yaml, httpx2, cryptography.x509, rich.console, hypothesis"
GOLDEN = "golden tree itself"
ENVIRONMENT = "python"


def views(driver: Driver, cache: str, place: Path, leaving: ExitStack) -> dict[str, Path]:
    """The same tree through each way of delivery. `leaving` takes them away."""
    golden = driver.store.tree(cache, driver.store.current(cache) or "")
    pool = driver.publish(f"feel-{cache}", cache=cache)
    leaving.callback(driver.client.unpublish, f"feel-{cache}", pool)
    record = driver.store.records.read(f"feel-{cache}")
    assert record, "published"
    assert record.slot, "the volume has no link tree of its own: the pool was not full"
    places = {name: place / f"{cache}-{name}" for name in ("bind", "overlay", "upper", "work", "copy")}
    for name in ("bind", "overlay", "upper", "work"):
        places[name].mkdir()
    KernelMounter(place / "unused").bind_readonly(golden, places["bind"])
    leaving.callback(syscalls.umount, places["bind"], syscalls.UMOUNT_NOFOLLOW)
    options = f"lowerdir={golden},upperdir={places['upper']},workdir={places['work']}"
    syscalls.mount("overlay", places["overlay"], 0, fstype="overlay", options=options)
    leaving.callback(syscalls.umount, places["overlay"], syscalls.UMOUNT_NOFOLLOW)
    run("cp", "-a", golden, places["copy"])
    return {
        GOLDEN: golden,
        "volume from the pool": pool,
        "volume, golden tree bound": places["bind"],
        "overlay mount": places["overlay"],
        "copy": places["copy"],
    }


def measure(trees: dict[str, Path], turns: int, cold_turns: int) -> list[Row]:
    """Walk and read every view in turns; medians, and the ratio to the golden tree itself."""
    tasks: dict[str, Callable[[Path], float]] = {
        "stat walk": lambda tree: shell(_WALK, tree),
        "read": lambda tree: shell(_READ, tree),
    }
    return [row for name, task in tasks.items() for row in _compare(name, task, trees, turns, cold_turns)]


def imports(trees: dict[str, Path], turns: int, cold_turns: int) -> list[Row]:
    """Start Python and import a large environment from each view of it."""

    def start(tree: Path) -> float:
        return run(sys.executable, "-S", "-c", f"import {_MODULES}", env={**os.environ, "PYTHONPATH": str(tree)})

    return _compare("Python import", start, trees, turns, cold_turns)


def declare_environment(driver: Driver, directory: Path) -> None:
    """Make this Python's packages, byte code included, a cache of the driver with one tree in its pool."""
    shutil.copytree(site.getsitepackages()[0], directory, symlinks=True)
    declaration = Cache(name=ENVIRONMENT, source=Directory(path=str(directory)))
    refresh(driver.store, declaration, open_source(declaration.source), Silent())
    declare(driver, {ENVIRONMENT: 1})
    wait_ready(driver, {ENVIRONMENT: 1})


def _compare(
    name: str, task: Callable[[Path], float], trees: dict[str, Path], turns: int, cold_turns: int
) -> list[Row]:
    rows: list[Row] = []
    for state, count in (("warm", turns), ("cold", cold_turns)):
        os.sync()  # what is dirty cannot be dropped
        seconds: dict[str, list[float]] = {view: [] for view in trees}
        for turn in range(count + 1):
            order = list(trees)[turn % len(trees) :] + list(trees)[: turn % len(trees)]
            for view in order:
                if state == "cold":
                    drop_caches(BOTH)
                took = task(trees[view])
                if turn:  # the first one warms up
                    seconds[view].append(took)
        rows += [
            {"task": name, "state": state, "view": view, **summary(each), **_against(seconds[GOLDEN], each)}
            for view, each in seconds.items()
        ]
    return rows


def _against(golden: list[float], other: list[float]) -> Row:
    """Median of the ratios within one turn, which drop what changes slowly on the machine."""
    ratios = sorted(one / base for one, base in zip(other, golden, strict=True))
    return {"ratio": round(ratios[len(ratios) // 2], 3), "best_ratio": round(min(other) / min(golden), 3)}
