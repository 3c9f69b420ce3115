from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from cachefetch.space import reclaimable

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024


def test_only_files_whose_every_link_goes_count(tmp_path: Path) -> None:
    root, outside = tmp_path / "trash", tmp_path / "outside"
    (root / "deep/er").mkdir(parents=True)
    outside.mkdir()
    base = reclaimable(root)
    (root / "alone").write_bytes(bytes(64 * KIB))
    (root / "deep/twin").write_bytes(bytes(32 * KIB))
    os.link(root / "deep/twin", root / "deep/er/twin")
    (root / "shared").write_bytes(bytes(128 * KIB))
    os.link(root / "shared", outside / "shared")
    (outside / "far").write_bytes(bytes(256 * KIB))
    (root / "link").symlink_to("../outside")  # short enough to need no block of its own
    assert reclaimable(root) - base == 96 * KIB


def test_it_is_what_the_disk_usage_falls_by(tmp_path: Path) -> None:
    root = tmp_path / "trash"
    for number in range(20):
        (root / f"{number}").mkdir(parents=True)
        (root / f"{number}/file").write_bytes(os.urandom(number * KIB))
        os.link(root / f"{number}/file", root / f"{number}/again")
    expected = sum(path.lstat().st_blocks * 512 for path in root.rglob("*") if path.name != "again")
    assert reclaimable(root) == expected


def test_what_is_not_there_any_more_is_nothing(tmp_path: Path) -> None:
    root = tmp_path / "trash"
    root.mkdir()
    shutil.rmtree(root)
    assert reclaimable(root) == 0
