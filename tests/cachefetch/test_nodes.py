"""Which caches a node holds is decided by its labels alone, and what is refused says why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cachefetch.nodes import Node, unheld
from tests.cachefetch.fetching import cache

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"))
SSD = replace(cache("model"), node_selector={"disk": "ssd", "gpu": "a100"})


@given(LABELS, LABELS)
def test_each_label_of_the_selector_must_be_there_with_that_value(
    selector: dict[str, str], labels: dict[str, str]
) -> None:
    held = not unheld(replace(cache(), node_selector=selector), Node("node-1", labels))
    assert held == (labels | selector == labels)


@pytest.mark.parametrize("node", [None, Node("node-1"), Node("node-1", {})])
def test_a_cache_without_a_selector_is_held_by_every_node(node: Node | None) -> None:
    assert not unheld(cache(), node)


def test_without_a_cluster_there_are_no_labels_to_ask_for() -> None:
    assert not unheld(SSD, None)


def test_until_the_labels_are_known_a_selector_matches_nothing() -> None:
    reason = unheld(SSD, Node("node-1"))
    assert reason == (
        "cache 'model' is for nodes with disk=ssd,gpu=a100, and the API server has not told the labels of node "
        "'node-1' yet: it is asked again"
    )


def test_the_reason_names_cache_selector_node_and_what_is_missing() -> None:
    reason = unheld(SSD, Node("node-1", {"disk": "ssd", "gpu": "t4"}))
    assert reason.startswith("cache 'model' is for nodes with disk=ssd,gpu=a100, and node 'node-1' has not gpu=a100: ")
