"""Everything that people apply is what the API server takes: no field that it does not know, no value out of range.

The server's own validation is asked (`--dry-run=server --validate=strict`), with the definitions of VolumeSnapshots,
PodMonitors and PrometheusRules in place; nothing is kept.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.cluster import build
from tests.e2e.goldlink import CHART, NAMESPACE
from tests.e2e.test_chart import EVERYTHING, render
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300, func_only=True)]
OTHER = {"driverName": "other.goldlink.dev"}
"""Beside the release that is there: a CSIDriver cannot be changed."""
CLASSES = {
    "storageClasses": [{"name": "deps", "parameters": {"cache": "deps"}, "allowVolumeExpansion": True}],
    "volumeSnapshotClasses": [{"name": "disk"}],
}
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": {**EVERYTHING, **CLASSES},
    "groups": {"nodeGroups": [{"name": "plain"}, {"name": "ssd", "nodeSelector": {"disk": "ssd"}, "maxVolumes": 7}]},
    "inline-only": {"controller": {"enabled": False}},
    "clean-up": {"cleanUp": True},
    "placed": {
        "imagePullSecrets": [{"name": "registry"}],
        "commonLabels": {"team": "storage"},
        "fetcher": {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}]},
        "controller": {"tolerations": [{"key": "control", "operator": "Exists"}], "podAnnotations": {"a": "b"}},
    },
}
EXAMPLES = sorted(
    path
    for path in (ROOT / "deploy" / "examples").glob("*.yaml")
    if all("kind" in document for document in yaml.safe_load_all(path.read_text()))
)


@pytest.fixture(scope="module")
def definitions(cluster: Cluster, snapshots: None) -> None:
    """The cluster knows every kind that the chart and the examples name."""
    files = [*build("monitoring").glob("*.yaml"), *(CHART / "crds").glob("*.yaml")]
    # Too large for the annotation that a plain apply makes.
    cluster.kubectl("apply", "--server-side", *(f"--filename={path}" for path in files))
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established")


@pytest.fixture(scope="module")
def apply(cluster: Cluster, definitions: None) -> Iterator[Apply]:
    """Asks the API server about objects."""
    made = Apply(cluster)
    yield made
    made.end()


class Apply:
    """Asks the API server about objects; makes the namespaces that they name."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._namespaces: list[str] = []

    def __call__(self, objects: list[dict[str, Any]]) -> str:
        """What it says when it takes them.

        Raises:
            CommandFailed: it does not; the text says why.
        """
        there = {item["metadata"]["name"] for item in self._cluster.get("namespaces")["items"]}
        named = {item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"}
        named |= {item["metadata"]["namespace"] for item in objects if "namespace" in item["metadata"]}
        for name in sorted(named - there):
            self._cluster.create_namespace(name)
            self._namespaces.append(name)
        text = "\n---\n".join(json.dumps(item) for item in objects)  # a List would be validated by kubectl alone
        return self._cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "--filename=-", stdin=text)

    def end(self) -> None:
        for name in self._namespaces:
            self._cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("name", VALUES)
def test_what_the_chart_renders_is_taken(name: str, apply: Apply) -> None:
    objects = render(build("helm") / "helm", {**VALUES[name], **OTHER}, release="other", namespace="manifests")
    taken = apply(objects)
    assert taken.count("(server dry run)") == len(objects) > 10


def test_the_rendered_manifests_are_taken(apply: Apply) -> None:
    """They may be those of the release that runs."""
    objects = documents(ROOT / "deploy" / "manifests" / "goldlink.yaml")
    assert {"Namespace", "CustomResourceDefinition", "DaemonSet"} <= {item["kind"] for item in objects}
    assert apply(objects).count("(server dry run)") == len(objects)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_example_is_taken(path: Path, apply: Apply) -> None:
    objects = documents(path)
    assert apply(objects).count("(server dry run)") == len(objects) > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x", "namespace": "default"}, "dat": {}},
        {
            "kind": "PodMonitor",
            "apiVersion": "monitoring.coreos.com/v1",
            "metadata": {"name": "x", "namespace": "default"},
            "spec": {"selector": {}, "podMetricsEndpoint": []},
        },
        {
            "kind": "NodeCache",
            "apiVersion": "goldlink.dev/v1alpha1",
            "metadata": {"name": "x", "namespace": NAMESPACE},
            "cache": "x",
            "node": "n",
            "state": "Fine",
            "message": "",
            "users": 0,
            "versions": [],
        },
    ],
    ids=lambda wrong: wrong["kind"],
)
def test_what_is_wrong_would_be_refused(wrong: dict[str, Any], apply: Apply) -> None:
    """Else the tests above would say nothing."""
    with pytest.raises(AssertionError, match=r"strict decoding error|Unsupported value"):
        apply([wrong])


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]
