"""PersistentVolumes of caches, provisioned by the sidecars of the CSI project as the chart installs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import pods
from tests.e2e.goldlink import DRIVER

if TYPE_CHECKING:
    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(400, func_only=True)]
READ = "cat /mnt/data/file; touch /mnt/data/new 2>&1 | grep -o 'Read-only file system'"


def claim(name: str, namespace: str, storage_class: str, mode: str = "ReadOnlyMany") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": [mode],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }


def test_many_pods_read_a_claim_of_a_cache_and_none_writes(
    cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    goldlink.declare(
        goldlink.source("dataset", {"file": "content\n"}),
        storageClasses=[{"name": "dataset", "parameters": {"cache": "dataset"}}],
    )
    cluster.apply(claim("data", namespace, "dataset"))
    volume = {"persistentVolumeClaim": {"claimName": "data"}}
    cluster.apply(*(pods.pod(name, namespace, volumes={"data": volume}) for name in ("one", "two")))
    pods.wait_for(cluster, namespace, "one", "two", timeout=60)
    for name in ("one", "two"):
        assert pods.run(cluster, namespace, name, READ)[1] == "content\nRead-only file system\n"
    cluster.delete("pods", "--all", namespace=namespace)
    cluster.delete("pvc", "data", namespace=namespace)
    cluster.wait("the end of the volume", lambda: volumes_of(cluster, namespace) == [])


def test_a_claim_keeps_its_version(cluster: Cluster, goldlink: Goldlink, namespace: str) -> None:
    """The handle names a version, and no refresh changes that."""
    goldlink.declare(
        goldlink.source("weights", {"file": "one\n"}),
        storageClasses=[{"name": "weights", "parameters": {"cache": "weights"}}],
    )
    cluster.apply(claim("data", namespace, "weights"))
    cluster.wait("the volume", lambda: volumes_of(cluster, namespace))
    first = goldlink.current("weights")
    goldlink.write_source("weights", {"file": "two\n"})
    cluster.wait("the second version", lambda: goldlink.current("weights") != first)
    cluster.apply(pods.pod("late", namespace, volumes={"data": {"persistentVolumeClaim": {"claimName": "data"}}}))
    pods.wait_for(cluster, namespace, "late", timeout=60)
    assert pods.run(cluster, namespace, "late", "cat /mnt/data/file") == (0, "one\n")


def test_a_claim_of_a_namespace_that_may_not_is_refused_and_told_why(
    cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    vault = {**goldlink.source("vault", {"file": "secret\n"}), "access": {"namespaces": ["bank-*"]}}
    goldlink.declare(vault, storageClasses=[{"name": "vault", "parameters": {"cache": "vault"}}])
    cluster.apply(claim("stolen", namespace, "vault"))
    cluster.wait("the refusal", lambda: f"namespace '{namespace}'" in pods.messages(cluster, namespace, "stolen"), 120)
    assert volumes_of(cluster, namespace) == []


def volumes_of(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    """The driver's PersistentVolumes that claims of the namespace have."""
    volumes = cluster.get("persistentvolumes")["items"]
    specs = [volume["spec"] for volume in volumes if volume["spec"].get("csi", {}).get("driver") == DRIVER]
    return [spec for spec in specs if spec["claimRef"]["namespace"] == namespace]
