"""What else a user could do to get a tree into a pod: each way on the same tree, in turns, in the same run."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.samples import Row, run, shell, summary, timed
from csi import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.csi.driver import Driver


@dataclass(frozen=True)
class Way:
    """One way of delivery: how the tree gets to `dest`, which is absent, and how it goes again."""

    name: str
    make: Callable[[Path], object]
    remove: Callable[[Path], object]
    rounds: int = 1
    """How often it is done in each turn: short ones more often."""


def measure(ways: list[Way], place: Path, files: int, turns: int) -> list[Row]:
    """Rows with the times of making and of removing, medians over all turns; the first turn only warms up."""
    made: dict[str, list[float]] = {way.name: [] for way in ways}
    removed: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(turns + 1):
        for way in ways if turn % 2 else reversed(ways):
            for _ in range(way.rounds if turn else 1):
                making: list[float] = []
                removing: list[float] = []
                dest = place / "dest"
                with timed(making):
                    way.make(dest)
                with timed(removing):
                    way.remove(dest)
                if turn:
                    made[way.name] += making
                    removed[way.name] += removing
    return [
        {"files": files, "way": way.name, "what": what, **summary(seconds[way.name])}
        for way in ways
        for what, seconds in (("make", made), ("remove", removed))
    ]


def published(driver: Driver, name: str, cache: str) -> Way:
    """The driver's own way, through gRPC."""
    return Way(
        name,
        lambda dest: driver.client.publish("delivered", dest, cache=cache),
        lambda dest: driver.client.unpublish("delivered", dest),
        rounds=10,
    )


def mounts(golden: Path, place: Path) -> list[Way]:
    """Mounts without a driver: the floor below which nothing goes."""
    upper, work = place / "upper", place / "work"
    options = f"lowerdir={golden},upperdir={upper},workdir={work}"

    def overlay(dest: Path) -> None:
        for directory in (upper, work, dest):
            directory.mkdir()
        syscalls.mount("overlay", dest, 0, fstype="overlay", options=options)

    def bind(dest: Path) -> None:
        dest.mkdir()
        syscalls.mount(golden, dest, syscalls.MS_BIND)

    def unmount(dest: Path) -> None:
        syscalls.umount(dest, syscalls.UMOUNT_NOFOLLOW)
        dest.rmdir()
        for directory in (upper, work):
            shutil.rmtree(directory, ignore_errors=True)

    return [Way("overlay mount", overlay, unmount, rounds=10), Way("plain bind", bind, unmount, rounds=10)]


def copies(golden: Path, archive: Path, golink: Path, url: str) -> list[Way]:
    """Everything whose cost grows with the tree."""

    def way(name: str, make: Callable[[Path], object]) -> Way:
        return Way(name, make, lambda dest: run("rm", "-rf", dest))

    return [
        way("cp -al", lambda dest: run("cp", "-al", golden, dest)),
        way("Go, hardlinks in parallel", lambda dest: run(golink, golden, dest)),
        way("rsync --link-dest", lambda dest: run("rsync", "-a", f"--link-dest={golden}", f"{golden}/", dest)),
        way("cp -a", lambda dest: run("cp", "-a", golden, dest)),
        way("tar extraction", lambda dest: shell('mkdir "$2"; tar -xf "$1" -C "$2"', archive, dest)),
        way(
            "download and extract",
            lambda dest: shell('mkdir "$2"; curl -sSf "$1" | tar -x -C "$2"', f"{url}/{archive.name}", dest),
        ),
    ]


def build_golink(directory: Path) -> Path:
    """Compile the Go program once; returns its path."""
    root = Path(__file__).parents[1]
    binary = directory / "golink"
    go = subprocess.run([root / "tests/tools/go.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    source = root / "bench" / "golink"
    subprocess.run([go, "build", "-o", binary, "."], check=True, cwd=source, env={**os.environ, "GOTOOLCHAIN": "local"})
    return binary
