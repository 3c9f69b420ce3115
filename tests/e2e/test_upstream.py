"""The external-storage suite of Kubernetes itself. Its logs and reports stay in build/e2e."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import disks, upstream
from tests.e2e.goldlink import DRIVER, read_only_policy

if TYPE_CHECKING:
    from tests.e2e.cluster import Cluster
    from tests.e2e.conftest import Ran
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800, func_only=True)]
# Keys are the fields of Go's driverDefinition; a misspelt one is ignored without a word.
INLINE = {
    "DriverInfo": {"Name": DRIVER, "Capabilities": {"exec": True, "multipods": True}},
    "Timeouts": {"PodStart": "3m"},
}
SHARED = {**INLINE, "InlineVolumes": [{"Attributes": {"cache": "upstream"}, "Shared": True, "ReadOnly": True}]}
PRIVATE = {**INLINE, "InlineVolumes": [{"Attributes": {"cache": "upstream", "access": "private"}}]}
READING = {"should create read-only inline ephemeral volume"}
WRITING = {
    "should create read/write inline ephemeral volume",
    "should support two pods which have the same volume definition",
    "should support multiple inline ephemeral volumes",
}
"""What the suite has for volumes that can be written; it skips them itself for others."""
INLINE_RUNS = (("shared", SHARED, READING), ("private", PRIVATE, READING | WRITING))
DISKS: dict[str, Any] = {
    "DriverInfo": {
        "Name": DRIVER,
        "SupportedSizeRange": {"Min": "16Mi"},
        "SupportedFsType": {"": {}, "ext4": {}},
        "MaxFileSize": 1 << 20,
        "StressTestOptions": {"NumPods": 3, "NumRestarts": 2},
        "VolumeModifyStressTestOptions": {"NumPods": 2},
        "Capabilities": {
            "persistence": True,
            "exec": True,
            "multipods": True,
            "snapshotDataSource": True,
            "pvcDataSource": True,
            "capReadOnlyMany": True,
            "readWriteOncePod": True,
            "multiplePVsSameID": True,
            "controllerExpansion": True,
            "offlineExpansion": True,
            "onlineExpansion": False,
        },
    },
    "StorageClass": {"FromExistingClassName": disks.CLASS},
    "SnapshotClass": {"FromExistingClassName": disks.CLASS},
    "VolumeAttributesClass": {"FromExistingClassName": disks.CLASS},
    "Timeouts": {"PodStart": "3m"},
}
EXPECTED = (
    "should provision storage with snapshot data source (ROX mode)",
    "should provision storage with pvc data source (ROX mode)",
    "should concurrently access the single read-only volume from pods on the same node",
    "should check snapshot fields, check restore correctly works",
    "should mount multiple PV pointing to the same storage on the same node",
    "Verify if offline PVC expansion works",
    "should preempt lower priority pods using ReadWriteOncePod volumes",
    "should modify volume that already has a VAC",
)
"""Among what must not be skipped: each stands for a capability that is declared."""


@pytest.mark.parametrize(("access", "definition", "expected"), INLINE_RUNS, ids=[run[0] for run in INLINE_RUNS])
def test_every_spec_for_inline_volumes_passes(
    access: str, definition: dict[str, Any], expected: set[str], goldlink: Goldlink, ran: Ran
) -> None:
    cluster = goldlink.cluster
    goldlink.declare({**goldlink.source("upstream", {"file": "content\n"}), "private": "overlay"})
    with read_only_policy(cluster):  # the suite's pods do not ask for read-only volumes, and cannot be told to
        outcome = ran(upstream.run(cluster, f"inline, {access}", definition, processes=2))
    assert outcome.failed == []
    assert {passed.partition(" ephemeral ")[2] for passed in outcome.passed} == expected


def test_every_spec_for_disks_and_snapshots_passes(
    cluster: Cluster, goldlink: Goldlink, snapshots: None, ran: Ran
) -> None:
    goldlink.declare(**disks.values())
    cluster.apply(disks.attributes_class())
    outcome = ran(upstream.run(cluster, "disks", DISKS, processes=6))
    assert outcome.failed == []
    missing = [words for words in EXPECTED if not any(words in name for name in outcome.passed)]
    assert missing == []
    assert "was not run" not in outcome.skipped
