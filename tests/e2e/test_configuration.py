"""The caches of a running node change, also for the worse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e import pods
from tests.e2e.goldlink import RELEASE, STATE, volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(500, func_only=True)]
READ = "cat /mnt/deps/file"
BROKEN = "caches:\n- name: steady\n  source: {type: directory, path: /var/lib/sources/steady}\n  retian: 3\n"


@pytest.fixture
def broken(cluster: Cluster, goldlink: Goldlink) -> Iterator[None]:
    """The ConfigMap was edited by hand, past the checks of the chart, and has a misspelt key. Mended at the end."""
    goldlink.declare(goldlink.source("steady", {"file": "one\n"}))
    patch = json.dumps({"data": {"caches.yaml": BROKEN}})
    goldlink.kubectl("patch", "configmap", RELEASE, "--type=merge", f"--patch={patch}")
    yield
    goldlink.install()  # helm puts right what was changed by hand
    cluster.wait("the mended configuration", lambda: valid(goldlink) == {"driver": True, "fetcher": True}, 180)


def test_a_broken_config_map_leaves_the_last_valid_one_in_force_and_is_seen(
    cluster: Cluster, goldlink: Goldlink, namespace: str, broken: None
) -> None:
    """By the metric of the alert GoldlinkConfigInvalid, and in both logs, which name the key."""
    cluster.wait("the refusal", lambda: valid(goldlink) == {"driver": False, "fetcher": False}, 180)
    assert "caches[0].retian" in goldlink.logs("driver")
    assert "caches[0].retian" in goldlink.logs("fetcher")
    current = cluster.machine.root / STATE.lstrip("/") / "caches" / "steady" / "current"
    first, before = current.readlink(), goldlink.restarts("driver")
    goldlink.write_source("steady", {"file": "two\n"})
    cluster.wait("the next version", lambda: current.readlink() != first, 120)
    cluster.apply(pods.pod("reader", namespace, volumes={"deps": volume("steady")}))
    pods.wait_for(cluster, namespace, "reader")
    assert pods.run(cluster, namespace, "reader", READ) == (0, "two\n")
    assert goldlink.restarts("driver") == before


def test_a_cache_that_is_removed_stays_for_the_pods_that_have_it(
    cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    """Also when kubelet starts again, which publishes again what is there."""
    goldlink.declare(goldlink.source("going", {"file": "content\n"}))
    cluster.apply(pods.pod("reader", namespace, volumes={"deps": volume("going")}))
    pods.wait_for(cluster, namespace, "reader")
    goldlink.declare()
    refused = "there is no cache 'going'"
    cluster.wait("the removal", lambda: "going" not in configured(goldlink), 180)
    cluster.apply(pods.pod("late", namespace, volumes={"deps": volume("going")}))
    cluster.wait("the refusal", lambda: refused in pods.messages(cluster, namespace, "late"), 180)
    cluster.kill("kubelet")
    cluster.start_kubelet()
    cluster.apply(pods.pod("neighbour", namespace))
    pods.wait_for(cluster, namespace, "neighbour", timeout=120)
    assert pods.run(cluster, namespace, "reader", READ) == (0, "content\n")
    assert goldlink.users("going") == 1
    cluster.delete("pods", "--all", namespace=namespace)
    cluster.wait("the end of the volume", lambda: goldlink.users("going") == 0)


def valid(goldlink: Goldlink) -> dict[str, bool]:
    """What the metric says, by container."""
    return {name: "goldlink_config_valid 1.0" in goldlink.metrics(name) for name in ("driver", "fetcher")}


def configured(goldlink: Goldlink) -> str:
    """The last line of the driver's log that names the caches."""
    return [line for line in goldlink.logs("driver").splitlines() if "event=config " in line][-1]
