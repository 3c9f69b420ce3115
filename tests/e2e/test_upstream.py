"""The external-storage suite of Kubernetes itself, for inline volumes.

Its reports stay in build/e2e: the log with every spec, and the JUnit file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.cluster import build
from tests.e2e.goldlink import DRIVER, read_only_policy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800, func_only=True)]
SKIPPED_GROUPS = r"\[Feature:|\[Disruptive\]|\[Slow\]|\[Serial\]"
INLINE = {
    "DriverInfo": {"Name": DRIVER, "Capabilities": {"exec": True, "multipods": True}},
    "InlineVolumes": [{"Attributes": {"cache": "upstream"}, "Shared": True, "ReadOnly": True}],
    "Timeouts": {"PodStart": "3m"},
}
"""Keys are the fields of Go's driverDefinition; a misspelt one is ignored without a word."""
READ_ONLY = "should create read-only inline ephemeral volume"
"""The suite's only spec for volumes that cannot be written; it skips the others itself."""


def test_every_spec_for_inline_volumes_passes(cluster: Cluster, goldlink: Goldlink) -> None:
    goldlink.declare(goldlink.source("upstream", {"file": "content\n"}))
    with read_only_policy(cluster):  # the suite's pods do not ask for read-only volumes, and cannot be told to
        report = suite(cluster, "inline", INLINE)
    failed = [case.get("name") for case in specs(report) if case.get("status") not in {"passed", "skipped"}]
    passed = [case.get("name", "") for case in specs(report) if case.get("status") == "passed"]
    assert failed == []
    assert [name.endswith(READ_ONLY) for name in passed] == [True]


def specs(report: Path) -> list[ET.Element]:
    """The specs of a JUnit file that were selected, without the steps of set-up."""
    cases = ET.parse(report).iter("testcase")
    return [case for case in cases if DRIVER in case.get("name", "")]


def suite(cluster: Cluster, name: str, definition: dict[str, Any]) -> Path:
    """Run the suite with a driver definition (test/e2e/storage/external/README.md); the JUnit file."""
    driver = cluster.machine.directory / f"{name}.json"
    driver.write_text(json.dumps(definition))
    report, log = cluster.logs / f"{name}.xml", cluster.logs / f"{name}-suite.log"
    report.unlink(missing_ok=True)
    options = [
        f"-kubeconfig={cluster.kubeconfig}",
        "-provider=local",
        "-num-nodes=1",
        f"-storage.testdriver={driver}",
        f"-ginkgo.focus=External.Storage.*{DRIVER}",
        f"-ginkgo.skip={SKIPPED_GROUPS}",
        f"-ginkgo.junit-report={report}",
        "-ginkgo.no-color",
        "-ginkgo.timeout=25m",
    ]
    shell: list[str | Path] = ["sh", "-c", 'log=$1; shift; exec "$@" >"$log" 2>&1', "suite", log]
    cluster.machine.attempt([*shell, build("storage") / "e2e.test", *options], timeout=1700)
    assert report.exists(), f"the suite wrote no report: see {log}"
    return report
