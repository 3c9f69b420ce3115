"""Cache disks with real pods: sealed images of caches, and disks that a pod fills before they are sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import disks, pods

if TYPE_CHECKING:
    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(400, func_only=True)]
FILL = "echo sealed >/mnt/disk/file && mkdir -p /mnt/disk/lib && echo code >/mnt/disk/lib/code"
ATTEMPTS = (
    "echo x >/mnt/disk/file",
    "echo x >/mnt/disk/new",
    "chmod 777 /mnt/disk/file",
    "chown 1 /mnt/disk/lib",
    "touch /mnt/disk/file",
    "rm /mnt/disk/file",
    "mv /mnt/disk/file /mnt/disk/other",
    "ln /mnt/disk/file /mnt/disk/other",
    "mount -o remount,rw /mnt/disk",
)
READERS = ("one", "two", "three")


@pytest.fixture(scope="module")
def storage(cluster: Cluster, goldlink: Goldlink, snapshots: None) -> Goldlink:
    """The release with disks, a cache `data` whose StorageClass is called so too, and one that is not for everybody."""
    vault = {**goldlink.source("vault", {"file": "secret\n"}), "access": {"namespaces": ["bank-*"]}}
    classes = [{"name": name, "parameters": {"cache": name}} for name in ("data", "vault")]
    data = goldlink.source("data", {"file": "content\n", "lib/code": "code\n"})
    goldlink.declare(data, vault, **disks.values(*classes))
    return goldlink


def user(name: str, namespace: str, claim: str, **spec: Any) -> dict[str, Any]:
    """A pod that has the claim at /mnt/disk."""
    return pods.pod(name, namespace, volumes={"disk": {"persistentVolumeClaim": {"claimName": claim}}}, **spec)


def read_by_three(cluster: Cluster, namespace: str, claim: str) -> set[tuple[int, str]]:
    """What three pods at once find in the claim, after root in each has tried to change it."""
    cluster.apply(*(user(name, namespace, claim) for name in READERS))
    pods.wait_for(cluster, namespace, *READERS, timeout=120)
    for attempt in ATTEMPTS:
        status, output = pods.run(cluster, namespace, "one", attempt)
        assert status != 0, f"{attempt}: {output}"
    return {pods.run(cluster, namespace, name, "cat /mnt/disk/file /mnt/disk/lib/code") for name in READERS}


def filled(cluster: Cluster, namespace: str, claim: str, *, size: str = "16Mi", script: str = FILL) -> None:
    """Let a pod, which is not root, fill a new disk and end."""
    somebody = {"runAsUser": 1000, "runAsGroup": 1000}
    cluster.apply(
        disks.claim(claim, namespace, disks.CLASS, mode="ReadWriteOnce", size=size),
        user("builder", namespace, claim, command=["sh", "-c", script], securityContext=somebody),
    )
    pods.wait_for(cluster, namespace, "builder", condition="jsonpath={.status.phase}=Succeeded", timeout=120)
    cluster.delete("pod", "builder", namespace=namespace)


def sealed(cluster: Cluster, namespace: str, name: str, claim: str) -> None:
    """Let a snapshot of the claim be there."""
    cluster.apply(disks.snapshot(name, namespace, claim))
    ready = "--for=jsonpath={.status.readyToUse}=true"
    cluster.kubectl("wait", "volumesnapshot", name, f"--namespace={namespace}", ready, "--timeout=120s", timeout=150)


def empty(cluster: Cluster, namespace: str) -> None:
    """Delete everything in the namespace, and wait until nothing is left of it anywhere."""
    cluster.delete("pods", "--all", namespace=namespace)
    cluster.delete("volumesnapshots,persistentvolumeclaims", "--all", namespace=namespace)
    cluster.wait("the end of all disks", lambda: disks.left(cluster) == [], 120)
    cluster.wait("the end of its volumes", lambda: not objects_of(cluster, "pv", "claimRef", namespace))
    contents = ("volumesnapshotcontents", "volumeSnapshotRef")
    cluster.wait("the end of its snapshots", lambda: not objects_of(cluster, *contents, namespace))


def objects_of(cluster: Cluster, kind: str, reference: str, namespace: str) -> list[dict[str, Any]]:
    """The objects of a kind that belong to something in the namespace."""
    return [item for item in cluster.get(kind)["items"] if item["spec"][reference]["namespace"] == namespace]


def test_three_pods_read_one_sealed_image_of_a_cache(cluster: Cluster, storage: Goldlink, namespace: str) -> None:
    cluster.apply(disks.claim("data", namespace, "data"))
    assert read_by_three(cluster, namespace, "data") == {(0, "content\ncode\n")}
    assert "erofs" in pods.run(cluster, namespace, "one", "grep /mnt/disk /proc/mounts")[1]
    assert [path for path in disks.left(cluster) if path.startswith("sealed/")] == [f"sealed/{storage.current('data')}"]
    empty(cluster, namespace)


def test_a_disk_is_built_by_hand_then_sealed_then_read_by_many(
    cluster: Cluster, storage: Goldlink, namespace: str
) -> None:
    """What is written to the disk afterwards changes nothing of what was sealed."""
    filled(cluster, namespace, "building")
    sealed(cluster, namespace, "first", "building")
    cluster.apply(
        disks.claim("sealed", namespace, disks.CLASS, source=("VolumeSnapshot", "first")),
        user("again", namespace, "building", command=["sh", "-c", "echo later >/mnt/disk/file"]),
    )
    pods.wait_for(cluster, namespace, "again", condition="jsonpath={.status.phase}=Succeeded", timeout=120)
    assert read_by_three(cluster, namespace, "sealed") == {(0, "sealed\ncode\n")}
    cluster.apply(disks.claim("clone", namespace, disks.CLASS, source=("PersistentVolumeClaim", "building")))
    cluster.apply(user("late", namespace, "clone"))
    pods.wait_for(cluster, namespace, "late", timeout=120)
    assert pods.run(cluster, namespace, "late", "cat /mnt/disk/file") == (0, "later\n")
    empty(cluster, namespace)


def test_a_disk_in_use_is_not_sealed_and_says_by_whom_it_is_used(
    cluster: Cluster, storage: Goldlink, namespace: str
) -> None:
    cluster.apply(disks.claim("used", namespace, disks.CLASS, mode="ReadWriteOnce"), user("writer", namespace, "used"))
    pods.wait_for(cluster, namespace, "writer", timeout=120)
    cluster.apply(disks.snapshot("early", namespace, "used"))

    def told() -> bool:
        status = cluster.get("volumesnapshot", "early", namespace).get("status", {})
        return "is published writable on node" in status.get("error", {}).get("message", "")

    cluster.wait("the reason", told, 120)
    cluster.delete("pod", "writer", namespace=namespace)
    sealed(cluster, namespace, "early", "used")
    empty(cluster, namespace)


def test_a_disk_grows_once_no_pod_has_it_and_keeps_its_content(
    cluster: Cluster, storage: Goldlink, namespace: str
) -> None:
    filled(cluster, namespace, "small")
    cluster.apply(user("before", namespace, "small"))
    pods.wait_for(cluster, namespace, "before", timeout=120)
    assert 10 << 10 < kibibytes(cluster, namespace, "before") < 16 << 10
    size = '{"spec":{"resources":{"requests":{"storage":"64Mi"}}}}'
    cluster.kubectl("patch", "pvc", "small", f"--namespace={namespace}", f"--patch={size}")
    reason = "unpublish it before you expand it"
    cluster.wait("the reason", lambda: reason in pods.messages(cluster, namespace, "small"), 120)
    cluster.delete("pod", "before", namespace=namespace)
    grown = "--for=jsonpath={.status.capacity.storage}=64Mi"
    cluster.kubectl("wait", "pvc", "small", f"--namespace={namespace}", grown, "--timeout=180s", timeout=200)
    cluster.apply(user("after", namespace, "small"))
    pods.wait_for(cluster, namespace, "after", timeout=120)
    assert 48 << 10 < kibibytes(cluster, namespace, "after") < 64 << 10
    assert pods.run(cluster, namespace, "after", "cat /mnt/disk/file") == (0, "sealed\n")
    empty(cluster, namespace)


def test_a_claim_of_a_namespace_that_may_not_is_refused_and_told_why(
    cluster: Cluster, storage: Goldlink, namespace: str
) -> None:
    cluster.apply(disks.claim("stolen", namespace, "vault"))
    reason = f"'vault' is not for namespace '{namespace}'"
    cluster.wait("the refusal", lambda: reason in pods.messages(cluster, namespace, "stolen"), 120)
    assert cluster.get("pvc", "stolen", namespace)["status"]["phase"] == "Pending"
    assert disks.left(cluster) == []


def test_disks_outlive_the_driver(cluster: Cluster, storage: Goldlink, namespace: str) -> None:
    """A pod writes while the driver is killed and when it is back, and its disk can be taken away afterwards."""
    cluster.apply(disks.claim("held", namespace, disks.CLASS, mode="ReadWriteOnce"), user("holder", namespace, "held"))
    pods.wait_for(cluster, namespace, "holder", timeout=120)
    restarts = storage.restarts("driver")
    cluster.machine.kill("goldlink-csi node")
    assert pods.run(cluster, namespace, "holder", "echo one >/mnt/disk/file") == (0, "")
    cluster.wait("the driver", lambda: storage.restarts("driver") > restarts)
    storage.kubectl("rollout", "status", "daemonset", "--timeout=60s")
    assert pods.run(cluster, namespace, "holder", "echo two >>/mnt/disk/file; cat /mnt/disk/file") == (0, "one\ntwo\n")
    cluster.delete("pod", "holder", namespace=namespace)
    cluster.apply(user("next", namespace, "held"))
    pods.wait_for(cluster, namespace, "next", timeout=120)
    assert pods.run(cluster, namespace, "next", "cat /mnt/disk/file") == (0, "one\ntwo\n")
    empty(cluster, namespace)


def kibibytes(cluster: Cluster, namespace: str, name: str) -> int:
    """The size of the disk as the pod sees it."""
    return int(pods.run(cluster, namespace, name, "df -k /mnt/disk | awk 'END {print $2}'")[1])
