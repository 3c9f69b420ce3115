"""What cache disks need in a cluster: a directory that all share, and the cluster's own part of snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.cluster import build
from tests.e2e.goldlink import DRIVER

if TYPE_CHECKING:
    from tests.e2e.cluster import Cluster

DIRECTORY = "/var/lib/goldlink-disks"
"""On the node, made by kubelet, so root's: one node shares a directory with itself."""
CLASS = "disk"
"""The StorageClass, the VolumeSnapshotClass and the VolumeAttributesClass of disks that pods fill."""


def values(*classes: dict[str, Any]) -> dict[str, Any]:
    """Values of the chart for disks and snapshots; more storage `classes` beside that of empty disks."""
    directory = {"hostPath": {"path": DIRECTORY, "type": "DirectoryOrCreate"}}
    return {
        "disks": {"enabled": True, "snapshots": True, "volume": directory},
        "storageClasses": [{"name": CLASS, "allowVolumeExpansion": True}, *classes],
        "volumeSnapshotClasses": [{"name": CLASS}],
    }


def claim(
    name: str,
    namespace: str,
    storage_class: str,
    *,
    mode: str = "ReadOnlyMany",
    size: str = "16Mi",
    source: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """A PersistentVolumeClaim; `source` is kind and name of what it starts from."""
    spec: dict[str, Any] = {
        "accessModes": [mode],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": size}},
    }
    if source:
        kind, origin = source
        group = {"apiGroup": "snapshot.storage.k8s.io"} if kind == "VolumeSnapshot" else {}
        spec["dataSource"] = {"kind": kind, "name": origin, **group}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def snapshot(name: str, namespace: str, source: str) -> dict[str, Any]:
    """A VolumeSnapshot of a claim."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"volumeSnapshotClassName": CLASS, "source": {"persistentVolumeClaimName": source}},
    }


def attributes_class() -> dict[str, Any]:
    """A VolumeAttributesClass with settings that differ from those of new disks."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttributesClass",
        "metadata": {"name": CLASS},
        "driverName": DRIVER,
        "parameters": {"prefetch": "always", "retention": "0"},
    }


def install_snapshots(cluster: Cluster) -> None:
    """Let the cluster have VolumeSnapshots: their definitions, and the controller that is no driver's own."""
    programs = build("sidecars")
    definitions = sorted((programs / "crd").glob("*.storage.k8s.io_*.yaml"))
    cluster.kubectl("apply", *(f"--filename={path}" for path in definitions))
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established")
    with (cluster.logs / "snapshot-controller.log").open("wb") as log:
        cluster.machine.spawn([programs / "snapshot-controller", f"--kubeconfig={cluster.kubeconfig}"], log)


def left(cluster: Cluster) -> list[str]:
    """What there is of disks on the node: records, images, what is being deleted, mounts. Empty: all was freed."""
    root = cluster.machine.root / DIRECTORY.lstrip("/")
    places = ("disks", "snapshots", "groups", "sealed", "staging", "trash")
    files = [f"{place}/{path.name}" for place in places for path in (root / place).iterdir()]
    mounts = Path(f"/proc/{cluster.machine.init}/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in mounts]
    return files + [point for point in points if DRIVER in point]
