"""docs/reference.md names everything there is, and the examples are what they claim to be."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from cachefetch import reports
from cachefetch.__main__ import _parser as cachefetch_parser
from cachefetch.config import Cache, load
from cachefetch.metrics import Metrics as FetcherMetrics
from csi.disk_requests import PARAMETERS
from csi.disks.rules import SETTINGS
from csi.metrics import Metrics as DriverMetrics
from csi.options import _parser as driver_parser
from csi.requests import ATTRIBUTES
from tests.processes import ROOT

TEXT = (ROOT / "docs" / "reference.md").read_text()
EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("*.yaml"))


def section(title: str) -> str:
    return TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", [field.encode_name for field in msgspec.structs.fields(Cache)])
def test_each_key_of_a_cache_is_explained(name: str) -> None:
    assert f"| `{name}` |" in section("A cache")


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_each_attribute_of_a_volume_is_explained(name: str) -> None:
    assert f"| `{name}` |" in section("An inline volume")


@pytest.mark.parametrize("name", [*PARAMETERS, *SETTINGS])
def test_each_parameter_of_a_class_is_explained(name: str) -> None:
    assert f"`{name}`" in section("A StorageClass")


def test_each_field_of_a_node_cache_is_explained() -> None:
    """And each state, and each reason of an event."""
    definition = yaml.safe_load((ROOT / "deploy/chart/goldlink/crds/nodecaches.yaml").read_text())
    properties = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    parts = [*properties["current"]["properties"], *properties["versions"]["items"]["properties"]]
    reasons = re.findall(r'"(Cache[A-Z][a-z]+)"', Path(reports.__file__).read_text())
    assert len(reasons) == 2
    for name in [*properties, *parts, *properties["state"]["enum"], *reasons]:
        assert f"`{name}`" in section("What the cluster is told")


def test_each_option_is_explained() -> None:
    driver = set(re.findall(r"(--[a-z-]+)", driver_parser().format_help())) - {"--help", "--version"}
    explained = set(re.findall(r"^\| `(--[a-z-]+)", section("Commands"), re.MULTILINE))
    assert explained == driver
    for command in re.findall(r"[a-z]+", cachefetch_parser().format_usage().partition("{")[2].partition("}")[0]):
        assert command in section("Commands")


def test_each_metric_is_explained() -> None:
    driver, fetcher = DriverMetrics("1"), FetcherMetrics("1")
    driver.watch_volumes(dict)
    driver.watch_private(dict)
    driver.watch_pool(dict)
    fetcher.watch(list, None)  # type: ignore[arg-type] # without caches the store is not looked at
    families = [family for registry in (driver.registry, fetcher.registry) for family in registry.collect()]
    assert len(families) > 10
    missing = [family.name for family in families if f"`{family.name}" not in section("Metrics")]
    assert missing == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_yaml_and_use_the_driver_as_it_wants(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        spec = document.get("spec", {})
        for volume in spec.get("template", {}).get("spec", spec).get("volumes", []):
            if "csi" in volume:
                assert volume["csi"]["driver"] == "csi.goldlink.dev"
                assert volume["csi"]["readOnly"] is True
                assert set(volume["csi"]["volumeAttributes"]) <= set(ATTRIBUTES)


def test_the_caches_of_the_example_values_are_valid(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "deploy" / "examples" / "values.yaml").read_text())
    (tmp_path / "caches.yaml").write_text(yaml.safe_dump({"caches": values["caches"]}))
    assert [cache.name for cache in load(tmp_path / "caches.yaml").caches] == ["node-modules", "toolchain"]
