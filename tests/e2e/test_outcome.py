"""What is said about a run of the upstream suite is what its report says."""

from __future__ import annotations

from typing import Any

from tests.e2e.goldlink import DRIVER
from tests.e2e.upstream import LEFT_OUT, outcome


def spec(name: str, state: str, *, said: str = "", labels: tuple[str, ...] = (), leaf: str = "It") -> dict[str, Any]:
    """A spec as ginkgo reports it."""
    return {
        "ContainerHierarchyTexts": ["External Storage", f"[Driver: {DRIVER}]"] if name else None,
        "ContainerHierarchyLabels": [[], list(labels)] if name else None,
        "LeafNodeText": name,
        "LeafNodeType": leaf,
        "LeafNodeLabels": [],
        "State": state,
        **({"Failure": {"Message": said}} if said else {}),
    }


def test_every_spec_is_told_once_with_its_reason() -> None:
    elsewhere = {**spec("of another driver", "skipped"), "ContainerHierarchyTexts": ["[Driver: other]"]}
    specs = [
        spec("reads", "passed"),
        spec("writes", "failed"),
        spec("takes too long", "timedout"),
        spec("maps blocks", "skipped", said="no blocks"),
        spec("kills", "skipped", labels=("Disruptive",)),
        spec("on Windows", "skipped", labels=("Feature:Windows", "Feature:VolumeSnapshotDataSource")),
        spec("snapshots", "skipped", labels=("Feature:VolumeSnapshotDataSource",)),
        spec("", "passed", leaf="SynchronizedBeforeSuite"),
        elsewhere,
    ]
    found = outcome("disks", [{"SpecReports": specs}, {"SpecReports": None}])
    assert found.passed == ["reads"]
    assert found.failed == ["writes: failed", "takes too long: timedout"]
    reasons = {reason: len(names) for reason, names in found.skipped.items()}
    assert reasons == {"no blocks": 1, LEFT_OUT["Disruptive"]: 1, "needs Windows": 1, "was not run": 1}
    assert next(found.lines()) == "upstream suite, disks: 1 passed, 2 failed, 4 skipped"


def test_a_suite_that_could_not_begin_has_failed() -> None:
    assert outcome("disks", [{"SpecReports": [spec("", "failed", leaf="SynchronizedBeforeSuite")]}]).failed
