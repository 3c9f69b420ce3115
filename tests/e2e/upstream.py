"""The external-storage suite of Kubernetes itself: how it is run, and what came of it.

A driver definition (test/e2e/storage/external/README.md there) has capabilities, which select the specs. What they
do not select is skipped with a reason.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.e2e.cluster import build
from tests.e2e.goldlink import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.e2e.cluster import Cluster

FEATURES = ("VolumeSnapshotDataSource", "VolumeAttributesClass")
"""What the suite labels as features and this driver has."""
LEFT_OUT = {
    "Disruptive": "stops kubelet through SSH to the node, which has none (own scenarios do that)",
    "Flaky": "is known to fail now and then, says Kubernetes",
    "any volume data source": "deploys programs whose images are not at hand",
}
"""Why specs are not run at all: by their label, or by words in their names."""
_TIMEOUT = 1500  # seconds of a run


@dataclass
class Outcome:
    """What came of one run."""

    name: str
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Specs by reason."""

    def lines(self) -> Iterator[str]:
        """For people."""
        skipped = sum(map(len, self.skipped.values()))
        yield f"upstream suite, {self.name}: {len(self.passed)} passed, {len(self.failed)} failed, {skipped} skipped"
        yield from (f"  FAILED  {name}" for name in self.failed)
        for reason, names in sorted(self.skipped.items(), key=lambda item: -len(item[1])):
            yield f"  {len(names):4} skipped: {reason}"


def run(cluster: Cluster, name: str, definition: Mapping[str, Any], *, processes: int = 1) -> Outcome:
    """Run the suite with a driver definition, several specs at a time.

    Log and report, `NAME-suite.log` and `NAME.json`, stay with the logs of the cluster.
    """
    file = re.sub(r"\W+", "-", name)
    driver = cluster.machine.directory / f"{file}.json"
    driver.write_text(json.dumps(definition))
    report, log = cluster.logs / f"{file}.json", cluster.logs / f"{file}-suite.log"
    report.unlink(missing_ok=True)
    programs = build("storage")
    words = [key for key in LEFT_OUT if " " in key]
    wanted = [f"Feature: isSubsetOf {{{', '.join(FEATURES)}}}", *(f"!{key}" for key in LEFT_OUT if key not in words)]
    command: list[str | Path] = [
        programs / "ginkgo",
        f"--procs={processes}",
        f"--focus=External.Storage.*{re.escape(DRIVER)}",
        f"--skip={'|'.join(words)}",
        f"--label-filter={' && '.join(wanted)}",
        f"--output-dir={report.parent}",
        f"--json-report={report.name}",
        "--no-color",
        f"--timeout={_TIMEOUT}s",
        programs / "e2e.test",
        "--",
        f"-kubeconfig={cluster.kubeconfig}",
        "-provider=local",
        "-num-nodes=1",
        f"-storage.testdriver={driver}",
    ]
    path = f"PATH={build('kubernetes')}:{os.environ['PATH']}"  # some specs call kubectl
    shell: list[str | Path] = ["env", path, "sh", "-c", 'log=$1; shift; exec "$@" >"$log" 2>&1', "suite", log]
    cluster.machine.attempt([*shell, *command], timeout=_TIMEOUT + 100)
    assert report.exists(), f"the suite wrote no report: see {log}"
    return outcome(name, json.loads(report.read_text()))


def outcome(name: str, report: list[dict[str, Any]]) -> Outcome:
    """What ginkgo's report says (its documentation, "Generating machine-readable reports").

    Steps before and after the specs count when they failed.
    """
    found = Outcome(name)
    for spec in (spec for suite in report for spec in suite["SpecReports"] or []):
        text = " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]]).partition(f"{DRIVER}] ")[2]
        if spec["State"] in {"skipped", "pending"}:
            if text:
                found.skipped[_reason(spec, text)].append(text)
        elif spec["State"] != "passed":
            found.failed.append(f"{text or spec['LeafNodeType']}: {spec['State']}")
        elif text:
            found.passed.append(text)
    return found


def _reason(spec: Mapping[str, Any], text: str) -> str:
    """Why a spec was skipped: its own words, or why it was not to be run."""
    if said := spec.get("Failure", {}).get("Message"):
        return str(said)
    labels = [label for names in spec["ContainerHierarchyLabels"] or [] for label in names or []]
    labels += spec["LeafNodeLabels"] or []
    for words, reason in LEFT_OUT.items():
        if words in labels or words in text:
            return reason
    features = {label.removeprefix("Feature:") for label in labels if label.startswith("Feature:")} - {*FEATURES}
    return f"needs {', '.join(sorted(features))}" if features else "was not run"
