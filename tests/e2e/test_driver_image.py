"""The image holds what it needs and little else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e import driver_image, pods

if TYPE_CHECKING:
    from tests.e2e.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300, func_only=True)]
PROGRAMS = ("goldlink-csi", "cachefetch", "mkfs.erofs", "mkfs.ext4", "e2fsck", "resize2fs")
ABSENT = ("cc", "gcc", "make", "pip", "pip3", "curl", "wget")
MOST = 150_000_000
"""Bytes beyond the base."""


def test_it_adds_little_to_its_base(driver: str) -> None:
    image, base = driver_image.sizes()
    assert image - base < MOST


def test_it_has_its_programs_and_no_tools_to_build_or_download(driver: str, cluster: Cluster, namespace: str) -> None:
    script = f"id -u; for p in {' '.join((*PROGRAMS, *ABSENT))}; do command -v $p >/dev/null && echo $p; done; true"
    cluster.apply(pods.pod("look", namespace, command=["sh", "-c", script], image=driver))
    pods.wait_for(cluster, namespace, "look", condition="jsonpath={.status.phase}=Succeeded")
    uid, *found = cluster.kubectl("logs", "look", f"--namespace={namespace}").split()
    assert found == list(PROGRAMS)
    assert uid != "0"


def test_the_commands_start_on_a_read_only_root(driver: str, cluster: Cluster, namespace: str) -> None:
    script = "goldlink-csi --version && cachefetch --version && mkfs.erofs --help >/dev/null 2>&1; echo done"
    pod = pods.pod("start", namespace, command=["sh", "-c", script], image=driver)
    pod["spec"]["containers"][0]["securityContext"] = {
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    cluster.apply(pod)
    pods.wait_for(cluster, namespace, "start", condition="jsonpath={.status.phase}=Succeeded")
    words = cluster.kubectl("logs", "start", f"--namespace={namespace}").split()
    assert words == ["goldlink", words[1], "cachefetch", words[1], "done"]
