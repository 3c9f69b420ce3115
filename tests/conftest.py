"""What every test must leave behind: nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a shell runs in the background ignores SIGINT, and hands that on to what it starts; tests send it to commands.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something of the machine, not of what is tested.
settings.register_profile("goldlink", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("goldlink")


def mounts_below(directory: Path) -> list[str]:
    """Mount points of this process below the directory, as /proc/self/mountinfo writes them (proc(5))."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{directory}/")]


@pytest.fixture(autouse=True)
def _no_mount_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A mount that outlives its test would keep its files, and its loop device, for ever.

    Looks only at tests that have a directory of their own, and after every other fixture of theirs is done.
    """
    directory: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if directory is not None:
        assert mounts_below(directory) == []
