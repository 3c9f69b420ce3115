"""A second install, of another name, beside the first: of the release before, upgraded, taken back, and removed."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e import driver_image, earlier, pods
from tests.e2e.goldlink import DRIVER, Goldlink, volume
from tests.e2e.machine import HOSTNAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(400, func_only=True)]
RELEASE = "goldlink-b"
SETTINGS = {
    "driverName": "b.goldlink.dev",
    "node": {"stateDir": "/var/lib/goldlink-b"},
    "controller": {"enabled": False},
}
READ = "cat /mnt/deps/file; ls /mnt"


@pytest.fixture(scope="module")
def second(cluster: Cluster, goldlink: Goldlink) -> Iterator[Goldlink]:
    """What the second install is to be. It is gone afterwards, whatever became of the tests."""
    release = Goldlink(cluster, goldlink.image, [], release=RELEASE, settings=SETTINGS)
    yield release
    release.helm("uninstall", RELEASE, f"--namespace={RELEASE}", "--ignore-not-found", "--no-hooks", "--wait")


@pytest.fixture(scope="module")
def before(second: Goldlink, tmp_path_factory: pytest.TempPathFactory) -> Goldlink:
    """The same of the release before, with a cache `deps`."""
    commit = earlier.commit()
    if commit is None:
        pytest.skip("this checkout has no history, so the release before is not known")
    source = tmp_path_factory.mktemp("earlier")
    earlier.export(commit, source)
    archive = source / "driver.tar"
    driver_image.build(archive, source, earlier.NAME)
    second.cluster.import_image(archive)
    archive.unlink()
    chart = source / "deploy" / "chart" / "goldlink"
    release = dataclasses.replace(second, image=earlier.NAME, chart=chart)
    release.declare(release.source("deps", {"file": "content\n"}))
    return release


def test_an_upgrade_and_the_way_back_cost_no_pod_anything(
    cluster: Cluster, before: Goldlink, second: Goldlink, namespace: str
) -> None:
    """Pods that run, start and end meanwhile. Each release reads what the other has left on the disk."""
    version = before.current("deps")
    start(cluster, namespace, "running")
    pods.wait_for(cluster, namespace, "running")
    change(second, namespace, running=["running"], starting=["new-1", "new-2", "new-3"])
    assert second.current("deps") == version
    cluster.delete("pod", "running", namespace=namespace)
    cluster.wait("the end of the volume", lambda: second.users("deps") == 3)
    change(before, namespace, running=["new-1", "new-2", "new-3"], starting=["back-1", "back-2", "back-3"])
    assert before.current("deps") == version
    cluster.delete("pods", "--all", namespace=namespace)
    cluster.wait("the end of all volumes", lambda: not any(state(before, "volumes").iterdir()))


def test_two_installs_serve_one_pod_and_one_goes_without_the_other(
    cluster: Cluster, goldlink: Goldlink, second: Goldlink, namespace: str
) -> None:
    goldlink.declare(goldlink.source("first", {"file": "of the first\n"}))
    second.declare(second.source("second", {"file": "of the second\n"}))
    volumes = {"a": volume("first"), "b": volume("second", driver=second.driver)}
    cluster.apply(pods.pod("both", namespace, volumes=volumes))
    pods.wait_for(cluster, namespace, "both")
    assert pods.run(cluster, namespace, "both", "cat /mnt/*/file") == (0, "of the first\nof the second\n")
    assert drivers(cluster) >= {DRIVER, second.driver}
    assert (goldlink.users("first"), second.users("second")) == (1, 1)
    other = volume("second")
    cluster.apply(pods.pod("mistaken", namespace, volumes={"b": other}))
    expected = "there is no cache 'second'"
    cluster.wait("the explanation", lambda: expected in pods.messages(cluster, namespace, "mistaken"))
    cluster.delete("pods", "--all", namespace=namespace)
    cluster.apply(pods.pod("one", namespace, volumes={"a": volume("first")}))
    pods.wait_for(cluster, namespace, "one")
    second.helm("uninstall", RELEASE, f"--namespace={RELEASE}", "--wait")
    cluster.wait("the deregistration", lambda: second.driver not in drivers(cluster))
    assert DRIVER in drivers(cluster)
    cluster.apply(pods.pod("next", namespace, volumes={"a": volume("first")}))
    pods.wait_for(cluster, namespace, "next")
    for pod in ("one", "next"):
        assert pods.run(cluster, namespace, pod, "cat /mnt/a/file") == (0, "of the first\n")


def change(release: Goldlink, namespace: str, *, running: list[str], starting: list[str]) -> None:
    """Install this release over the other while some pods run and some start: all have their volumes."""
    cluster = release.cluster
    start(cluster, namespace, *starting)
    release.install(wait=False)
    release.kubectl("rollout", "status", "daemonset", "--timeout=120s", timeout=150)
    assert image(release) == release.image
    pods.wait_for(cluster, namespace, *running, *starting, timeout=200)
    for pod in (*running, *starting):
        assert pods.run(cluster, namespace, pod, READ) == (0, "content\ndeps\n")
    assert restarts(cluster, namespace) == 0
    assert release.users("deps") == len(running) + len(starting)


def start(cluster: Cluster, namespace: str, *names: str) -> None:
    """Create pods with a volume of the second install."""
    deps = volume("deps", driver=str(SETTINGS["driverName"]))
    cluster.apply(*(pods.pod(name, namespace, volumes={"deps": deps}) for name in names))


def image(release: Goldlink) -> str:
    """What the containers of the node's DaemonSet run."""
    text = release.kubectl("get", "daemonset", f"{RELEASE}-node", "--output=json")
    (image,) = {container["image"] for container in json.loads(text)["spec"]["template"]["spec"]["containers"]}
    return str(image)


def restarts(cluster: Cluster, namespace: str) -> int:
    found = cluster.get("pods", namespace=namespace)["items"]
    return sum(status["restartCount"] for pod in found for status in pod["status"]["containerStatuses"])


def state(release: Goldlink, name: str) -> Path:
    """A directory of the release's state."""
    return release.cluster.machine.root / release.state.lstrip("/") / name


def drivers(cluster: Cluster) -> set[str]:
    """The drivers that kubelet knows."""
    return {driver["name"] for driver in cluster.get("csinode", HOSTNAME)["spec"].get("drivers") or []}
