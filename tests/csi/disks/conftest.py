"""Clusters for tests; each must leave no mount, no loop device and no INTERNAL error behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.csi.disks.cluster import Cluster, loops_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Starts clusters: `cluster(nodes=3)`."""
    started: list[Cluster] = []

    def start(**given: Any) -> Cluster:
        started.append(Cluster(tmp_path, **given))
        return started[-1]

    yield start
    left = [mount for one in started for mount in one.mounts()]
    for one in started:
        one.close()
    assert left == []
    assert loops_below(tmp_path) == []
    for one in started:
        assert "code=INTERNAL" not in one.log()
        assert "Traceback" not in one.log()
