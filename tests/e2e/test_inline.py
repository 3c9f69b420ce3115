"""Inline volumes in real pods: what a pod sees, and what it cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e import pods
from tests.e2e.goldlink import volume

if TYPE_CHECKING:
    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300, func_only=True)]


def test_root_in_a_container_reads_and_can_do_no_more(cluster: Cluster, goldlink: Goldlink, namespace: str) -> None:
    goldlink.declare(goldlink.source("deps", {"package.json": "{}\n", "lib/index.js": "code\n"}))
    cluster.apply(pods.pod("reader", namespace, volumes={"deps": volume("deps")}))
    pods.wait_for(cluster, namespace, "reader")
    assert pods.run(cluster, namespace, "reader", "cd /mnt/deps && cat package.json lib/index.js") == (0, "{}\ncode\n")
    for attempt in (
        "echo x >/mnt/deps/package.json",
        "echo x >/mnt/deps/new",
        "chmod 777 /mnt/deps/package.json",
        "chown 1 /mnt/deps/lib",
        "touch /mnt/deps/package.json",
        "rm /mnt/deps/package.json",
        "mv /mnt/deps/package.json /mnt/deps/other",
        "ln /mnt/deps/package.json /mnt/deps/other",
        "mount -o remount,rw /mnt/deps",
    ):
        status, output = pods.run(cluster, namespace, "reader", attempt)
        assert status != 0, f"{attempt}: {output}"
    assert pods.run(cluster, namespace, "reader", "cat /mnt/deps/package.json")[1] == "{}\n"
