"""The release before this one: the code and the chart as they were before what is on nodes' disks changed last."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NAME = "localhost/goldlink:earlier"
_FORMAT = "cachefetch/records.py"
"""Has the form of the records of volumes, which outlive the driver that wrote them."""


def commit() -> str | None:
    """The last commit before the form of records changed; None when this checkout has no such history."""
    result = _git("rev-list", "--max-count=1", "HEAD", "--", _FORMAT)
    before = _git("rev-parse", "--verify", "--quiet", f"{result.stdout.decode().strip()}^{{commit}}^")
    return before.stdout.decode().strip() if result.returncode == before.returncode == 0 else None


def export(commit: str, directory: Path) -> None:
    """Write the files of a commit."""
    files = _git("archive", commit)
    assert files.returncode == 0, files.stderr.decode()
    subprocess.run(["tar", "--extract", f"--directory={directory}"], input=files.stdout, check=True)


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Git refuses checkouts of other users unless told that they are meant."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=False)
