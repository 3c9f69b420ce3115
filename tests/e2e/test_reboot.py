"""A node that loses its power and comes back; its kubelet has another directory than most.

It is a cluster of its own, because the other scenarios share theirs.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import driver_image, pods
from tests.e2e.cluster import LOGS, Cluster, build
from tests.e2e.goldlink import SOURCES, Goldlink, private, volume

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(600, func_only=True)]
KUBELET = "/var/lib/k0s/kubelet"
"""Where k0s has it."""
NAMESPACE = "rebooted"
WRITE = "echo mine >/mnt/mine/new && cat /mnt/deps/file"
READ = "cat /mnt/deps/file /mnt/mine/file; ls /mnt/mine"


@pytest.fixture(scope="module")
def node(driver_archive: Path) -> Iterator[Goldlink]:
    """The chart on a node whose kubelet has its directory there, with a cache and a namespace for pods."""
    programs = build("kubernetes")
    with Cluster(programs, name="k0s", logs=LOGS / "k0s", kubelet_directory=KUBELET) as cluster:
        cluster.import_image(driver_archive)
        cluster.machine.run(["mkdir", "-p", SOURCES])
        settings = {"kubeletDir": KUBELET, "controller": {"enabled": False}}
        release = Goldlink(cluster, driver_image.NAME, [], settings=settings)
        release.declare({**release.source("deps", {"file": "content\n"}), "private": "overlay"})
        cluster.create_namespace(NAMESPACE)
        yield release


def test_pods_have_their_volumes_below_another_kubelet_directory(node: Goldlink) -> None:
    cluster = node.cluster
    cluster.apply(pods.pod("reader", NAMESPACE, volumes={"deps": volume("deps"), "mine": private("deps")}))
    pods.wait_for(cluster, NAMESPACE, "reader")
    assert pods.run(cluster, NAMESPACE, "reader", WRITE) == (0, "content\n")
    targets = mounts(node)
    assert [Path(target).parent.name for target in targets] == ["deps", "mine"]
    assert all(Path(target).is_relative_to(f"{KUBELET}/pods/{uid(node, 'reader')}") for target in targets)
    assert not (cluster.machine.root / "var/lib/kubelet/pods").exists()
    cluster.delete("pod", "reader", namespace=NAMESPACE)
    cluster.wait("the end of the volumes", lambda: node.users("deps") == 0)
    assert mounts(node) == []


def test_after_a_reboot_pods_have_volumes_again_and_nothing_is_left_of_those_that_ended(node: Goldlink) -> None:
    cluster = node.cluster
    names = ["lasting", "deleted"]
    for name in names:
        volumes = {"deps": volume("deps"), "mine": private("deps")}
        cluster.apply(pods.pod(name, NAMESPACE, volumes=volumes, restartPolicy="Always"))
    pods.wait_for(cluster, NAMESPACE, *names)
    assert pods.run(cluster, NAMESPACE, "lasting", WRITE) == (0, "content\n")
    version, deleted = node.current("deps"), uid(node, "deleted")
    cluster.kill("kubelet")
    cluster.kubectl("delete", "pod", "deleted", f"--namespace={NAMESPACE}", "--force", "--grace-period=0")
    cluster.cut_power()
    assert len(records(node)) == 4
    forget_boot(node)
    cluster.boot()
    cluster.wait("the pod", lambda: started_again(node, "lasting"), 240)
    status, output = pods.run(cluster, NAMESPACE, "lasting", READ)
    assert (status, output) == (0, "content\ncontent\nfile\n")  # what was written to the private view is gone
    assert node.current("deps") == version
    place = cluster.machine.root / KUBELET.lstrip("/") / "pods" / deleted
    cluster.wait("the end of the deleted pod", lambda: not place.exists(), 120)
    cluster.wait("the end of its volumes", lambda: len(records(node)) == 2)
    assert [Path(target).parent.name for target in mounts(node)] == ["deps", "mine"]
    cluster.delete("pod", "lasting", namespace=NAMESPACE)
    cluster.wait("the end of the volumes", lambda: records(node) == [])
    assert mounts(node) == []
    state = disk(node)
    cluster.wait("an empty trash", lambda: not any((state / "trash").iterdir()))


def disk(node: Goldlink) -> Path:
    """The state directory, whether the node has power or not."""
    return node.cluster.machine.directory / "lib" / Path(node.state).name


def records(node: Goldlink) -> list[Path]:
    """What the node has of volumes."""
    return sorted((disk(node) / "volumes").iterdir())


def forget_boot(node: Goldlink) -> None:
    """Let the state directory be that of an earlier boot.

    Containers see the boot id of the host's kernel, which stays the same, so what was written is changed instead.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    files = [*(place / "volume.json" for place in records(node)), disk(node) / "run" / "boot-id"]
    for file in files:
        text = file.read_text()
        assert boot in text, f"{file}: {text}"
        file.write_text(text.replace(boot, str(uuid.uuid4())))


def mounts(node: Goldlink) -> list[str]:
    """Targets of the driver's volumes that are mounted on the node."""
    table = Path(f"/proc/{node.cluster.machine.init}/mountinfo").read_text()
    places = (line.split()[4] for line in table.splitlines())
    return sorted(place for place in places if place.startswith(KUBELET) and "/volumes/kubernetes.io~csi/" in place)


def uid(node: Goldlink, pod: str) -> str:
    return str(node.cluster.get("pod", pod, NAMESPACE)["metadata"]["uid"])


def started_again(node: Goldlink, pod: str) -> bool:
    """Whether the pod's container has run before and runs now: right after a boot the status is that of before."""
    (status,) = node.cluster.get("pod", pod, NAMESPACE)["status"]["containerStatuses"]
    return bool(status["restartCount"]) and status["ready"]
