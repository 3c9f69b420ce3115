"""Inline volumes in real pods: what a pod sees, and what it cannot do."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import pods
from tests.e2e.goldlink import DRIVER, STATE, private, read_only_policy, volume
from tests.e2e.machine import HOSTNAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300, func_only=True)]
START = timedelta(seconds=2)
"""From the end of a fetch to the start of a pod that waited for it, on a machine that is not busy."""


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


def test_fifty_pods_at_once_share_one_cache(cluster: Cluster, goldlink: Goldlink, namespace: str) -> None:
    """Shown by the kernel: all read the same inode."""
    goldlink.declare(goldlink.source("wheels", {"a.whl": "wheel\n"}))
    names = [f"pod-{number}" for number in range(50)]
    cluster.apply(*(pods.pod(name, namespace, volumes={"deps": volume("wheels")}) for name in names))
    pods.wait_for(cluster, namespace, *names, timeout=240)
    assert goldlink.users("wheels") == 50
    seen = {pods.run(cluster, namespace, name, "cat /mnt/deps/a.whl; stat -c %i /mnt/deps/a.whl") for name in names[:5]}
    assert len(seen) == 1
    cluster.delete("pods", "--all", namespace=namespace, timeout=240)
    cluster.wait("the end of all volumes", lambda: goldlink.users("wheels") == 0)


def test_running_pods_keep_their_version_and_new_pods_get_the_new_one(
    cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    goldlink.declare(goldlink.source("model", {"weights": "one\n"}))
    first = goldlink.current("model")
    cluster.apply(pods.pod("old", namespace, volumes={"model": volume("model")}))
    pods.wait_for(cluster, namespace, "old")
    goldlink.write_source("model", {"weights": "two\n"})
    cluster.wait("the second version", lambda: goldlink.current("model") != first)
    pinned = volume("model", version=str(first))
    cluster.apply(
        pods.pod("new", namespace, volumes={"model": volume("model")}),
        pods.pod("pinned", namespace, volumes={"model": pinned}),
    )
    pods.wait_for(cluster, namespace, "new", "pinned")
    shown = {name: pods.run(cluster, namespace, name, "cat /mnt/model/weights")[1] for name in ("old", "new", "pinned")}
    assert shown == {"old": "one\n", "new": "two\n", "pinned": "one\n"}


def test_private_views_are_written_seen_by_one_pod_and_thrown_away(
    cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    files = {"package.json": "{}\n", "lib/index.js": "code\n", "bin/run": "#!/bin/sh\necho ran\n"}
    goldlink.declare({**goldlink.source("scratch", files), "private": "overlay"})
    golden = ("-exec", "stat", "-c", "%n %a %u %s %Y", "{}", "+")
    state = goldlink.exec("driver", "find", f"{STATE}/caches/scratch/versions", *golden)
    user = {"securityContext": {"runAsUser": 1000}}
    cluster.apply(
        pods.pod("writer", namespace, volumes={"deps": private("scratch")}),
        pods.pod("user", namespace, volumes={"deps": private("scratch")}, **user),
        pods.pod("reader", namespace, volumes={"deps": volume("scratch")}),
    )
    pods.wait_for(cluster, namespace, "writer", "user", "reader")
    changes = (
        "cd /mnt/deps",
        "echo mine >package.json",
        "cp bin/run bin/copy && chmod 755 bin/copy && bin/copy",
        "chmod 777 lib/index.js && chown 1 lib/index.js && ln lib/index.js linked && echo more >>linked",
        "mv lib moved && mkdir lib && rm -r bin",
        "cat moved/index.js && ls",
    )
    expected = "ran\ncode\nmore\nlib\nlinked\nmoved\npackage.json\n"
    assert pods.run(cluster, namespace, "writer", " && ".join(changes)) == (0, expected)
    script = "cd /mnt/deps && echo theirs >new && cat new package.json lib/index.js && ! touch lib/new 2>/dev/null"
    assert pods.run(cluster, namespace, "user", script) == (0, "theirs\n{}\ncode\n")
    script = "cd /mnt/deps && cat package.json lib/index.js && ls"
    assert pods.run(cluster, namespace, "reader", script) == (0, "{}\ncode\nbin\nlib\npackage.json\n")
    goldlink.kubectl("rollout", "restart", "daemonset")  # a new driver finds what it did not make
    goldlink.kubectl("rollout", "status", "daemonset", "--timeout=60s")
    assert pods.run(cluster, namespace, "writer", "cat /mnt/deps/package.json") == (0, "mine\n")
    cluster.delete("pods", "--all", namespace=namespace)
    place = cluster.machine.root / STATE.lstrip("/")
    cluster.wait("the end of the volumes", lambda: not any((place / "volumes").iterdir()))
    cluster.wait("an empty trash", lambda: not any((place / "trash").iterdir()))
    assert goldlink.exec("driver", "find", f"{STATE}/caches/scratch/versions", *golden) == state


def test_the_limit_of_a_private_view_binds_root(cluster: Cluster, goldlink: Goldlink, namespace: str) -> None:
    limited = {"private": "overlay", "privateMaxBytes": "32Mi"}
    goldlink.declare({**goldlink.source("bounded", {"package.json": "{}\n"}), **limited})
    cluster.apply(pods.pod("writer", namespace, volumes={"deps": private("bounded")}))
    pods.wait_for(cluster, namespace, "writer")
    status, output = pods.run(cluster, namespace, "writer", "dd if=/dev/zero of=/mnt/deps/big bs=1M count=64")
    assert (status, "No space left on device" in output) == (1, True), output
    script = "rm /mnt/deps/big && echo mine >/mnt/deps/package.json && cat /mnt/deps/package.json"
    assert pods.run(cluster, namespace, "writer", script) == (0, "mine\n")


def test_a_pod_of_another_namespace_is_refused_and_told_why(
    cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    """Where people look: in the events of the pod."""
    vault = {**goldlink.source("vault", {"secret": "x"}), "access": {"namespaces": ["bank-*"]}}
    goldlink.declare(vault)
    cluster.apply(pods.pod("thief", namespace, volumes={"vault": volume("vault")}))
    expected = f"cache 'vault' is not for service account 'default' in namespace '{namespace}'"
    cluster.wait("the refusal", lambda: expected in pods.messages(cluster, namespace, "thief"))
    assert expected in cluster.kubectl("describe", "pod", "thief", f"--namespace={namespace}")
    assert cluster.get("pod", "thief", namespace)["status"]["phase"] == "Pending"


@pytest.mark.parametrize(
    ("csi", "remedy"),
    [
        ({"readOnly": False, "volumeAttributes": {"cache": "deps"}}, "readOnly"),
        ({"readOnly": True, "volumeAttributes": {"cache": "no-such-cache"}}, "there is no cache 'no-such-cache'"),
        ({"readOnly": True, "volumeAttributes": {"cache": "deps", "colour": "red"}}, "colour"),
        ({"readOnly": False, "volumeAttributes": {"cache": "deps", "access": "private"}}, "'private: overlay'"),
    ],
    ids=["writable", "unknown", "misspelt", "private"],
)
def test_a_wrong_volume_is_explained_in_the_events_of_its_pod(
    csi: dict[str, Any], remedy: str, cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    goldlink.declare(goldlink.source("deps", {"package.json": "{}\n"}))
    cluster.apply(pods.pod("wrong", namespace, volumes={"deps": {"csi": {"driver": DRIVER, **csi}}}))
    cluster.wait("the explanation", lambda: remedy in pods.messages(cluster, namespace, "wrong"))


def test_a_pod_that_comes_before_its_cache_starts_when_it_is_fetched(
    cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    goldlink.declare(goldlink.source("late", {}), wait=False)
    cluster.apply(pods.pod("early", namespace, volumes={"late": volume("late")}))
    cluster.wait("the wait", lambda: "waiting_publishes 1.0" in goldlink.metrics("driver"))
    assert cluster.get("pod", "early", namespace)["status"]["phase"] == "Pending"
    goldlink.write_source("late", {"file": "there\n"})
    pods.wait_for(cluster, namespace, "early", timeout=200)
    assert pods.run(cluster, namespace, "early", "cat /mnt/late/file") == (0, "there\n")
    (status,) = cluster.get("pod", "early", namespace)["status"]["containerStatuses"]
    started = datetime.fromisoformat(status["state"]["running"]["startedAt"])
    assert started - published(goldlink, "late") < 10 * START


@pytest.fixture
def unlabelled(cluster: Cluster) -> Iterator[None]:
    """The node has the label only while the test gives it."""
    yield
    cluster.kubectl("label", "node", HOSTNAME, "disk-")


def test_a_cache_is_on_nodes_that_its_selector_matches_only(
    cluster: Cluster, goldlink: Goldlink, namespace: str, unlabelled: None
) -> None:
    """A pod elsewhere hears why, and a label is enough to change it."""
    goldlink.declare({**goldlink.source("fast", {"file": "there\n"}), "nodeSelector": {"disk": "ssd"}}, wait=False)

    def told() -> tuple[str, str]:
        found = cluster.get("nodecaches", namespace=goldlink.release)["items"]
        return next(((one["state"], one["message"]) for one in found if one["cache"] == "fast"), ("", ""))

    cluster.wait("the report", lambda: told()[0] == "Unheld", 180)
    refusal = f"cache 'fast' is for nodes with disk=ssd, and node '{HOSTNAME}' has not disk=ssd"
    assert refusal in told()[1]
    cluster.apply(pods.pod("elsewhere", namespace, volumes={"fast": volume("fast")}))
    cluster.wait("the refusal", lambda: refusal in pods.messages(cluster, namespace, "elsewhere"), 180)
    assert goldlink.current("fast") is None
    cluster.kubectl("label", "node", HOSTNAME, "disk=ssd")
    cluster.wait("the cache", lambda: told()[0] == "Ready", 180)
    cluster.apply(pods.pod("reader", namespace, volumes={"fast": volume("fast")}))
    pods.wait_for(cluster, namespace, "reader")
    assert pods.run(cluster, namespace, "reader", "cat /mnt/fast/file") == (0, "there\n")


def published(goldlink: Goldlink, cache: str) -> datetime:
    """When the fetcher was done with the cache."""
    lines = goldlink.logs("fetcher").splitlines()
    (line,) = [line for line in lines if f"event=refreshed cache={cache} " in line]
    return datetime.fromisoformat(line.removeprefix("time=").split()[0])


def test_the_policy_of_the_examples_adds_what_a_pod_forgot(
    cluster: Cluster, goldlink: Goldlink, namespace: str
) -> None:
    goldlink.declare({**goldlink.source("lenient", {"package.json": "{}\n"}), "private": "overlay"})
    forgotten = {"csi": {"driver": DRIVER, "volumeAttributes": {"cache": "lenient"}}}
    writable = {"csi": {"driver": DRIVER, "volumeAttributes": {"cache": "lenient", "access": "private"}}}
    volumes = {"deps": forgotten, "mine": writable, "other": {"emptyDir": {}}}
    with read_only_policy(cluster):
        cluster.apply(pods.pod("forgetful", namespace, volumes=volumes))
    pods.wait_for(cluster, namespace, "forgetful")
    assert pods.run(cluster, namespace, "forgetful", "cat /mnt/deps/package.json") == (0, "{}\n")
    assert pods.run(cluster, namespace, "forgetful", "touch /mnt/other/file /mnt/mine/file") == (0, "")
