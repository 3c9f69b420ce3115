from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from cachefetch import trash
from tests.cachefetch.fakes import below

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def bin_(tmp_path: Path) -> Path:
    """The trash."""
    place = tmp_path / "trash"
    place.mkdir()
    return place


def test_everything_goes_whatever_its_type_or_mode(bin_: Path) -> None:
    (bin_ / "file").write_text("x")
    (bin_ / "link").symlink_to("file")
    os.mkfifo(bin_ / "fifo")
    (bin_ / "a" / "b" / "c").mkdir(parents=True)
    (bin_ / "a" / "b" / "file").touch(mode=0)
    (bin_ / os.fsdecode(b"\xff\n")).mkdir(mode=0)
    assert trash.empty(bin_) == 5
    assert below(bin_) == set()
    assert trash.empty(bin_) == 0


def test_symlinks_are_not_followed(tmp_path: Path, bin_: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    (outside / "file").touch()
    (bin_ / "item").mkdir()
    (bin_ / "item" / "link").symlink_to(outside, target_is_directory=True)
    (bin_ / "direct").symlink_to(outside, target_is_directory=True)
    trash.empty(bin_)
    assert below(outside) == {"kept", "file"}
    (tmp_path / "bin").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        trash.empty(tmp_path / "bin")


def test_an_inode_that_is_shared_keeps_mode_owner_and_times(tmp_path: Path, bin_: Path) -> None:
    golden = tmp_path / "golden"
    golden.write_text("content")
    golden.chmod(0o444)
    os.utime(golden, ns=(1, 1))
    os.chown(golden, 3, 4)
    (bin_ / "tree").mkdir()
    (bin_ / "tree" / "file").hardlink_to(golden)
    (bin_ / "tree").chmod(0o555)
    trash.empty(bin_)
    status = golden.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime_ns) == (0o444, 3, 4, 1)
    assert golden.read_text() == "content"


def test_a_tree_deeper_than_a_path_can_be_long_goes(bin_: Path) -> None:
    """A pod can make one in its private view, by relative names."""
    fd = os.open(bin_, os.O_RDONLY)
    for number in range(300):
        name = f"{number}-".ljust(120, "ä")
        os.mkdir(name, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below_fd = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below_fd
    os.close(fd)
    trash.empty(bin_)
    assert list(bin_.iterdir()) == []


def test_many_levels_and_wide_directories_exhaust_nothing(bin_: Path) -> None:
    deep = bin_ / "item"
    deep.mkdir()
    fd = os.open(deep, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=fd)
        below_fd = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below_fd
    os.close(fd)
    for number in range(500):
        (bin_ / "item" / f"wide{number}").mkdir()
    assert trash.empty(bin_) == 1
    assert list(bin_.iterdir()) == []


def test_several_may_empty_it_at_once(bin_: Path) -> None:
    for item in range(20):
        for directory in range(10):
            place = bin_ / f"{item}" / f"{directory}" / "x"
            place.mkdir(parents=True)
            for number in range(5):
                (place / f"{number}").touch()
    failures: list[BaseException] = []

    def empty() -> None:
        try:
            trash.empty(bin_)
        except BaseException as error:  # noqa: BLE001  (told to the main thread)
            failures.append(error)

    threads = [threading.Thread(target=empty) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert below(bin_) == set()


@pytest.mark.root
def test_one_item_that_cannot_go_does_not_keep_the_others(bin_: Path, mount: Callable[..., Path]) -> None:
    for number in range(10):
        (bin_ / f"{number}" / "x").mkdir(parents=True)
    mount("trash/5/x/mounted", "-t", "tmpfs", "tmpfs").joinpath("file").touch()
    with pytest.raises(OSError, match="busy"):
        trash.empty(bin_)
    assert {path.split("/")[0] for path in below(bin_)} == {"5"}


def test_it_ends_after_the_item_at_hand_when_told_to_stop(bin_: Path) -> None:
    for number in range(5):
        (bin_ / f"{number}" / "x").mkdir(parents=True)
    answers = iter([False, False, True])
    assert trash.empty(bin_, stopping=lambda: next(answers)) == 2
    assert len(list(bin_.iterdir())) == 3


@pytest.mark.root
def test_an_immutable_file_is_an_error_that_names_it(bin_: Path) -> None:
    (bin_ / "item").mkdir()
    file = bin_ / "item" / "file"
    file.touch()
    subprocess.run(["chattr", "+i", file], check=True)
    try:
        with pytest.raises(PermissionError, match="file"):
            trash.empty(bin_)
    finally:
        subprocess.run(["chattr", "-i", file], check=True)
    trash.empty(bin_)
    assert below(bin_) == set()
