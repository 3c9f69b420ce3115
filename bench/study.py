"""The study: how long until the last of many nodes has a cache ready, and how many bytes the origin sends.

One node is measured: refreshes of a tar archive over loopback HTTP, cold, after 1 % changed, and unchanged; and
`curl | tar`, which is what a pod without a cache volume does. Many nodes are computed from that: `network.simulate`
shares the origin's bandwidth, and no node takes data faster than the measured one did or than its network card.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from bench.network import Flow, simulate
from bench.samples import run, shell
from bench.trees import Tree
from bench.web import Origin
from cachefetch.config import Cache, Http
from cachefetch.progress import Silent
from cachefetch.refresh import refresh
from cachefetch.sources import open_source
from cachefetch.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.samples import Row

NODES = (4, 8, 16, 32, 64, 128, 256)
PODS = 10
"""Pods on each node that use the cache."""
ORIGIN = 10e9 / 8
"""Bytes a second that the origin can send: 10 Gbit/s."""
CARD = 10e9 / 8
"""Bytes a second of a node's network card."""
JITTER = 1.0
"""Seconds over which the nodes begin: they hear of a new version, or are started, at about the same time."""
CHANGED = 0.01
_SEED = 20261125
_DOWNLOAD = 'mkdir "$2"; curl -sSf "$1" | tar -x -C "$2"'


@dataclass(frozen=True)
class Measured:
    """What one node did."""

    files: int
    archive_bytes: int
    state: str
    """`cold`, `incremental` or `warm`; `each pod` is the download without a cache volume."""
    seconds: float
    sent_bytes: int
    """Content that the origin sent."""


def measure(place: Path, files: int, mean: int, turns: int) -> list[Measured]:
    """Measure one node with a cache of so many files of that average size."""
    served, tree, archive = place / "served", place / "tree", place / "served" / "cache.tar"
    served.mkdir()
    with Origin(served).running() as origin:
        found: dict[str, list[tuple[float, int]]] = {"cold": [], "incremental": [], "warm": [], "each pod": []}
        for turn in range(turns):
            state, pod = place / f"state-{turn}", place / "pod"
            node = partial(_refresh, Store.open(state), Http(url=f"{origin.url}/cache.tar"))
            mtime = 1_700_000_000 + turn * 10  # another one for each archive: the server tells changes by it
            pack(Tree(files, mean=mean), tree, archive, mtime)
            found["cold"].append(_counted(origin, node))
            pack(Tree(files, 1, CHANGED, mean), tree, archive, mtime + 1)
            found["incremental"].append(_counted(origin, node))
            found["warm"].append(_counted(origin, node))
            found["each pod"].append(_counted(origin, partial(shell, _DOWNLOAD, f"{origin.url}/cache.tar", pod)))
            run("rm", "-rf", pod, state)
        size = archive.stat().st_size
    return [
        Measured(files, size, state, statistics.median(s for s, _ in each), int(statistics.median(b for _, b in each)))
        for state, each in found.items()
    ]


def pack(version: Tree, tree: Path, archive: Path, mtime: int) -> None:
    """Make the archive of a tree."""
    run("rm", "-rf", tree)
    for item in version.items():
        path = tree / item.path.decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.content)
    run("tar", "--sort=name", "--mtime=@1700000000", "-cf", archive, "-C", tree, ".")
    shell('touch -d "@$2" "$1"', archive, str(mtime))


def compute(measured: Sequence[Measured], publish: float, nodes: Sequence[int] = NODES) -> Iterator[Row]:
    """A row for each size, number of nodes, and state; `publish` is the measured time of one publish."""
    for one in measured:
        for count in nodes:
            events = list(fleet(one, count))
            tail = publish * PODS if one.state != "each pod" else 0.0
            yield {
                "files": one.files,
                "archive_bytes": one.archive_bytes,
                "state": one.state,
                "nodes": count,
                "pods": count * PODS,
                "last_ready_s": round(max(time for time, _, _ in events) + tail, 3),
                "origin_bytes": one.sent_bytes * count * (PODS if one.state == "each pod" else 1),
            }


def fleet(one: Measured, nodes: int) -> Iterator[tuple[float, str, str]]:
    """Events of so many nodes that behave like the measured one: time, what, who.

    A node with a cache volume downloads once and unpacks while it downloads, so what it measured limits its rate.
    Without one every pod downloads, and the pods of a node share its card; that they also share its processors and
    its disk is left out, in their favour.
    """
    spread = random.Random(_SEED)
    downloads = PODS if one.state == "each pod" else 1
    starts = [spread.uniform(0, JITTER) for _ in range(nodes)]
    if one.sent_bytes == 0:
        for number, start in enumerate(starts):
            yield start, "start", f"node-{number}"
            yield start + one.seconds, "end", f"node-{number}"
        return
    flows = [
        Flow(f"node-{number}/{download}", start, one.sent_bytes)
        for number, start in enumerate(starts)
        for download in range(downloads)
    ]
    limit = min(one.sent_bytes / one.seconds, CARD / downloads)
    for event in simulate(flows, origin=ORIGIN, limit=limit):
        yield event.time, event.what, event.flow.name


def rows(measured: Sequence[Measured]) -> list[Row]:
    """What one node did, as rows of a table."""
    return [asdict(one) for one in measured]


def record(measured: Sequence[Measured], path: Path) -> None:
    """Write what was measured and every event of the model, one JSON object a line."""
    with path.open("w") as file:
        for one in measured:
            file.write(json.dumps({"measured": asdict(one)}) + "\n")
            for nodes in NODES:
                for time, what, who in fleet(one, nodes):
                    file.write(f'{{"nodes":{nodes},"t":{time:.6f},"what":"{what}","who":"{who}"}}\n')


def _refresh(store: Store, source: Http) -> float:
    """Seconds of one refresh, as the daemon does it: no process is started."""
    declaration = Cache(name="study", source=source)
    started = time.perf_counter()
    refresh(store, declaration, open_source(source), Silent())
    return time.perf_counter() - started


def _counted(origin: Origin, work: Callable[[], float]) -> tuple[float, int]:
    before = origin.sent
    seconds = work()
    return seconds, origin.sent - before
