"""Disk space and inodes: what one more volume costs, and what one more version costs. Counted, not estimated."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.trees import Tree, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.samples import Row
    from cachefetch.store import Store
    from tests.csi.driver import Driver

_BLOCK = 512  # unit of st_blocks (stat(2))


FIRST, ADDITIONAL = "with the pool's tree", "additional"


def volumes(driver: Driver, cache: str) -> Iterator[Row]:
    """What the two volumes of a cache whose pool is 1 own: what their statistics say, and what counting finds."""
    golden = driver.store.tree(cache, driver.store.current(cache) or "")
    whole = set(_inodes(golden))
    directories = sum(1 for _ in os.walk(golden))
    for kind in (FIRST, ADDITIONAL):
        target = driver.publish(f"cost-{kind[:4]}", cache=cache)
        own = set(_inodes(target)) - whole
        usage = driver.client.stats(f"cost-{kind[:4]}", target).usage
        golden_bytes, own_bytes = (sum(size for _, size in each) for each in (whole, own))
        yield {
            "cache": cache,
            "volume": kind,
            "golden_inodes": len(whole),
            "golden_bytes": golden_bytes,
            "own_inodes": len(own),
            "directories": directories,
            "own_bytes": own_bytes,
            "bytes_percent": round(100 * own_bytes / golden_bytes, 3),
            "reported_inodes": usage[1].used,
            "reported_bytes": usage[0].used,
        }


def versions(store: Store, cache: str, files: int) -> Iterator[Row]:
    """What each version costs beside the one before, for different shares of changed files."""
    before = put(store, cache, Tree(files))
    for number, share in enumerate((0.01, 0.1, 1.0), start=1):
        after = put(store, cache, Tree(files, number, share))
        old, new = set(_inodes(before)), set(_inodes(after))
        yield {
            "files": files,
            "changed_percent": share * 100,
            "own_inodes": len(new - old),
            "own_bytes": sum(size for _, size in new - old),
            "bytes_percent": round(100 * sum(size for _, size in new - old) / sum(size for _, size in new), 2),
            "inodes_percent": round(100 * len(new - old) / len(new), 2),
        }
        before = put(store, cache, Tree(files))  # the next one is compared with version 0 again


def _inodes(tree: Path) -> Iterator[tuple[int, int]]:
    """Inode and disk space of the tree and everything below it."""
    for directory, _, names in os.walk(tree):
        for path in (directory, *(f"{directory}/{name}" for name in names)):
            status = os.lstat(path)
            yield status.st_ino, status.st_blocks * _BLOCK
