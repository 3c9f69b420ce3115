"""An uninstall refuses while there are volumes, and leaves nothing when it was asked to clean up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e import pods
from tests.e2e.goldlink import DRIVER, NAMESPACE, RELEASE, STATE, volume
from tests.e2e.machine import HOSTNAME, CommandFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(400, func_only=True)]


@pytest.fixture
def used(cluster: Cluster, goldlink: Goldlink, namespace: str) -> Iterator[str]:
    """A release with a shared and a private volume of a pod called `user`; it is installed again afterwards."""
    goldlink.declare({**goldlink.source("kept", {"file": "content\n"}), "private": "overlay"})
    private = {"csi": {"driver": DRIVER, "volumeAttributes": {"cache": "kept", "access": "private"}}}
    cluster.apply(pods.pod("user", namespace, volumes={"deps": volume("kept"), "mine": private}))
    pods.wait_for(cluster, namespace, "user")
    yield namespace
    goldlink.install()


def test_an_uninstall_refuses_and_names_who_has_volumes(cluster: Cluster, goldlink: Goldlink, used: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        goldlink.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}")
    log = goldlink.kubectl("logs", f"job/{RELEASE}-uninstall")
    assert f"pod {used}/user has volume deps" in log
    assert "uninstall" in str(refused.value)
    assert pods.run(cluster, used, "user", "cat /mnt/deps/file") == (0, "content\n")
    cluster.delete("pod", "user", namespace=used)
    goldlink.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait")
    assert cluster.get("csidrivers")["items"] == []
    cluster.wait(
        "the deregistration", lambda: DRIVER not in cluster.kubectl("get", "csinode", HOSTNAME, "--output=json")
    )


def test_clean_up_waits_for_volumes_and_leaves_an_empty_state_directory(
    cluster: Cluster, goldlink: Goldlink, used: str
) -> None:
    state = cluster.machine.root / STATE.lstrip("/")
    (state / "not-goldlinks").write_text("of somebody else\n")
    goldlink.install(wait=False, cleanUp=True)
    cluster.wait("the refusal", lambda: "volumes are still mounted" in goldlink.logs("clean-up"))
    for name in ("deps", "mine"):
        assert f"~csi/{name}/mount" in goldlink.logs("clean-up")
    assert pods.run(cluster, used, "user", "cat /mnt/deps/file") == (0, "content\n")
    cluster.kubectl("delete", "pod", "user", f"--namespace={used}", "--wait=false", "--grace-period=1")
    goldlink.install()
    cluster.wait("the end of the volume", lambda: goldlink.users("kept") == 0)
    goldlink.install(cleanUp=True)
    assert "is clean" in goldlink.logs("clean-up")
    assert [entry.name for entry in state.iterdir()] == ["not-goldlinks"]
    (state / "not-goldlinks").unlink()
