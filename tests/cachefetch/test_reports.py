"""What the cluster is told: complete, short enough for its rules, and the same as long as nothing has changed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cachefetch import reports
from cachefetch.listing import Row
from cachefetch.model import Totals, Version
from cachefetch.records import VolumeRecord
from cachefetch.reports import Place, Told
from cachefetch.waiting import Pod, Wait
from cachefetch.work import State, Status
from tests.processes import ROOT

ID = "c7a58f67b120" + "0" * 52
PLACE = Place("node-1", Pod("goldlink", "goldlink-node-x", "uid-of-the-fetcher"))
POD = Pod("team-a", "web-0", "uid-1")
RECORD = VolumeRecord(
    id="csi-1",
    cache="deps",
    version=ID,
    target="/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/modules/mount",
    namespace=POD.namespace,
    pod=POD.name,
    pod_uid=POD.uid,
    created=1_000.0,
)
VERSION = Version("deps", ID, Totals(10, 7, 2048), 0.0)
IDLE = Status("deps", State.IDLE, ID, 0, None, 240.0, "", 0, "next refresh in 4 min")
ROW = Row("deps", declared=True, id=ID, version=VERSION, current=True, users=2)
EMPTY = Row("deps", declared=True)
SCHEMA = yaml.safe_load((ROOT / "deploy" / "chart" / "goldlink" / "crds" / "nodecaches.yaml").read_text())
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def test_a_healthy_cache_says_what_is_current_and_who_uses_it() -> None:
    older = Row("deps", declared=True, id="0" * 64, version=replace(VERSION, id="0" * 64), users=1)
    report = reports.node_cache(PLACE, [ROW, older], IDLE)
    assert (report["cache"], report["node"], report["state"], report["message"]) == ("deps", "node-1", "Ready", "")
    assert report["users"] == 3
    assert report["current"] == {
        "id": ID,
        "short": "c7a58f67b120",
        "size": "2.0 KiB",
        "published": "1970-01-01T00:00:00Z",
    }
    assert [version["users"] for version in report["versions"]] == [2, 1]


def test_the_report_of_a_cache_ends_with_its_pod_and_is_found_by_it() -> None:
    meta = reports.node_cache(PLACE, [ROW], IDLE)["metadata"]
    assert meta["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": PLACE.pod.name, "uid": PLACE.pod.uid}
    ]
    key, _, value = reports.selector(PLACE).partition("=")
    assert meta["labels"][key] == value
    assert reports.caches_path(PLACE, meta["name"]).endswith("/namespaces/goldlink/nodecaches/deps.node-1")


@pytest.mark.parametrize(
    ("row", "status", "state", "message"),
    [
        (ROW, replace(IDLE, next_in=1.0, text="next refresh in 1 s"), "Ready", ""),
        (ROW, replace(IDLE, state=State.LOOKING, text="its source is being looked at"), "Ready", ""),
        (ROW, replace(IDLE, state=State.FETCHING, text="fetching 1 MiB"), "Fetching", "fetching 1 MiB"),
        (ROW, replace(IDLE, state=State.FAILED, error="no route", text="…; next in 3 s"), "Failing", "no route"),
        (EMPTY, replace(IDLE, state=State.QUEUED, text="it waits for its turn"), "Fetching", "it waits for its turn"),
        (EMPTY, replace(IDLE, state=State.UNHELD, text="no label"), "Unheld", "no label"),
        (ROW, replace(IDLE, state=State.UNHELD, text="no label"), "Unheld", "no label"),
        (EMPTY, IDLE, "Empty", "it is fetched when the first volume asks for it"),
        (ROW, None, "Undeclared", "it is not declared any more: versions stay while volumes use them"),
    ],
)
def test_the_state_says_what_matters(row: Row, status: Status | None, state: str, message: str) -> None:
    """And nothing that changes by itself: every change is a call to the API server."""
    report = reports.node_cache(PLACE, [row], status)
    assert (report["state"], report["message"]) == (state, message)
    assert ("current" in report) == bool(row.id)


def test_a_version_that_cannot_be_read_is_called_damaged() -> None:
    report = reports.node_cache(PLACE, [ROW._replace(version=None)], IDLE)
    assert report["versions"] == [{"id": ID, "users": 2, "damaged": True}]
    assert "current" not in report


@pytest.mark.parametrize("rows", [[ROW], [EMPTY], [ROW._replace(version=None)]])
@pytest.mark.parametrize("status", [IDLE, None, *(replace(IDLE, state=state) for state in State)])
def test_reports_are_what_the_definition_describes(rows: list[Row], status: Status | None) -> None:
    """The API server drops what it does not know, without a word."""
    [version] = SCHEMA["spec"]["versions"]
    assert f"{SCHEMA['spec']['group']}/{version['name']}" == f"{reports.GROUP}/{reports.VERSION}"
    report = reports.node_cache(PLACE, rows, status)
    described = report.keys() - {"apiVersion", "kind", "metadata"}
    schema = version["schema"]["openAPIV3Schema"]
    follows({key: report[key] for key in described}, schema)


def follows(value: Any, schema: dict[str, Any]) -> None:
    if schema["type"] == "object":
        assert set(schema.get("required", [])) <= value.keys() <= schema["properties"].keys()
        for key, item in value.items():
            follows(item, schema["properties"][key])
    elif schema["type"] == "array":
        for item in value:
            follows(item, schema["items"])
    else:
        assert type(value).__name__ == {"string": "str", "integer": "int", "boolean": "bool"}[schema["type"]]
        assert value in schema.get("enum", [value])


def test_a_pod_with_a_volume_is_told_its_version() -> None:
    event = reports.mounted(PLACE, RECORD, VERSION)
    assert event["message"] == (
        "volume 'modules' shows version c7a58f67b120 of cache 'deps' (7 files, 2.0 KiB, published 1970-01-01T00:00:00Z)"
    )
    assert event["involvedObject"]["uid"] == POD.uid
    assert (event["type"], event["reason"], event["source"]["host"]) == ("Normal", "CacheMounted", "node-1")
    assert event["firstTimestamp"] == "1970-01-01T00:16:40Z"
    assert reports.event_path(event).startswith("/api/v1/namespaces/team-a/events/web-0.")


def test_a_private_volume_is_called_one_and_a_lost_manifest_hides_nothing_else() -> None:
    event = reports.mounted(PLACE, VolumeRecord(id="v", cache="c", version=ID, target="/t", access="private"), None)
    assert event["message"].endswith(" is a private view of version c7a58f67b120 of cache 'c'")


def test_a_pod_that_waits_is_told_why_in_one_event_that_counts() -> None:
    wait = Wait(POD, "deps", 5.0)
    text = reports.explain(PLACE, wait, replace(IDLE, state=State.FETCHING, text="fetching 1 MiB of 2 MiB, 50%"))
    assert text == "cache 'deps' is not on node-1 yet: fetching 1 MiB of 2 MiB, 50%"
    first = reports.awaited(PLACE, wait, Told(text, 5.0, 6.0, 1), failing=False)
    again = reports.awaited(PLACE, wait, Told("no route", 5.0, 16.0, 2), failing=True)
    assert reports.event_path(first) == reports.event_path(again)
    assert (first["type"], again["type"], again["count"], again["message"]) == ("Normal", "Warning", 2, "no route")
    other = reports.awaited(PLACE, wait._replace(cache="other"), Told(text, 5.0, 6.0, 1), failing=False)
    assert reports.event_path(other) != reports.event_path(first)


LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join).filter(lambda name: len(name) <= 253)


@given(cache=LABEL, node=NAME, pod=NAME)
def test_names_of_objects_are_names_whatever_they_are_made_of(cache: str, node: str, pod: str) -> None:
    place = Place(node, PLACE.pod)
    report = reports.node_cache(place, [ROW._replace(cache=cache)], IDLE)
    event = reports.awaited(place, Wait(Pod("n", pod, "u"), cache, 0.0), Told("x", 0, 0, 1), failing=False)
    for name in (report["metadata"]["name"], event["metadata"]["name"]):
        assert len(name) <= 253
        assert SUBDOMAIN.fullmatch(name)
