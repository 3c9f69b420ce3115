"""How much memory the whole fetcher takes for versions of many files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cachefetch.fakes import memory
from tests.fetcher.process import FetcherProcess
from tests.servers.manyfiles import write_archive

if TYPE_CHECKING:
    from tests.servers.nginx import Nginx

pytestmark = pytest.mark.root
FEW, MANY = 1_000, 100_000
BOUND = 200 << 10
"""KiB, for a million files."""

# As the command itself, which then says how much memory it had at its peak (proc_pid_status(5)).
_COMMAND = r"""
import re, sys
from pathlib import Path
from cachefetch.__main__ import main
status = main(sys.argv[1:])
print(re.search("VmHWM:[ \t]+([0-9]+)", Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""


def peak(nginx: Nginx, count: int) -> int:
    """KiB of a refresh of that many new files beside as many old ones, which is when most is to be remembered."""
    with memory() as place:
        fetcher = FetcherProcess(Path(place))
        for version in range(2):
            write_archive(nginx.root / f"{version}.tar.zst", count, mtime=version + 1)
            fetcher.declare(many={"type": "http", "url": f"{nginx.url}/{version}.tar.zst"})
            _, _, _, *arguments = fetcher.command("refresh")
            command = [sys.executable, "-c", _COMMAND, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
            assert re.search(rf"many: changed, version [0-9a-f]+, {count:,} files", done.stdout)
        return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_files_fit_the_bound_because_files_take_no_memory(nginx: Nginx) -> None:
    """Not with a million, which would take minutes; what grows with them would show at a share of them.

    What grows up to a bound of its own is the cache of pages of two indexes, 16 MiB each.
    """
    few, many = peak(nginx, FEW), peak(nginx, MANY)
    assert many <= few + (40 << 10)
    assert many <= BOUND // 2
