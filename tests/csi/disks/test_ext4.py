from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from csi.disks import ext4

if TYPE_CHECKING:
    from pathlib import Path

MiB = 1 << 20


@pytest.mark.parametrize(
    "options",
    [
        ("-b", "1024"),
        ("-b", "4096"),
        ("-b", "4096", "-O", "^64bit"),
        (
            "-b",
            "65536",
        ),
    ],
)
def test_superblock_says_what_mkfs_made(tmp_path: Path, options: tuple[str, ...]) -> None:
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 64 * MiB)
    done = subprocess.run(["mkfs.ext4", "-qF", *options, image], check=True, capture_output=True)
    assert done.returncode == 0
    head = ext4.read_head(image)
    assert head == ext4.Head(64 * MiB // int(options[1]), int(options[1]), errors=False, dirty=False)


@pytest.mark.parametrize("size", [0, 100, 1024, 2047, 2048, 5000])
def test_anything_else_has_no_superblock(tmp_path: Path, size: int) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(size))
    assert ext4.read_head(image) is None
