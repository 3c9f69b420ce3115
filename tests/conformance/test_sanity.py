"""csi-sanity, the whole suite of the CSI project, against the real driver: nothing fails and nothing is skipped.

Its reports stay in build/sanity: the log with every spec, the JUnit file, and what the driver logged meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import mounts_below
from tests.processes import ROOT, go_tool, running, tail

if TYPE_CHECKING:
    from collections.abc import Iterator

CSI_SANITY = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v5.5.0"
EXPECTED = {"passed": 95, "pending": 1}
"""Specs of csi-test v5.5.0; it marks "pagination should detect volumes added between pages" as pending itself."""
SPEC = "[It]"
"""How Ginkgo's JUnit file marks specs among set-up steps."""
VOLUME_SIZE = 16 << 20
EXPANDED_SIZE = 32 << 20
MAX_VOLUMES = 4
"""The suite attaches as many volumes to the node, and one more."""
MUTABLE_PARAMETERS = "prefetch: always\n"
"""YAML; a key that ControllerModifyVolume accepts."""
REPORTS = ROOT / "build" / "sanity"


@dataclass(frozen=True)
class Driver:
    """Starts the roles of a driver with one disk directory, each with a state directory of its own."""

    directory: Path
    name: str
    running: ExitStack

    def start(self, role: str, *more: str) -> str:
        """The endpoint of a new process with that role, as soon as it serves."""
        state, config = self.directory / f"state-{role}", self.directory / "caches.yaml"
        config.write_text("caches: []\n")
        state.mkdir()
        socket = self.directory / role / "csi.sock"
        command = [sys.executable, "-m", "csi", role, "--endpoint", f"unix://{socket}", "--state-dir", str(state)]
        command += ["--config", str(config), "--disk-dir", str(self.directory / "disks"), *more]
        log = REPORTS / f"{self.name}-{role}.log"
        log.unlink(missing_ok=True)
        self.running.enter_context(running(command, log=log, ready=socket.exists))
        return f"unix://{socket}"


@pytest.fixture(scope="module")
def csi_sanity() -> Path:
    return go_tool(CSI_SANITY)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory below which the driver leaves no mount and no loop device; what it does leave is taken down here."""
    yield tmp_path
    mounts, loops = mounts_below(tmp_path), loops_below(tmp_path)
    for mount in reversed(mounts):
        subprocess.run(["umount", mount], check=True)
    for loop in loops_below(tmp_path):  # many went with their mount
        subprocess.run(["losetup", "--detach", loop], check=True)
    assert (mounts, loops) == ([], []), "the driver left mounts or loop devices"


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("roles", ["all", "split"])
def test_every_spec_of_csi_sanity_passes(roles: str, csi_sanity: Path, directory: Path) -> None:
    REPORTS.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        driver = Driver(directory, roles, stack)
        node = ("--node-id", "node-1", "--max-volumes", str(MAX_VOLUMES))
        if roles == "all":
            endpoints = [f"--csi.endpoint={driver.start('all', *node)}"]
        else:
            endpoints = [
                f"--csi.endpoint={driver.start('node', *node)}",
                f"--csi.controllerendpoint={driver.start('controller')}",
            ]
        report = sanity(csi_sanity, endpoints, directory, roles)
    cases = list(ET.parse(report).iter("testcase"))
    states = Counter(case.get("status", "") for case in cases if case.get("name", "").startswith(SPEC))
    bad = [f"{case.get('status')}: {case.get('name')}" for case in cases if case.get("status") not in EXPECTED]
    assert not bad, f"{dict(states)}; see {report.with_suffix('.log')}\n" + "\n".join(bad)
    assert states == EXPECTED


def loops_below(directory: Path) -> list[str]:
    """Loop devices whose backing file lies below the directory (also when it is deleted already)."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return [f"/dev/{file.parts[3]}" for file in backing if file.read_text().startswith(f"{directory}/")]


def sanity(program: Path, endpoints: list[str], directory: Path, name: str) -> Path:
    """Run the whole suite; the JUnit file it wrote, beside its log.

    `mountdir` and `stagingdir` are made and removed by the suite and must not exist before.
    """
    mutable = directory / "mutable.yaml"
    mutable.write_text(MUTABLE_PARAMETERS)
    report, log = REPORTS / f"{name}.xml", REPORTS / f"{name}.log"
    report.unlink(missing_ok=True)
    options = [
        f"--csi.mountdir={directory / 'mount'}",
        f"--csi.stagingdir={directory / 'staging'}",
        f"--csi.testvolumesize={VOLUME_SIZE}",
        f"--csi.testvolumeexpandsize={EXPANDED_SIZE}",
        f"--csi.testvolumemutableparameters={mutable}",
        "--csi.testnodevolumeattachlimit",
        f"--ginkgo.junit-report={report}",
        "--ginkgo.no-color",
        "--ginkgo.v",
        "--ginkgo.timeout=15m",
    ]
    with log.open("wb") as output:
        subprocess.run([program, *endpoints, *options], check=False, stdout=output, stderr=output, timeout=1000)
    assert report.exists(), f"csi-sanity wrote no report:\n{tail(log)}"
    return report
