"""One cluster for all tests of this directory; each test has a namespace of its own."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import disks, driver_image
from tests.e2e.cluster import Cluster, build
from tests.e2e.goldlink import Goldlink, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.upstream import Outcome

    Ran = Callable[[Outcome], Outcome]

_RUNS = pytest.StashKey[list["Outcome"]]()


@pytest.fixture
def ran(request: pytest.FixtureRequest) -> Ran:
    """Takes what came of a run of the upstream suite, for the summary, and gives it back."""

    def remember(outcome: Outcome) -> Outcome:
        request.config.stash.setdefault(_RUNS, []).append(outcome)
        return outcome

    return remember


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks back at all scenarios comes after them."""
    items.sort(key=lambda item: item.path == Path(__file__).with_name("test_rbac.py"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in a few lines what was shown in the cluster: own scenarios, and specs of the upstream suite."""
    reports = terminalreporter.stats
    passed, failed, skipped = (
        {report.nodeid for state in states for report in reports.get(state, []) if _is_scenario(report)}
        for states in (("passed",), ("failed", "error"), ("skipped",))
    )
    runs = config.stash.get(_RUNS, [])
    if not (passed or failed or runs):
        return
    terminalreporter.section("Kubernetes")
    terminalreporter.line(f"own scenarios: {len(passed - failed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    for outcome in runs:
        for line in outcome.lines():
            terminalreporter.line(line)


def _is_scenario(report: object) -> bool:
    """Whether it is about a test with the cluster, other than a run of the upstream suite, which is told apart."""
    if not isinstance(report, pytest.TestReport) or "cluster" not in report.keywords:
        return False
    return "/test_upstream.py::" not in report.nodeid


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Kubernetes, ready for pods."""
    with Cluster(build("kubernetes")) as running:
        yield running


@pytest.fixture(scope="session")
def driver_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The driver's image, as the Dockerfile makes it."""
    archive = tmp_path_factory.mktemp("image") / "driver.tar"
    driver_image.build(archive)
    yield archive
    archive.unlink()


@pytest.fixture(scope="session")
def driver(cluster: Cluster, driver_archive: Path) -> str:
    """The driver's image, on the node; its name."""
    cluster.import_image(driver_archive)
    return driver_image.NAME


@pytest.fixture(scope="session")
def goldlink(cluster: Cluster, driver: str) -> Iterator[Goldlink]:
    """The chart, installed without caches."""
    with installed(cluster, driver) as release:
        yield release


@pytest.fixture(scope="session")
def snapshots(cluster: Cluster) -> None:
    """The cluster has VolumeSnapshots."""
    disks.install_snapshots(cluster)


@pytest.fixture
def namespace(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """A namespace of this test's own; its pods are gone afterwards, and the rest soon."""
    test = request.node.name.partition("[")[0].removeprefix("test_").replace("_", "-")[:50].strip("-")
    name = f"{test}-{secrets.token_hex(2)}"  # the one of the same test before may still be ending
    cluster.create_namespace(name)
    yield name
    cluster.delete("pods", "--all", namespace=name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
