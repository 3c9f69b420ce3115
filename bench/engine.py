"""The work in the background: making link trees, deleting them, and what the driver itself needs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.rpc import declare, ready
from bench.samples import run, summary
from tests.csi.driver import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.samples import Row
    from tests.csi.driver import Driver

_TRASH_SECONDS = 600.0
_DIGEST = """
    find . -type f -printf '%P %m\\n' | sort | sha256sum
    find . -type f -print0 | sort -z | xargs -0 cat | sha256sum
"""


def trees(golden: Path, place: Path, *, golink: Path, populate: Sequence[str], files: int, turns: int) -> list[Row]:
    """Seconds to make a link tree of the golden one and to delete it again, ours and others, whole processes.

    `child` is what the pool and the reaper run, at the lowest priority; `populate` is the command for people.
    """
    child = (sys.executable, "-m", "cachefetch.background", str(os.getpid()))
    makers: dict[str, Sequence[str | Path]] = {
        "pool's child": (*child, "link", golden, place / "tree"),
        "cachefetch populate": (*populate, str(place / "tree")),
        "cp -al": ("cp", "-al", golden, place / "tree"),
        "Go, hardlinks in parallel": (golink, golden, place / "tree"),
    }
    trash = place / "trash"
    trash.mkdir()
    removers: dict[str, Sequence[str | Path]] = {
        "reaper's child": (*child, "empty", trash),
        "rm -rf": ("rm", "-rf", trash / "tree"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*makers, *removers)}
    for turn in range(turns + 1):
        names = list(makers) if turn % 2 else list(reversed(makers))
        for position, name in enumerate(names):
            took = run(*makers[name])
            (place / "tree").rename(trash / "tree")
            remover = list(removers)[(turn + position) % 2]
            gone = run(*removers[remover])
            if turn:  # the first one warms up
                seconds[name].append(took)
                seconds[remover].append(gone)
    trash.rmdir()
    return [{"files": files, "what": name, **summary(each)} for name, each in seconds.items()]


def idle_trash(driver: Driver, cache: str) -> Row:
    """How long the trash holds a whole link tree when nothing else runs, and how long `rm -rf` takes for one."""
    other = driver.root / "linked"
    golden = driver.store.tree(cache, driver.store.current(cache) or "")
    run("cp", "-al", golden, other)
    rm = run("rm", "-rf", other)
    assert ready(driver, cache)
    declare(driver, {cache: 0})
    until(lambda: not ready(driver, cache), _TRASH_SECONDS)  # renamed to the trash
    started = time.perf_counter()
    until(lambda: not any(driver.store.trash.iterdir()), _TRASH_SECONDS)
    return {"trash_s": round(time.perf_counter() - started, 3), "rm_s": round(rm, 3)}


def restarted(driver: Driver, volumes: int) -> Row:
    """Kill the driver, start it again: seconds until its first answer, and its memory."""
    driver.end()
    started = time.perf_counter()
    driver.start()
    driver.client.probe()
    seconds = time.perf_counter() - started
    return {"volumes": volumes, "start_s": round(seconds, 3), **memory(driver)}


def memory(driver: Driver) -> Row:
    """Resident memory of the driver now and at its highest, in MiB (proc(5), VmRSS and VmHWM)."""
    assert driver.process
    lines = Path(f"/proc/{driver.process.pid}/status").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Vm")}
    return {"rss_mib": round(values["VmRSS"], 1), "peak_mib": round(values["VmHWM"], 1)}


def populate_command(driver: Driver, cache: str) -> tuple[str, ...]:
    """`cachefetch populate` of the cache, without its destination."""
    flags = ("--state-dir", str(driver.state), "--config", str(driver.config))
    return (sys.executable, "-m", "cachefetch", "populate", *flags, cache)


def pairs_are_sound(driver: Driver, cache: str, volumes: int) -> Row:
    """Publish volumes, look that each is read-only, and compare one of them file by file with the golden tree."""
    golden = driver.store.tree(cache, driver.store.current(cache) or "")
    digest = _digest(golden)
    wrong = 0
    targets = [driver.publish(f"sound-{number}", cache=cache) for number in range(volumes)]
    for target in targets:
        try:
            (target / "written").touch()
            wrong += 1
        except OSError:
            pass  # a read-only file system, as it must be
    checked = targets[:: max(1, volumes // 3)]
    wrong += sum(_digest(target) != digest for target in checked)
    for number, target in enumerate(targets):
        driver.client.unpublish(f"sound-{number}", target)
    return {"volumes": volumes, "digests": len(checked), "wrong": wrong}


def _digest(tree: Path) -> str:
    """One digest of all names, modes and contents below the tree."""
    return subprocess.run(["bash", "-c", _DIGEST], check=True, cwd=tree, stdout=subprocess.PIPE, text=True).stdout
