"""docs/operations.md, "What kubectl shows": its very commands are run, and what they print is compared with it.

When they differ, the fresh page is beside the logs of the cluster, in build/e2e: look at it, and copy it over the old.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.e2e import pods
from tests.e2e.cluster import build
from tests.e2e.goldlink import SOURCES, volume
from tests.e2e.test_resilience import registered
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(400, func_only=True)]
PAGE = ROOT / "docs" / "operations.md"
SECTION = "## What kubectl shows\n"
NAMESPACE = "team-a"
SLOW = {"fetcher": {"bandwidth": "2Mi"}}
MODEL = 512 << 20
"""Bytes, so that it is being fetched all the while."""
EVENTS = ("web CacheMounted", "web Started", "train CacheAwaited .*%, .* left", "intruder FailedMount")
STATES = (r"model .* Fetching .* left", r"node-modules .* 1 +Ready", r"vault .* 0 +Ready")
"""What is to be seen before the page is compared."""
_BLOCK = re.compile(r"```console\n\$ (?P<command>.*)\n(?P<output>(?:.*\n)*?)```\n")
_CHANGES = [
    (re.compile(r"fetching .*?%(, \w+( \w+)? left)?"), "fetching SO MUCH"),
    (re.compile(r"\(x\d+ over \w+\)"), ""),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:]+Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "VERSION"),
    (re.compile(r"(?<=\s)(?:\d+[smhd])+(?=\s|$)|<invalid>", re.MULTILINE), "AGE"),
    (re.compile(r"[ -]+"), " "),
]
"""What is another each time, and the width of columns that follows from it."""
_FOREIGN = re.compile(r"not found in the list of registered CSI drivers| Undeclared ")
"""A pod that is quicker than the driver's registration has such an event; caches of other scenarios may not be gone."""


@pytest.fixture
def scene(cluster: Cluster, goldlink: Goldlink) -> Iterator[None]:
    """A pod that is well, one that waits, and one that is refused."""
    modules = goldlink.source("node-modules", {"package.json": '{"name": "web"}\n', "lib/index.js": "run()\n"})
    modules["access"] = {"namespaces": ["team-*"]}
    vault = {**goldlink.source("vault", {"secret": "x"}), "access": {"namespaces": ["bank-*"]}}
    goldlink.declare(modules, vault)
    cluster.create_namespace(NAMESPACE)
    model = goldlink.source("model", {"weights": ""})
    os.truncate(cluster.machine.root / SOURCES.lstrip("/") / "model" / "weights", MODEL)
    goldlink.declare(modules, vault, model, wait=False, node=SLOW)
    wanted = {"web": "node-modules", "train": "model", "intruder": "vault"}
    table = ("get", "nodecaches", "--all-namespaces")
    cluster.wait("the configuration", lambda: re.search(r"model .* Fetching", cluster.kubectl(*table)), 180)
    cluster.wait("the driver", lambda: registered(cluster))
    # Without a policy for DNS kubelet would complain that this cluster has none.
    cluster.apply(
        *(pods.pod(name, NAMESPACE, volumes={"deps": volume(of)}, dnsPolicy="Default") for name, of in wanted.items())
    )
    yield
    goldlink.declare()  # restarts the driver, which ends the wait
    cluster.delete("pods", "--all", namespace=NAMESPACE)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_the_page_shows_what_kubectl_shows(cluster: Cluster, scene: None) -> None:
    pods.wait_for(cluster, NAMESPACE, "web")
    try:
        cluster.wait("the events", lambda: all(re.search(said, events(cluster)) for said in EVENTS), 120)
    except AssertionError as error:
        error.add_note(events(cluster))
        raise
    table = ("get", "nodecaches", "--all-namespaces")
    cluster.wait("the caches", lambda: all(re.search(state, cluster.kubectl(*table)) for state in STATES))
    before, _, rest = PAGE.read_text().partition(SECTION)
    section, heading, after = rest.partition("\n## ")
    commands = [match["command"] for match in _BLOCK.finditer(section)]
    assert len(commands) >= 6
    printed = {command: shell(cluster, command) for command in commands}
    fresh = _BLOCK.sub(lambda match: f"```console\n$ {match['command']}\n{printed[match['command']]}```\n", section)
    (cluster.logs / PAGE.name).write_text(before + SECTION + fresh + heading + after)
    for match in _BLOCK.finditer(section):
        command = match["command"]
        assert lasting(match["output"]) == lasting(printed[command]), f"{command}:\n{printed[command]}"


def lasting(output: str) -> list[str]:
    """What must not change from one day to the next.

    Events of one second come in any order.
    """
    for pattern, word in _CHANGES:
        output = pattern.sub(word, output)
    return sorted(line.strip() for line in output.splitlines() if not _FOREIGN.search(line))


def events(cluster: Cluster) -> str:
    found = cluster.get("events", namespace=NAMESPACE)["items"]
    return "\n".join(f"{item['involvedObject']['name']} {item['reason']} {item['message']}" for item in found)


def shell(cluster: Cluster, command: str) -> str:
    """What a command line of the page prints."""
    environment = [f"KUBECONFIG={cluster.kubeconfig}", f"PATH={build('kubernetes')}:{os.environ['PATH']}"]
    text = cluster.machine.run(["env", *environment, "sh", "-c", command])
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
