"""What the chart renders: least privilege, values that are checked, alerts about metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from cachefetch.config import Cache, load, parse
from cachefetch.metrics import Metrics as FetcherMetrics
from csi.metrics import Metrics as DriverMetrics
from tests.e2e.cluster import build
from tests.e2e.goldlink import CHART
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow]
EVERYTHING = {
    "disks": {"enabled": True, "snapshots": True, "volume": {"nfs": {"server": "nfs.example", "path": "/goldlink"}}},
    "csiDriver": {"attachRequired": True},
    "monitoring": {name: {"enabled": True} for name in ("podMonitor", "prometheusRule", "dashboard")},
    "fetcher": {"secrets": ["registry-login"], "directories": ["/srv/data"]},
}
VALUES = sorted((ROOT / "deploy" / "examples").glob("*values.yaml"))
PRIVILEGED = {("DaemonSet", "driver")}
"""The only container that may do everything: it mounts."""
CAPABILITIES = {
    ("DaemonSet", "fetcher"): {"CHOWN", "DAC_OVERRIDE", "FOWNER"},
    ("Deployment", "own-disks"): {"CHOWN", "DAC_READ_SEARCH"},
}
"""What the others may do beyond nothing."""
_METRIC = re.compile(r"goldlink_[a-z_]+")


@pytest.fixture(scope="session")
def helm() -> Path:
    return build("helm") / "helm"


def template(
    helm: Path, values: dict[str, Any] | None = None, release: str = "goldlink", namespace: str = "goldlink"
) -> subprocess.CompletedProcess[str]:
    options = [f"--namespace={namespace}", "--kube-version=1.34.0", "--values=-"]
    text = json.dumps(values or {})
    return subprocess.run(
        [helm, "template", release, CHART, *options], input=text, capture_output=True, text=True, check=False
    )


def render(helm: Path, values: dict[str, Any] | None = None, **install: str) -> list[dict[str, Any]]:
    result = template(helm, values, **install)
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and pod specification of everything that runs pods."""
    for item in objects:
        if item["kind"] in {"DaemonSet", "Deployment", "Job"}:
            yield item["kind"], item["spec"]["template"]["spec"]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] == kind]


def test_the_rendered_manifests_are_fresh(helm: Path, tmp_path: Path) -> None:
    subprocess.run([ROOT / "tests" / "tools" / "render.sh", helm, tmp_path / "goldlink.yaml"], check=True)
    assert (ROOT / "deploy" / "manifests" / "goldlink.yaml").read_text() == (tmp_path / "goldlink.yaml").read_text()


@pytest.mark.parametrize(
    "values",
    [{}, EVERYTHING, *(yaml.safe_load(path.read_text()) for path in VALUES)],
    ids=["default", "everything", *(path.name for path in VALUES)],
)
def test_helm_finds_nothing_wrong(values: dict[str, Any], helm: Path) -> None:
    """Nor the fetcher with the caches of the examples."""
    command: list[str | Path] = [helm, "lint", CHART, "--strict", "--quiet", "--kube-version=1.34.0", "--values=-"]
    result = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(parse(json.dumps({"caches": values.get("caches", [])})).caches) == len(values.get("caches", []))


@pytest.mark.root
def test_the_disk_directory_is_given_to_the_user_who_the_controller_is(helm: Path, tmp_path: Path) -> None:
    """With all that is directly in it: a node, which runs as root, may have been first."""
    values = {**EVERYTHING, "controller": {"podSecurityContext": {"runAsUser": 4711}}}
    (spec,) = [spec for kind, spec in pods(render(helm, values)) if kind == "Deployment"]
    (owning,) = spec["initContainers"]
    (tmp_path / "sealed").mkdir()
    command = [str(tmp_path) if word == "/var/lib/goldlink-disks" else word for word in owning["command"]]
    for _ in range(2):
        subprocess.run(command, check=True)
        assert {path.stat().st_uid for path in (tmp_path, tmp_path / "sealed")} == {4711}
    assert "initContainers" not in next(spec for kind, spec in pods(render(helm)) if kind == "Deployment")


def test_only_the_driver_of_the_node_is_privileged(helm: Path) -> None:
    seen = set()
    for kind, spec in pods(render(helm, EVERYTHING)):
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            if context.get("privileged"):
                seen.add((kind, container["name"]))
                continue
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            added = set(context["capabilities"].get("add", []))
            assert added == CAPABILITIES.get((kind, container["name"]), set())
    assert seen == PRIVILEGED


def test_nothing_but_sidecars_fetchers_of_nodes_and_the_check_has_a_token(helm: Path) -> None:
    """The driver has none anywhere."""
    for kind, spec in pods(render(helm, EVERYTHING)):
        if kind == "Job":
            continue
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            has = any(mount["name"] == "token" for mount in container["volumeMounts"])
            sidecar = kind == "Deployment" and container["name"] not in {"driver", "fetcher"}
            assert has == (sidecar or (kind, container["name"]) == ("DaemonSet", "fetcher"))


def test_secrets_reach_fetchers_only(helm: Path) -> None:
    for _, spec in pods(render(helm, EVERYTHING)):
        for container in spec["containers"]:
            has = any(mount["name"].startswith("secret-") for mount in container["volumeMounts"])
            assert has == (container["name"] == "fetcher")


def test_no_role_can_read_secrets_or_do_everything(helm: Path) -> None:
    objects = render(helm, EVERYTHING)
    rules = [rule for item in [*of_kind(objects, "ClusterRole"), *of_kind(objects, "Role")] for rule in item["rules"]]
    assert len(rules) > 15
    for rule in rules:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]


def test_roles_are_there_for_the_sidecars_that_are(helm: Path) -> None:
    for values, expected in (
        (None, {"provisioner"}),
        (EVERYTHING, {"provisioner", "attacher", "resizer", "snapshotter"}),
    ):
        objects = render(helm, values)
        (deployment,) = [spec for kind, spec in pods(objects) if kind == "Deployment"]
        sidecars = {container["name"] for container in deployment["containers"]} - {"driver", "fetcher"}
        roles = {item["metadata"]["name"].removeprefix("goldlink-") for item in of_kind(objects, "ClusterRole")}
        assert sidecars == expected
        assert roles - {"uninstall", "node"} == expected


def test_the_csidriver_object_is_what_the_driver_relies_on(helm: Path) -> None:
    (driver,) = of_kind(render(helm), "CSIDriver")
    expected = {"attachRequired": False, "podInfoOnMount": True, "fsGroupPolicy": "None", "requiresRepublish": False}
    assert expected.items() <= driver["spec"].items()
    assert driver["spec"]["volumeLifecycleModes"] == ["Ephemeral", "Persistent"]
    assert driver["metadata"]["labels"]["security.openshift.io/csi-ephemeral-volume-profile"] == "restricted"


def test_each_node_group_has_its_own_state_and_limits(helm: Path) -> None:
    ssd = {"name": "ssd", "nodeSelector": {"disk": "ssd"}, "stateDir": "/mnt/ssd/goldlink", "maxVolumes": 7}
    objects = render(helm, {"nodeGroups": [{"name": "plain"}, ssd]})
    plain, fast = of_kind(objects, "DaemonSet")
    assert [item["metadata"]["name"] for item in (plain, fast)] == ["goldlink-plain", "goldlink-ssd"]
    spec = fast["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "disk": "ssd"}
    assert {"--state-dir=/mnt/ssd/goldlink", "--max-volumes=7"} <= set(spec["containers"][0]["args"])
    assert "--state-dir=/var/lib/goldlink" in plain["spec"]["template"]["spec"]["containers"][0]["args"]
    assert plain["spec"]["selector"] != fast["spec"]["selector"]


def test_the_kubelet_directory_is_followed_everywhere(helm: Path) -> None:
    text = template(helm, {"kubeletDir": "/var/lib/k0s/kubelet"}).stdout
    assert "/var/lib/kubelet" not in text
    assert "--plugin-registration-dir=/var/lib/k0s/kubelet/plugins_registry" in text


def test_caches_of_the_values_are_a_valid_configuration(helm: Path, tmp_path: Path) -> None:
    source = {"type": "http", "url": "https://ci.example/a.tar.zst"}
    for caches in ([], [{"name": "deps", "source": source, "refresh": {"interval": "5m"}}]):
        maps = of_kind(render(helm, {"caches": caches}), "ConfigMap")
        (text,) = [item["data"]["caches.yaml"] for item in maps if "caches.yaml" in item["data"]]
        (tmp_path / "caches.yaml").write_text(text)
        assert [cache.name for cache in load(tmp_path / "caches.yaml").caches] == [cache["name"] for cache in caches]


@pytest.mark.parametrize(
    "values",
    [
        {"nodes": {}},
        {"node": {"stateDir": "relative"}},
        {"kubeletDir": "/var/lib/kubelet/"},
        {"driverName": "9.goldlink"},
        {"nodeGroups": []},
        {"nodeGroups": [{"stateDir": "/x"}]},
        {"disks": {"enabled": True}},
        {"caches": [{"name": "deps"}]},
        {"caches": [{"name": "deps", "source": {"type": "http"}, "retian": 3}]},
        {"logLevel": "loud"},
        {"node": {"fetchWait": "soon"}},
    ],
    ids=json.dumps,
)
def test_wrong_values_are_refused(values: dict[str, Any], helm: Path) -> None:
    result = template(helm, values)
    assert result.returncode != 0
    assert "values don't meet the specifications" in result.stderr


def test_every_misspelt_key_is_refused() -> None:
    """An object of the schema with keys of its own takes no others."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    open_ones = [path for path, node in objects_of(schema, "values") if node.get("additionalProperties") is not False]
    assert open_ones == []
    assert len(list(objects_of(schema, "values"))) > 20


def test_the_keys_of_caches_are_those_that_the_fetcher_knows() -> None:
    """Else an upgrade would be refused, or a misspelt key be found by the nodes only."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = {field.encode_name for field in msgspec.structs.fields(Cache)}
    assert schema["properties"]["caches"]["items"]["properties"].keys() == known


def objects_of(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object below, with its path, that has keys of its own: labels, for example, have none."""
    if "properties" in schema:
        yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from objects_of(part, f"{path}.{name}")
    if "items" in schema:
        yield from objects_of(schema["items"], f"{path}[]")


def test_alerts_and_dashboard_ask_for_metrics_that_exist(helm: Path) -> None:
    exist = set(metric_names())
    objects = render(helm, EVERYTHING)
    (rule,) = of_kind(objects, "PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    (dashboard,) = [
        item["data"]["goldlink.json"] for item in of_kind(objects, "ConfigMap") if "goldlink.json" in item["data"]
    ]
    queries = [target["expr"] for panel in json.loads(dashboard)["panels"] for target in panel["targets"]]
    for query in [alert["expr"] for alert in alerts] + queries:
        used = set(_METRIC.findall(query))
        assert used, query
        assert used <= exist, query
    assert all(alert["annotations"]["description"] for alert in alerts)


def metric_names() -> Iterator[str]:
    """Every series that driver and fetcher can have."""
    driver, fetcher = DriverMetrics("1"), FetcherMetrics("1")
    driver.watch_volumes(dict)
    driver.watch_pool(dict)
    fetcher.watch(list, None)  # type: ignore[arg-type] # without caches the store is not looked at
    for registry in (driver.registry, fetcher.registry):
        for family in registry.collect():
            endings = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "info": ("_info",)}
            yield from (family.name + ending for ending in endings.get(family.type, ("",)))
