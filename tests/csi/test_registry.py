from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.disks.errors import UnknownNode
from csi.registry import NodeEntry, NodeRegistry

if TYPE_CHECKING:
    from pathlib import Path


def test_node_is_known_once_it_announced_itself(tmp_path: Path) -> None:
    registry = NodeRegistry(tmp_path)
    with pytest.raises(UnknownNode, match="--disk-dir"):
        registry.get("n1")
    registry.announce(NodeEntry(id="n1"))
    registry.announce(NodeEntry(id="n1", max_volumes=4))
    assert NodeRegistry(tmp_path).get("n1") == NodeEntry(id="n1", max_volumes=4)
    assert registry.lock("n1").parent == tmp_path


@given(st.text(min_size=1, max_size=64))
def test_any_node_id_has_a_place_of_its_own(tmp_path_factory: pytest.TempPathFactory, node_id: str) -> None:
    registry = NodeRegistry(tmp_path_factory.getbasetemp())
    node_id = node_id.encode("utf-8", "replace").decode()
    registry.announce(NodeEntry(id=node_id, max_volumes=1))
    assert registry.get(node_id).id == node_id
    with pytest.raises(UnknownNode):
        registry.get(node_id + "/x")
