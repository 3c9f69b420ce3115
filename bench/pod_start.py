"""What a cache volume adds to the start of a pod: with it and with an emptyDir, in turns, on a real Kubernetes.

A start lasts from the request that creates the pod to the first line of its container, by the clock of the machine: the
runtime notes the time of each line in nanoseconds. kubelet looks every 300 ms whether the volumes of a pod are there
(pkg/kubelet/volumemanager: podAttachAndMountRetryInterval), so single pairs differ by multiples of that.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import statistics
import time
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bench.samples import Row, summary
from bench.trees import Tree
from tests.e2e import driver_image, pods
from tests.e2e.cluster import Cluster, build
from tests.e2e.goldlink import SOURCES, Goldlink, volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CACHE = "cache volume"
EMPTY = "emptyDir"
_COMMAND = ("sh", "-c", "echo started; trap exit TERM; sleep 3600 & wait")
_CALL = re.compile(r" method=NodePublishVolume code=OK ms=([\d.]+) ")
_POOL = 2
_FETCHED = 900.0
_PATIENCE = 120.0
_STEP = 0.05


def measure(out: Path, files: int, turns: int) -> tuple[list[Row], list[Row]]:
    """Summaries: of the starts, of the differences of the pairs, of the driver's calls; and all starts.

    A first pair is not counted. The logs of the cluster go to `out`.
    """
    with Cluster(build("kubernetes"), name="bench", logs=out / "cluster") as cluster:
        release = _install(cluster, out, files)
        kinds: dict[str, dict[str, Any]] = {EMPTY: {"emptyDir": {}}, CACHE: volume("bench")}
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        with _api(cluster) as api:
            for turn in range(turns + 1):
                for kind in kinds if turn % 2 else reversed(kinds):
                    seconds[kind].append(_start(api, f"pod-{turn}-{kind[:5].lower()}", kinds[kind]))
        calls = _calls(release)
    pairs = list(zip(*(seconds[kind][1:] for kind in kinds), strict=True))
    differences = [cached - plain for plain, cached in pairs]
    rows: list[Row] = [
        {"pod_with": kind, "files": files if kind == CACHE else 0, **summary(seconds[kind][1:])} for kind in kinds
    ]
    rows.append({"pod_with": "difference", "files": files, **summary(differences)})
    rows.append({"pod_with": "of it: the driver's call", "files": files, **summary(calls[1:])})
    samples: list[Row] = [
        {"turn": turn, "emptydir_ms": round(plain * 1000, 1), "cache_ms": round(cached * 1000, 1)}
        for turn, (plain, cached) in enumerate(pairs, 1)
    ]
    print(f"  median of {turns} differences: {statistics.median(differences) * 1000:.0f} ms", flush=True)
    return rows, samples


def _install(cluster: Cluster, out: Path, files: int) -> Goldlink:
    """The chart, with a cache of so many files, and link trees of it ready."""
    archive = out / "driver.tar"
    driver_image.build(archive)
    cluster.import_image(archive)
    archive.unlink()
    cluster.machine.run(["mkdir", "-p", SOURCES])
    release = Goldlink(cluster, driver_image.NAME, [], settings={"controller": {"enabled": False}})
    content = {bytes(file.path).decode(): bytes(file.content).decode() for file in Tree(files).items()}
    declared = {**release.source("bench", content), "refresh": {"interval": "1h"}, "pool": _POOL}
    release.declare(declared, wait=False)
    # Looked for on the disk, because asking the fetcher or the driver starts a process each time.
    pool = cluster.machine.root / release.state.lstrip("/") / "pool" / "bench"
    cluster.wait("the pool", lambda: len(list(pool.glob("*/*"))) == _POOL, _FETCHED)
    return release


def _calls(release: Goldlink) -> list[float]:
    """Seconds of each NodePublishVolume, by the driver's log."""
    found = _CALL.findall(release.logs("driver"))
    return [float(milliseconds) / 1000 for milliseconds in found]


def _start(api: Path, name: str, of: dict[str, Any]) -> float:
    """Seconds that the pod took; it is gone afterwards."""
    manifest = pods.pod(name, "default", command=_COMMAND, volumes={"data": of})
    created = time.time()
    _ask(api, "POST", "", manifest)
    noted = _first_line(api, name).split()[0]
    _ask(api, "DELETE", f"/{name}?gracePeriodSeconds=1")
    _await_end(api, name)
    return datetime.fromisoformat(f"{noted[:26]}+00:00").timestamp() - created  # to the microsecond


def _first_line(api: Path, name: str) -> str:
    """The first line of the pod's log."""
    end = time.monotonic() + _PATIENCE
    while not (text := _ask(api, "GET", f"/{name}/log?timestamps=true")):
        assert time.monotonic() < end, f"{name} did not start in time"
        time.sleep(_STEP)
    return text


def _await_end(api: Path, name: str) -> None:
    end = time.monotonic() + _PATIENCE
    while _ask(api, "GET", f"/{name}") is not None:
        assert time.monotonic() < end, f"{name} did not end in time"
        time.sleep(_STEP)


@contextmanager
def _api(cluster: Cluster) -> Iterator[Path]:
    """A socket that speaks for the administrator, so that no process need be started for a request."""
    path = cluster.machine.directory / "api.sock"
    with (cluster.logs / "kubectl-proxy.log").open("wb") as log:
        options = [f"--kubeconfig={cluster.kubeconfig}", f"--unix-socket={path}"]
        cluster.machine.spawn([build("kubernetes") / "kubectl", "proxy", *options], log)
    cluster.wait("the proxy", path.exists)
    yield path


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _ask(api: Path, method: str, pod: str, body: dict[str, Any] | None = None) -> str | None:
    """What the API server answers about a pod; None when there is no such pod, or no log of it yet."""
    connection = _Connection(api)
    text = None if body is None else json.dumps(body)
    connection.request(method, f"/api/v1/namespaces/default/pods{pod}", text, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read().decode()
    connection.close()
    if response.status in {http.client.NOT_FOUND, http.client.BAD_REQUEST} and method == "GET":
        return None
    assert response.status < 300, f"{method} {pod}: {answer}"
    return answer
