"""Least privilege, by what the API server wrote down while all other scenarios ran: conftest.py puts this last."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.e2e import disks
from tests.e2e.cluster import build
from tests.e2e.goldlink import NAMESPACE, RELEASE
from tests.e2e.test_chart import of_kind, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root]

ACCOUNTS = ("controller", "node", "uninstall")
"""The service accounts of the chart, behind the name of the release."""
SCENARIOS = ("test_disks", "test_inline", "test_persistent", "test_uninstall", "test_upstream")
"""Together they have every component do what it is there for."""


class Use(NamedTuple):
    """Something that an account may do, or did."""

    account: str
    group: str
    resource: str
    """With its subresource, if any."""
    verb: str


def test_nothing_was_asked_that_is_forbidden(cluster: Cluster) -> None:
    """A component that asks for more than it may waits for ever, or does without and nobody knows."""
    shutil.copy(cluster.audit, cluster.logs / "audit.log")  # the machine's own ends with it
    events = list(audit(cluster))
    assert {event["user"]["username"] for event in events} >= {user("controller"), user("node")}
    decisions = ((event, event.get("annotations", {}).get("authorization.k8s.io/decision")) for event in events)
    forbidden = [event for event, decision in decisions if decision == "forbid"]
    # What is granted is refused, too, for a moment: an uninstall takes the roles away before the last pod has ended.
    asked = {use for event in forbidden for use in uses(event)} - granted()
    assert not asked, "\n".join(["these were asked for and are not granted:", *sorted(map(str, asked))])


def test_nothing_is_granted_that_nobody_uses(cluster: Cluster, request: pytest.FixtureRequest) -> None:
    ran = {item.path.stem for item in request.session.items}
    if missing := set(SCENARIOS) - ran:
        pytest.skip(f"says nothing without the scenarios of {', '.join(sorted(missing))}: run all of tests/e2e")
    used = {use for event in audit(cluster) for use in uses(event)}
    unused = granted() - used - UNSEEN.keys()
    assert not unused, "\n".join(["these are granted and were not used:", *sorted(map(str, unused))])
    assert UNSEEN.keys() <= granted(), "it is not granted any more: no reason is needed"


def test_roles_are_bound_to_accounts_that_exist_and_the_driver_has_none() -> None:
    objects = render(build("helm") / "helm", disks.values())
    accounts = {item["metadata"]["name"] for item in of_kind(objects, "ServiceAccount")}
    assert accounts == {f"{RELEASE}-{account}" for account in ACCOUNTS}
    assert {use.account for use in granted()} == set(ACCOUNTS)


def user(account: str) -> str:
    return f"system:serviceaccount:{NAMESPACE}:{RELEASE}-{account}"


def audit(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """What the accounts of the chart have asked, request by request."""
    accounts = {user(account) for account in ACCOUNTS}
    lines = cluster.audit.read_text().rpartition("\n")[0].splitlines()  # the last one is perhaps being written
    return (event for event in map(json.loads, lines) if event["user"]["username"] in accounts)


def uses(event: dict[str, Any]) -> Iterator[Use]:
    """What a request needed; one that is about no object, such as that for the version, needs nothing of the chart."""
    account = event["user"]["username"].removeprefix(user(""))
    if "objectRef" in event:
        ref = event["objectRef"]
        resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
        yield Use(account, ref.get("apiGroup", ""), resource, event["verb"])


def granted() -> set[Use]:
    """What the roles of the chart grant, with what the scenarios switch on: no attacher, the driver needs none."""
    objects = render(build("helm") / "helm", disks.values())
    roles = {(item["kind"], item["metadata"]["name"]): item["rules"] for item in objects if item["kind"] in ROLES}
    bound = [(item["roleRef"], subject) for item in objects for subject in item.get("subjects", ())]
    return {
        Use(subject["name"].removeprefix(f"{RELEASE}-"), group, resource, verb)
        for ref, subject in bound
        for rule in roles[ref["kind"], ref["name"]]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


ROLES = ("ClusterRole", "Role")
_APPLIED = "an apply that makes an object needs it, and is written down as a patch"
UNSEEN = {
    Use("node", "", "events", "create"): _APPLIED,
    Use("node", "goldlink.dev", "nodecaches", "create"): _APPLIED,
    Use("node", "goldlink.dev", "nodecaches", "delete"): "of a cache without a version that is not declared any more",
    Use("controller", "storage.k8s.io", "volumeattributesclasses", "get"): "for a new claim that names one",
}
"""What is granted although the scenarios need not show it, and why."""
