from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import StoreUnfit
from cachefetch.fitness import check_fitness, filesystem_magic, remote_kind
from cachefetch.store import Store
from tests.cachefetch.conftest import run
from tests.cachefetch.fakes import below

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = ["caches", "locks", "pool", "run", "staging", "trash", "volumes"]


def test_a_local_directory_is_fit_and_probing_leaves_nothing_that_is_listed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state")
    for _ in range(3):
        Store.open(tmp_path / "state")
        check_fitness(tmp_path / "state")
    assert below(store.root) - set(PARTS) <= {"locks/probe"}
    assert store.caches() == []
    assert store.records.ids() == []


def test_several_processes_may_probe_while_another_empties_the_trash(tmp_path: Path) -> None:
    """The node plug-in and the fetcher start at the same moment."""
    probe = "import sys; from pathlib import Path; from cachefetch.store import Store; from cachefetch import trash\n"
    probe += "for _ in range(60): trash.empty(Store.open(Path(sys.argv[1])).trash)"
    command = [sys.executable, "-c", probe, str(tmp_path / "state")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert below(tmp_path / "state") - set(PARTS) <= {"locks/probe"}


@pytest.mark.root
@pytest.mark.parametrize("part", ["caches", "pool", "staging", "trash", "volumes"])
def test_a_second_mount_below_the_state_directory_is_refused_with_the_remedy(
    tmp_path: Path, mount: Callable[..., Path], part: str
) -> None:
    Store.open(tmp_path / "state")
    mount(f"state/{part}", "-t", "tmpfs", "tmpfs")
    with pytest.raises(StoreUnfit, match=rf"{part}.* mount the whole state directory {tmp_path}/state once"):
        Store.open(tmp_path / "state")


@pytest.mark.root
def test_a_second_mount_of_the_same_file_system_is_refused_too(tmp_path: Path, mount: Callable[..., Path]) -> None:
    """Two hostPath volumes of one disk: st_dev is equal."""
    Store.open(tmp_path / "state")
    (tmp_path / "elsewhere").mkdir()
    mount("state/volumes", "--bind", tmp_path / "elsewhere")
    with pytest.raises(StoreUnfit, match="two mounts"):
        Store.open(tmp_path / "state")
    assert below(tmp_path / "elsewhere") == set()


@pytest.mark.root
def test_a_file_system_that_refuses_hardlinks_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """FAT says EPERM; so does an append-only file of ext4, which every kernel has."""
    state = tmp_path / "state"
    Store.open(state)
    run("chattr", "+a", state / "locks" / "probe")
    try:
        with pytest.raises(StoreUnfit, match=r"has no hardlinks .* use a directory on ext4"):
            Store.open(state)
    finally:
        run("chattr", "-a", state / "locks" / "probe")
    assert below(state / "trash") == set()


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "megabytes", "mkfs"),
    [("ext4", 16, ["mkfs.ext4", "-q"]), ("xfs", 320, ["mkfs.xfs", "-q"]), ("btrfs", 128, ["mkfs.btrfs", "-q"])],
)
def test_the_usual_file_systems_are_fit(image: Callable[..., Path], name: str, megabytes: int, mkfs: list[str]) -> None:
    Store.open(image(name, megabytes, *mkfs) / "state")


@pytest.mark.root
def test_tmpfs_and_overlayfs_are_fit(tmp_path: Path, mount: Callable[..., Path]) -> None:
    place = mount("tmpfs", "-t", "tmpfs", "tmpfs")
    Store.open(place / "state")
    for name in ("lower", "upper", "work"):
        (place / name).mkdir()
    options = ",".join(f"{name}dir={place}/{name}" for name in ("lower", "upper", "work"))
    Store.open(mount("overlay", "-t", "overlay", "-o", options, "overlay") / "state")


@pytest.mark.root
def test_a_fuse_file_system_is_refused_although_it_has_hardlinks(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "fuse").mkdir()
    run("bindfs", tmp_path / "real", tmp_path / "fuse")
    try:
        with pytest.raises(StoreUnfit, match="is on a fuse file system: mount a directory of a local disk"):
            Store.open(tmp_path / "fuse" / "state")
    finally:
        run("umount", tmp_path / "fuse")


@pytest.mark.parametrize(
    ("magic", "kind"),
    [(0x6969, "nfs"), (0xFF534D42, "cifs"), (0xFE534D42, "smb2"), (0x65735546, "fuse"), (0x00C36400, "ceph"),
     (0xEF53, None), (0x58465342, None), (0x9123683E, None), (0x01021994, None), (0x794C7630, None)],
)  # fmt: skip
def test_network_file_systems_are_known_by_the_numbers_of_statfs(magic: int, kind: str | None) -> None:
    """statfs(2): ext4, XFS, btrfs, tmpfs and overlayfs are local."""
    assert remote_kind(magic) == kind


def test_the_number_is_that_of_the_kernel(tmp_path: Path) -> None:
    told = subprocess.run(["stat", "-f", "-c", "%t", tmp_path], check=True, stdout=subprocess.PIPE, text=True)
    assert filesystem_magic(tmp_path) == int(told.stdout, 16)
    assert filesystem_magic(Path("/proc")) == 0x9FA0
    with pytest.raises(FileNotFoundError, match="absent"):
        filesystem_magic(tmp_path / "absent")
