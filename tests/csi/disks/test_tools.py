from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from cachefetch.config import PRIVATE_LEAST
from cachefetch.errors import Busy, OutOfSpace, Precondition
from csi.disks import ext4, tools
from csi.disks.errors import ToolFailed
from csi.disks.jobs import Task
from tests.cachefetch.conftest import image, mount

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ("image", "mount")
MiB = 1 << 20


@pytest.fixture
def task() -> Task:
    return Task(threading.Event())


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_tool_is_named_with_its_package() -> None:
    tools.check_tools()
    with pytest.raises(Precondition, match=r"mkfs\.nothing is missing: install the package nothing-utils"):
        tools.check_tools({**tools.PACKAGES, "mkfs.nothing": "nothing-utils"})


def test_same_tree_gives_the_same_bytes_wherever_and_however_often(tmp_path: Path, task: Task) -> None:
    """Not the place, the link counts, access times, owners or extended attributes; only names, content, mode, mtime."""
    tree = tmp_path / "tree"
    (tree / "d" / "e").mkdir(parents=True)
    for number in range(50):
        (tree / "d" / f"f{number}").write_bytes(bytes((number,)) * number * 300)
    os.utime(tree / "d" / "f1", ns=(0, -631_054_554_876_543_211))
    os.utime(tree / "d" / "f2", ns=(0, 7_258_118_400_000_000_001))
    (tree / "link").symlink_to("/etc")
    for place in (tree / "d" / "e", tree / "d", tree):
        os.utime(place, ns=(0, 10**18))
    other = tmp_path / "elsewhere" / "deeper"
    shutil.copytree(tree, other, symlinks=True)
    (tmp_path / "hardlink").hardlink_to(tree / "d" / "f3")
    os.chown(other / "d" / "f4", 12, 34)
    os.setxattr(other / "d" / "f5", "user.note", b"x")
    for number, place in enumerate((tree, tree, other)):
        tools.make_erofs(place, tmp_path / f"{number}.erofs", task)
    assert len({sha(tmp_path / f"{number}.erofs") for number in range(3)}) == 1
    os.utime(other / "d" / "f6", ns=(0, 1))
    tools.make_erofs(other, tmp_path / "changed", task)
    assert sha(tmp_path / "changed") != sha(tmp_path / "0.erofs")


def test_ext4_is_made_mended_and_grown(tmp_path: Path, task: Task) -> None:
    file = tmp_path / "image"
    file.touch()
    os.truncate(file, 3 * MiB + 5)
    tools.make_ext4(file, task)
    before = ext4.read_head(file)
    assert before
    assert before.blocks == 3 * MiB // before.block_size
    os.truncate(file, 9 * MiB)
    tools.mend_ext4(file, task)
    tools.grow_ext4(file, task)
    after = ext4.read_head(file)
    assert after
    assert after.blocks * after.block_size == 9 * MiB


@pytest.mark.root
def test_a_new_disk_is_for_every_user(mount: Callable[..., Path], tmp_path: Path, task: Task) -> None:
    """Pods of any user fill disks: kubelet gives no owner to files of this driver (`fsGroupPolicy: None`)."""
    image = tmp_path / "image"
    with image.open("xb") as file:
        file.truncate(16 * MiB)
    tools.make_ext4(image, task)
    assert subprocess.run(["e2fsck", "-f", "-n", image], check=False, capture_output=True).returncode == 0
    place = mount("disk", "-o", "loop", image)
    assert (place.stat().st_uid, place.stat().st_mode & 0o7777) == (0, 0o777)


def test_a_scratch_ext4_is_small_and_has_no_journal(tmp_path: Path, task: Task) -> None:
    """The least that a configuration allows is enough, and a large one costs next to nothing."""
    for size in (PRIVATE_LEAST, 100 << 30):
        file = tmp_path / "image"
        file.unlink(missing_ok=True)
        file.touch()
        os.truncate(file, size)
        tools.make_scratch_ext4(file, task)
        assert file.stat().st_blocks * 512 < 8 * MiB
        head = subprocess.run(["dumpe2fs", "-h", file], check=True, capture_output=True, text=True).stdout
        assert "has_journal" not in head
        assert re.search(r"Errors behavior: +Remount read-only", head)
        about = dict(re.findall(r"^([^:]+): +(\d+)$", head, re.MULTILINE))
        assert int(about["Inode count"]) >= size // 8192 * 0.9
        assert int(about["Free blocks"]) * int(about["Block size"]) > size * 0.9


def test_what_needs_a_person_is_said(tmp_path: Path, task: Task) -> None:
    file = tmp_path / "image"
    file.write_bytes(os.urandom(MiB))
    with pytest.raises(Precondition, match="damaged"):
        tools.mend_ext4(file, task)
    with pytest.raises(ToolFailed, match="resize2fs"):
        tools.grow_ext4(file, task)
    with pytest.raises(ToolFailed, match=r"mkfs\.erofs ended with status"):
        tools.make_erofs(tmp_path / "missing", tmp_path / "out", task)


@pytest.mark.root
def test_full_disk_is_out_of_space(image: Callable[..., Path], tmp_path: Path, task: Task) -> None:
    small = image("small", 8, "mkfs.ext4", "-qF")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(12 * MiB))
    with pytest.raises(OutOfSpace):
        tools.make_erofs(tree, small / "out", task)


def test_stop_ends_the_program(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hole").touch()
    os.truncate(tree / "hole", 40 << 30)  # mkfs.erofs writes all of it, which takes longer than anybody waits
    with pytest.raises(Busy, match="stops"):
        tools.make_erofs(tree, tmp_path / "out", Task(stopping))
