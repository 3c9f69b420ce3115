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
INLINE: dict[str, Any] = {
    "DriverInfo": {"Name": DRIVER, "Capabilities": {"exec": True, "multipods": True}},
    "InlineVolumes": [{"Attributes": {"cache": "upstream"}, "Shared": True, "ReadOnly": True}],
    "Timeouts": {"PodStart": "3m"},
}
PRIVATE = {
    **INLINE,
    "InlineVolumes": [{"Attributes": {"cache": "upstream", "access": "private"}, "Shared": False, "ReadOnly": False}],
}
"""A definition of its own: the suite takes the first volume of a definition for nearly all specs."""
READ_ONLY = "should create read-only inline ephemeral volume"
"""The suite's only spec for volumes that cannot be written; it skips the others itself."""
WRITABLE = (
    READ_ONLY,
    "should create read/write inline ephemeral volume",
    "should support two pods which have the same volume definition",
    "should support multiple inline ephemeral volumes",
)
DISKS: dict[str, Any] = {
    "DriverInfo": {
        "Name": DRIVER,
        "SupportedSizeRange": {"Min": "16Mi"},
        "SupportedFsType": {"": {}, "ext4": {}},
        "MaxFileSize": 1 << 20,
        "StressTestOptions": {"NumPods": 3, "NumRestarts": 2},
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


def test_every_spec_for_inline_volumes_passes(cluster: Cluster, goldlink: Goldlink, ran: Ran) -> None:
    goldlink.declare({**goldlink.source("upstream", {"file": "content\n"}), "private": "overlay"})
    with read_only_policy(cluster):  # the suite's pods do not ask for read-only volumes, and cannot be told to
        outcome = ran(upstream.run(cluster, "inline", INLINE))
    assert outcome.failed == []
    assert [name.endswith(READ_ONLY) for name in outcome.passed] == [True]
    outcome = ran(upstream.run(cluster, "private", PRIVATE, processes=4))  # they are made without that policy
    assert outcome.failed == []
    assert len(outcome.passed) == len(WRITABLE)
    assert [words for words in WRITABLE if not any(name.endswith(words) for name in outcome.passed)] == []


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
