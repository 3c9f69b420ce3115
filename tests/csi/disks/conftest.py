"""Clusters for tests; each must leave no mount, no loop device and no INTERNAL error behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.csi.disks.cluster import Cluster, loops_below
from tests.csi.disks.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Starts clusters: `cluster(nodes=3)`."""
    started: list[Cluster] = []
    root = tmp_path / "cluster"
    root.mkdir()

    def start(**given: Any) -> Cluster:
        started.append(Cluster(root, **given))
        return started[-1]

    yield start
    left = [mount for one in started for mount in one.mounts()]
    for one in started:
        one.close()
    assert left == []
    assert loops_below(root) == []
    for one in started:
        assert "code=INTERNAL" not in one.log()
        assert "Traceback" not in one.log()


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    """The parts of a controller; afterwards nothing is half-made."""
    kit = Kit(tmp_path)
    yield kit
    kit.jobs.close()
    assert list(kit.files.staging.iterdir()) == []
