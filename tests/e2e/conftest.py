"""One cluster for all tests of this directory; each test has a namespace of its own."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from tests.e2e import driver_image
from tests.e2e.cluster import Cluster, build
from tests.e2e.goldlink import Goldlink, installed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Kubernetes, ready for pods."""
    with Cluster(build("kubernetes")) as running:
        yield running


@pytest.fixture(scope="session")
def driver(cluster: Cluster) -> str:
    """The driver's image, as the Dockerfile makes it, on the node; its name."""
    archive = cluster.machine.directory / "driver.tar"
    driver_image.build(archive)
    cluster.import_image(archive)
    archive.unlink()
    return driver_image.NAME


@pytest.fixture(scope="session")
def goldlink(cluster: Cluster, driver: str) -> Iterator[Goldlink]:
    """The chart, installed without caches."""
    with installed(cluster, driver) as release:
        yield release


@pytest.fixture
def namespace(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """A namespace of this test's own; its pods are gone afterwards, and the rest soon."""
    test = request.node.name.partition("[")[0].removeprefix("test_").replace("_", "-")[:50].strip("-")
    name = f"{test}-{secrets.token_hex(2)}"  # the one of the same test before may still be ending
    cluster.create_namespace(name)
    yield name
    cluster.delete("pods", "--all", namespace=name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
