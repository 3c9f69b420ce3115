"""goldlink in the cluster, installed with its chart as people install it."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.e2e import images, pods
from tests.e2e.cluster import build
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.e2e.cluster import Cluster

CHART = ROOT / "deploy" / "chart" / "goldlink"
DRIVER = "csi.goldlink.dev"
NAMESPACE = "goldlink"
RELEASE = "goldlink"
STATE = "/var/lib/goldlink"
SOURCES = "/var/lib/sources"
"""Directories of the node that caches come from, seen by the fetcher at the same path."""
_POLICY = ROOT / "deploy" / "examples" / "read-only-policy.yaml"
_SIDECARS = {
    "csi-provisioner": "csi-provisioner:v6.3.0",
    "csi-attacher": "csi-attacher:v4.12.0",
    "csi-snapshotter": "csi-snapshotter:v8.6.0",
    "csi-resizer": "csi-resizer:v2.2.0",
}


@dataclass(frozen=True)
class Goldlink:
    """The installed release."""

    cluster: Cluster
    image: str
    caches: list[dict[str, Any]]
    release: str = RELEASE
    """Its name, and that of its namespace."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More values, which each install has."""
    chart: Path = CHART

    @property
    def driver(self) -> str:
        """The name of the CSI driver, as pods write it."""
        return str(self.settings.get("driverName", DRIVER))

    @property
    def state(self) -> str:
        """The state directory, of the node and in the containers."""
        return str(self.settings.get("node", {}).get("stateDir", STATE))

    def values(self, **more: Any) -> dict[str, Any]:
        """The values of this cluster: one node, images that are there, quick looks at sources."""
        repository, _, tag = self.image.partition(":")
        values = {
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
            "caches": self.caches,
            "fetcher": {"directories": [SOURCES]},
            "controller": {"replicas": 1},
        }
        return {**values, **self.settings, **more}

    def install(self, *files: Path, wait: bool = True, **more: Any) -> None:
        """Install the release or change its values, and wait until it is ready, unless told not to.

        Values in `files` override those of the cluster, and `more`, as helm merges them.

        Raises:
            CommandFailed: helm failed; the text has what it said, and what became of the pods.
        """
        options = [
            "--install",
            "--create-namespace",
            f"--namespace={self.release}",
            "--values=-",
            "--wait",
            "--timeout=2m",
        ]
        text = json.dumps(self.values(**more))
        try:
            options += [f"--values={file}" for file in files]
            self.helm("upgrade", self.release, self.chart, *options, f"--wait={wait}", stdin=text, timeout=180)
            if wait:  # helm itself does not wait for the single pod of a DaemonSet: it may be unavailable
                self.kubectl("rollout", "status", "daemonset", "--timeout=60s")
        except AssertionError as error:
            error.add_note(self.kubectl("describe", "pods"))
            raise

    def helm(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 150) -> str:
        """What helm prints. It runs in the cluster's machine, with its cache thrown away."""
        home = self.cluster.machine.directory / "helm"
        environment = [f"HOME={home}", f"KUBECONFIG={self.cluster.kubeconfig}", f"PATH={os.environ['PATH']}"]
        program = build("helm") / "helm"
        return self.cluster.machine.run(["env", "-i", *environment, program, *arguments], stdin=stdin, timeout=timeout)

    def source(self, name: str, files: Mapping[str, str]) -> dict[str, Any]:
        """A cache `name` that comes from a directory of the node with these files, looked at every second."""
        self.write_source(name, files)
        source = {"type": "directory", "path": f"{SOURCES}/{name}"}
        return {"name": name, "source": source, "refresh": {"interval": "1s"}}

    def declare(self, *caches: dict[str, Any], wait: bool = True, **more: Any) -> None:
        """Let these be the caches, and set `more` values of the chart.

        Returns when the node has a version of each, or at once without `wait`.

        The configuration is changed as people change it; kubelet brings it to the pods within a minute or so.
        """
        self.caches[:] = caches
        self.install(**more)
        if wait:
            self.cluster.wait("the caches", lambda: all(self.current(cache["name"]) for cache in caches), 180)

    def write_source(self, name: str, files: Mapping[str, str]) -> None:
        """Write files of a source; the fetcher sees to it that it reads all of them or none."""
        directory = self.cluster.machine.root / SOURCES.lstrip("/") / name
        for path, text in files.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text)

    def current(self, cache: str) -> str | None:
        """The current version of a cache on the node; None when there is none yet."""
        return next((row["version"] for row in self.list() if row["cache"] == cache and row.get("current")), None)

    def list(self) -> list[dict[str, Any]]:
        """What `cachefetch list` says in the fetcher of the node: one row for each version."""
        command = [
            "cachefetch",
            "list",
            f"--state-dir={self.state}",
            "--config=/etc/goldlink/config/caches.yaml",
            "-o",
            "json",
        ]
        text = self.exec("fetcher", *command)
        found: list[dict[str, Any]] = json.loads(text)
        return found

    def users(self, cache: str) -> int:
        """How many volumes of a cache the node has."""
        return sum(row.get("users", 0) for row in self.list() if row["cache"] == cache)

    def restarts(self, container: str) -> int:
        """How often a container of the node's pod was started again."""
        pods = self.cluster.get("pods", namespace=self.release)["items"]
        (node,) = [pod for pod in pods if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "node"]
        return sum(s["restartCount"] for s in node["status"]["containerStatuses"] if s["name"] == container)

    def stop_nodes(self) -> None:
        """Take the driver from the node, as an administrator does."""
        patch = '{"spec":{"template":{"spec":{"nodeSelector":{"goldlink.dev/away":"yes"}}}}}'
        self.kubectl("patch", "daemonset", f"{self.release}-node", f"--patch={patch}")
        self.kubectl("wait", "pod", "--selector=app.kubernetes.io/component=node", "--for=delete", "--timeout=60s")

    def start_nodes(self) -> None:
        """Bring it back."""
        patch = '{"spec":{"template":{"spec":{"nodeSelector":{"goldlink.dev/away":null}}}}}'
        self.kubectl("patch", "daemonset", f"{self.release}-node", f"--patch={patch}")
        self.kubectl("rollout", "status", "daemonset", "--timeout=60s")

    def kubectl(self, command: str, *arguments: str, timeout: float = 90) -> str:
        """Run kubectl in the namespace of the release."""
        return self.cluster.kubectl(command, *arguments, f"--namespace={self.release}", timeout=timeout)

    def exec(self, container: str, *command: str) -> str:
        """What a command prints in a container of the node's pod."""
        pod = ("exec", f"daemonset/{self.release}-node", f"--container={container}", f"--namespace={self.release}")
        return self.cluster.kubectl(*pod, "--", *command)

    def metrics(self, container: str) -> str:
        """What Prometheus would get from a container of the node's pod."""
        port = {"driver": 9808, "fetcher": 9809}[container]
        get = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
        return self.exec(container, "python3", "-c", get)

    def logs(self, container: str) -> str:
        """What a container of the node's pod has said; nothing when it has not started yet."""
        command = ("logs", f"daemonset/{self.release}-node", f"--container={container}", f"--namespace={self.release}")
        return self.cluster.attempt(*command).stdout


def sidecars(programs: Path) -> Sequence[images.Image]:
    """Images of the sidecars, named as the chart wants them."""
    return [images.command(f"registry.k8s.io/sig-storage/{name}", programs / file) for file, name in _SIDECARS.items()]


def volume(cache: str, *, driver: str = DRIVER, **attributes: str) -> dict[str, Any]:
    """An inline volume of a cache, as a pod declares it."""
    return {"csi": {"driver": driver, "readOnly": True, "volumeAttributes": {"cache": cache, **attributes}}}


def private(cache: str, **attributes: str) -> dict[str, Any]:
    """An inline volume that is a writable view, as a pod declares it."""
    attributes = {"cache": cache, "access": "private", **attributes}
    return {"csi": {"driver": DRIVER, "readOnly": False, "volumeAttributes": attributes}}


@contextmanager
def read_only_policy(cluster: Cluster) -> Iterator[None]:
    """During the block the API server adds `readOnly: true` to volumes, by the policy of the examples."""
    probe = pods.pod("probe", "default", volumes={"deps": {"csi": {"driver": DRIVER}}})

    def works() -> bool:
        command = ("create", "--filename=-", "--dry-run=server", "--output=jsonpath={.spec.volumes[0].csi.readOnly}")
        return cluster.kubectl(*command, stdin=json.dumps(probe)) == "true"

    cluster.kubectl("apply", "--filename", _POLICY)
    cluster.wait("the policy", works)
    yield
    cluster.kubectl("delete", "--filename", _POLICY)


@contextmanager
def installed(cluster: Cluster, image: str) -> Iterator[Goldlink]:
    """The release with no caches, until the end of the block."""
    for sidecar in sidecars(build("sidecars")):
        cluster.add_image(sidecar)
    cluster.machine.run(["mkdir", "-p", SOURCES])
    release = Goldlink(cluster, image, [])
    release.install()
    yield release
