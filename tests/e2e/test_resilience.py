"""Pods and their volumes while the driver, the fetcher or kubelet dies, restarts or is upgraded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e import pods
from tests.e2e.goldlink import DRIVER, volume
from tests.e2e.machine import HOSTNAME

if TYPE_CHECKING:
    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(400, func_only=True)]
READ = "cat /mnt/deps/file && awk '$2 == \"/mnt/deps\" {print substr($4, 1, 2)}' /proc/mounts"


@pytest.fixture
def reader(cluster: Cluster, goldlink: Goldlink, namespace: str) -> str:
    """A running pod with a volume; its name."""
    goldlink.declare(goldlink.source("deps", {"file": "content\n"}))
    cluster.apply(pods.pod("reader", namespace, volumes={"deps": volume("deps")}))
    pods.wait_for(cluster, namespace, "reader")
    return "reader"


def test_pods_outlive_a_driver_that_is_killed_and_start_when_it_is_back(
    cluster: Cluster, goldlink: Goldlink, namespace: str, reader: str
) -> None:
    names = [f"pod-{number}" for number in range(10)]
    before = goldlink.restarts("driver")
    cluster.apply(*(pods.pod(name, namespace, volumes={"deps": volume("deps")}) for name in names))
    cluster.machine.kill("goldlink-csi node")
    assert pods.run(cluster, namespace, reader, READ) == (0, "content\nro\n")
    pods.wait_for(cluster, namespace, *names, timeout=200)
    assert pods.run(cluster, namespace, reader, READ) == (0, "content\nro\n")
    assert pods.run(cluster, namespace, names[0], READ) == (0, "content\nro\n")
    assert registered(cluster)
    assert goldlink.users("deps") == 11
    assert goldlink.restarts("driver") == before + 1


def test_a_pod_that_ends_while_the_driver_is_away_is_cleaned_up_after(
    cluster: Cluster, goldlink: Goldlink, namespace: str, reader: str
) -> None:
    kubelet_said = (cluster.logs / "kubelet.log").stat().st_size
    goldlink.stop_nodes()
    cluster.wait("the deregistration", lambda: not registered(cluster))
    assert pods.run(cluster, namespace, reader, READ) == (0, "content\nro\n")
    cluster.kubectl("delete", "pod", reader, f"--namespace={namespace}", "--wait=false", "--grace-period=1")
    tried = "not found in the list of registered CSI drivers"
    cluster.wait("kubelet's tries", lambda: tried in kubelet_log(cluster, since=kubelet_said))
    goldlink.start_nodes()
    cluster.delete("pod", reader, namespace=namespace)
    cluster.wait("the end of the volume", lambda: goldlink.users("deps") == 0)


def test_an_upgrade_leaves_running_pods_alone(
    cluster: Cluster, goldlink: Goldlink, namespace: str, reader: str
) -> None:
    before = cluster.get("pod", reader, namespace)["status"]["containerStatuses"][0]["containerID"]
    goldlink.kubectl("rollout", "restart", "daemonset")
    goldlink.kubectl("rollout", "status", "daemonset", "--timeout=120s", timeout=150)
    cluster.wait("the registration", lambda: registered(cluster))
    assert pods.run(cluster, namespace, reader, READ) == (0, "content\nro\n")
    assert cluster.get("pod", reader, namespace)["status"]["containerStatuses"][0]["containerID"] == before
    cluster.apply(pods.pod("next", namespace, volumes={"deps": volume("deps")}))
    pods.wait_for(cluster, namespace, "next")
    cluster.delete("pod", reader, "next", namespace=namespace)
    cluster.wait("the end of the volumes", lambda: goldlink.users("deps") == 0)


def test_kubelet_and_driver_that_crash_together_find_each_other_and_the_volumes_again(
    cluster: Cluster, goldlink: Goldlink, namespace: str, reader: str
) -> None:
    """Kubelet publishes again what is there (CSI: idempotent), and what it ends is gone."""
    cluster.kill("kubelet")
    cluster.machine.kill("goldlink-csi node")
    cluster.start_kubelet()
    cluster.apply(pods.pod("after", namespace, volumes={"deps": volume("deps")}))
    pods.wait_for(cluster, namespace, "after", timeout=120)
    assert pods.run(cluster, namespace, reader, READ) == (0, "content\nro\n")
    cluster.wait("the registration", lambda: registered(cluster))
    assert goldlink.users("deps") == 2
    cluster.delete("pod", reader, "after", namespace=namespace)
    cluster.wait("the end of the volumes", lambda: goldlink.users("deps") == 0)


def test_a_pod_that_waits_for_its_cache_survives_the_end_of_driver_and_fetcher(
    cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    """Kubelet publishes again, and the fetcher starts anew."""
    goldlink.declare(goldlink.source("awaited", {}), wait=False)
    cluster.apply(pods.pod("early", namespace, volumes={"deps": volume("awaited")}))
    cluster.wait("the wait", lambda: waiting(goldlink), 120)
    cluster.machine.kill("cachefetch run")
    cluster.machine.kill("goldlink-csi node")
    goldlink.write_source("awaited", {"file": "content\n"})
    pods.wait_for(cluster, namespace, "early", timeout=240)
    assert pods.run(cluster, namespace, "early", READ) == (0, "content\nro\n")
    assert goldlink.users("awaited") == 1


def test_volumes_need_no_fetcher(cluster: Cluster, goldlink: Goldlink, namespace: str, reader: str) -> None:
    """What is on the node is published also while the fetcher is down."""
    cluster.machine.kill("cachefetch run")
    cluster.apply(pods.pod("other", namespace, volumes={"deps": volume("deps")}))
    pods.wait_for(cluster, namespace, "other")
    assert pods.run(cluster, namespace, "other", READ) == (0, "content\nro\n")
    assert reader


def waiting(goldlink: Goldlink) -> bool:
    """Whether a publish waits for a version."""
    return "waiting_publishes 1.0" in goldlink.metrics("driver")


def registered(cluster: Cluster) -> bool:
    """Whether the node's CSINode object names the driver."""
    drivers = cluster.get("csinode", HOSTNAME)["spec"].get("drivers") or []
    return any(driver["name"] == DRIVER and driver["nodeID"] == HOSTNAME for driver in drivers)


def kubelet_log(cluster: Cluster, since: int) -> str:
    """What kubelet has said after that many bytes."""
    return (cluster.logs / "kubelet.log").read_bytes()[since:].decode(errors="replace")
