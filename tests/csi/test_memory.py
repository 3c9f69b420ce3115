"""The driver stays small, however large a version is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cachefetch import manifest
from cachefetch.model import Entry, EntryType, Totals
from tests.csi.driver import POOL, POOLED, Driver, until

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES, PER_DIRECTORY, SAME = 1_000_000, 1000, 8000
"""A million files in a thousand directories; as many share one inode as link trees leave room for (ext4: 65,000)."""
MIB_MOST = 80
_MTIME = 1_700_000_000 * 10**9
_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """A driver whose files are not checked one by one at the end, but are deleted: there are millions."""
    driver = Driver(tmp_path)
    yield driver
    driver.close()
    subprocess.run(["rm", "-rf", driver.state], check=True)


def build(driver: Driver) -> str:
    """Make a version of a million files as cheaply as the file system allows; returns its id.

    It is a real one, as the recheck of the driver finds: every file is as the manifest says.
    """
    place = driver.root / "version"
    tree = place / "tree"
    tree.mkdir(parents=True)
    entries = []
    for number in range(FILES // PER_DIRECTORY):
        name = b"%06d" % number
        directory = os.path.join(os.fsencode(tree), name)  # noqa: PTH118  (a million of them)
        os.mkdir(directory, 0o755)  # noqa: PTH102
        entries.append(Entry(name, EntryType.DIRECTORY, 0o755, _MTIME))
        if number % (SAME // PER_DIRECTORY) == 0:
            first = os.path.join(directory, b"0000")  # noqa: PTH118
            os.close(os.open(first, os.O_CREAT | os.O_WRONLY, 0o444))
            os.utime(first, ns=(_MTIME, _MTIME))
        for file in range(PER_DIRECTORY):
            path = b"%b/%04d" % (directory, file)
            if path != first:
                os.link(first, path)
            entries.append(Entry(b"%b/%04d" % (name, file), EntryType.FILE, 0o444, _MTIME, 0, _EMPTY))
        os.utime(directory, ns=(_MTIME, _MTIME))
    with (place / "manifest").open("xb") as out:
        version_id = manifest.write(entries, Totals(len(entries), FILES, 0), out)
    versions = driver.state / "caches" / "deps" / "versions"
    versions.mkdir(parents=True)
    place.rename(versions / version_id)
    driver.store.set_current("deps", version_id)
    return version_id


def peak_mib(pid: int) -> float:
    """The most that was ever resident (proc_pid_status(5), VmHWM)."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_version_of_a_million_files_needs_no_memory(driver: Driver) -> None:
    """Publishing it with and without a ready tree, statistics, the recheck of all its files, unpublishing."""
    version_id = build(driver)
    driver.config.write_text(POOLED.replace(f"pool: {POOL}", "pool: 1"))
    driver.start()
    assert driver.process
    for volume_id in ("v", "w"):
        target = driver.publish(volume_id)
        assert (target / "000999" / "0999").exists()
        assert driver.client.stats(volume_id, target).usage[1].total >= FILES
    until(driver.ready, seconds=200)
    slotted = driver.publish("x")
    assert (slotted / "000999" / "0999").exists()
    until((driver.state / "run" / "boot-id").exists, seconds=200)
    assert driver.store.has("deps", version_id)
    for volume_id in ("v", "w", "x"):
        driver.client.unpublish(volume_id, driver.target(volume_id))
    peak = peak_mib(driver.process.pid)
    assert peak < MIB_MOST, f"{peak:.1f} MiB"
