from __future__ import annotations

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from cachefetch.errors import Busy, Precondition
from csi.disks import files
from csi.disks.files import DiskFiles
from csi.disks.ids import disk_id
from csi.disks.model import Disk
from tests.csi.disks.kit import writer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def disk_files(tmp_path: Path) -> DiskFiles:
    return DiskFiles.open(tmp_path / "disks")


def add(disk_files: DiskFiles, name: str) -> Disk:
    disk = Disk(id=disk_id(name), name=name, size=1, created=1.5, staged=(writer(),), settings={"pin": "true"})
    with disk_files.making() as place:
        assert disk_files.disks.add(place, disk)
    return disk


def test_record_is_read_as_it_was_written(disk_files: DiskFiles) -> None:
    disk = add(disk_files, "one")
    assert disk_files.disks.read(disk.id) == disk
    assert list(disk_files.disks.all()) == [disk]
    changed = msgspec.structs.replace(disk, size=2)
    disk_files.disks.write(changed)
    assert disk_files.disks.read(disk.id) == changed
    assert {path.name for path in disk_files.disks.place(disk.id).iterdir()} == {"record.json", "lock"}
    assert list(disk_files.staging.iterdir()) == []


def test_first_of_two_appears_and_the_second_leaves_nothing(disk_files: DiskFiles) -> None:
    disk = add(disk_files, "one")
    with disk_files.making() as place:
        (place / "image").write_text("x")
        assert not disk_files.disks.add(place, msgspec.structs.replace(disk, size=9))
    assert disk_files.disks.read(disk.id) == disk
    assert list(disk_files.staging.iterdir()) == []


@pytest.mark.parametrize(
    "id_", ["", ".", "..", "../disks", "disk-" + "0" * 40, "disk-" + "0" * 39 + "/", "snap-" + "0" * 40]
)
def test_any_text_is_fine_as_an_id(disk_files: DiskFiles, id_: str) -> None:
    assert disk_files.disks.read(id_) is None
    with disk_files.disks.lock(id_) as there:
        assert there is False


def test_one_at_a_time_changes_a_record(disk_files: DiskFiles) -> None:
    """No update is lost, whoever comes when."""
    disk = add(disk_files, "one")

    def grow(_number: int) -> None:
        with DiskFiles(disk_files.root).disks.lock(disk.id, patience=30):
            now = disk_files.disks.read(disk.id)
            assert now
            disk_files.disks.write(msgspec.structs.replace(now, size=now.size + 1))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(grow, range(60)))
    now = disk_files.disks.read(disk.id)
    assert now
    assert now.size == 61


def test_who_waits_too_long_is_told_so(disk_files: DiskFiles) -> None:
    disk = add(disk_files, "one")
    with disk_files.disks.lock(disk.id), pytest.raises(Busy, match=disk.id), disk_files.disks.lock(disk.id, 0.05):
        pass


def test_lock_of_a_disk_that_went_meanwhile_is_no_lock(disk_files: DiskFiles) -> None:
    disk = add(disk_files, "one")
    waiting = threading.Event()
    found: list[bool] = []

    def wait() -> None:
        waiting.set()
        with disk_files.disks.lock(disk.id, 10) as there:
            found.append(there)

    thread = threading.Thread(target=wait)
    with disk_files.disks.lock(disk.id):
        thread.start()
        waiting.wait()
        disk_files.discard(disk_files.disks.place(disk.id))
    thread.join()
    assert found == [False]


def test_error_in_the_body_is_not_taken_for_a_missing_lock(disk_files: DiskFiles) -> None:
    disk = add(disk_files, "one")
    for error in (FileNotFoundError, BlockingIOError):
        with pytest.raises(error), disk_files.disks.lock(disk.id):
            raise error
        with pytest.raises(error), files.using(disk_files.disks.place(disk.id)):
            raise error


def test_users_keep_out_who_drops_and_the_other_way_round(disk_files: DiskFiles) -> None:
    place = disk_files.disks.place(add(disk_files, "one").id)
    with files.using(place) as one, files.using(place) as other, files.dropping(place) as alone:
        assert (one, other, alone) == (True, True, False)
    with files.dropping(place) as alone:
        assert alone
        disk_files.discard(place)
    with files.using(place) as there, files.dropping(place) as alone:
        assert (there, alone) == (False, False)


@pytest.mark.parametrize("left", [(), ("lock",), ("place",), ("lock", "place")])
def test_what_a_killed_process_left_is_an_orphan_and_work_under_way_is_not(
    disk_files: DiskFiles, left: tuple[str, ...]
) -> None:
    """Whatever the moment of the kill: before the directory, in it, or after."""
    place = disk_files.staging / "0f"
    if "lock" in left:
        place.with_suffix(".lock").touch()
    if "place" in left:
        place.mkdir()
        (place / "image").touch()
    with disk_files.making() as live:
        (live / "image").write_text("x")
        assert disk_files.discard_orphans() == bool(left)
        assert {path.stem for path in disk_files.staging.iterdir()} == {live.name}
        assert (live / "image").exists()
    assert list(disk_files.staging.iterdir()) == []


def test_no_work_is_lost_to_a_sweep_at_the_same_time(disk_files: DiskFiles) -> None:
    stop = threading.Event()

    def sweep() -> int:
        swept = 0
        while not stop.is_set():
            swept += disk_files.discard_orphans()
        return swept

    with ThreadPoolExecutor(2) as pool:
        sweeper = pool.submit(sweep)
        for number in range(300):
            with disk_files.making() as place:
                (place / "image").write_text(str(number))
                assert (place / "image").read_text() == str(number)
        stop.set()
        sweeper.result()


@pytest.mark.root
def test_node_that_comes_first_leaves_the_directories_to_the_owner(tmp_path: Path) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    os.chown(root, 1000, 1001)
    disk_files = DiskFiles.open(root)
    for place in (disk_files.sealed, disk_files.nodes, disk_files.trash):
        assert (place.stat().st_uid, place.stat().st_gid) == (1000, 1001)


@pytest.mark.root
def test_what_was_given_away_is_not_taken_back_for_root(tmp_path: Path) -> None:
    """The controller's container may give the directories to its user while a node, which runs as root, starts."""
    root = tmp_path / "shared"
    DiskFiles.open(root)
    os.chown(root / "disks", 1000, 1001)
    disk_files = DiskFiles.open(root)
    assert (disk_files.root / "disks").stat().st_uid == 1000
    assert disk_files.sealed.stat().st_uid == 0


@pytest.mark.root
def test_nothing_outside_is_given_to_the_owner(tmp_path: Path) -> None:
    """Who owns the directory may put a symlink into it, and nodes run as root."""
    root, outside = tmp_path / "shared", tmp_path / "outside"
    for place in (root, outside):
        place.mkdir()
    os.chown(root, 1000, 1001)
    (root / "trash").symlink_to(outside)
    DiskFiles.open(root)
    assert outside.stat().st_uid == 0


@pytest.mark.root
def test_directory_of_somebody_else_is_refused_with_the_remedy() -> None:
    with tempfile.TemporaryDirectory() as outside:  # everybody may look into it, other than below pytest's own
        Path(outside).chmod(0o755)
        root = Path(outside, "shared")
        root.mkdir(mode=0o755)
        DiskFiles.open(root)
        with _user(65532), pytest.raises(Precondition, match=rf"{root} is not for user 65532 \({root}/disks: Perm"):
            DiskFiles.open(root)


@contextmanager
def _user(uid: int) -> Iterator[None]:
    """Act for another user during the block."""
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
