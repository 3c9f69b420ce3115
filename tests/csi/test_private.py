"""Private views of the real kernel: whatever is written, the golden tree stays what it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cachefetch.errors import OutOfSpace, Precondition
from csi import loop, mountinfo, syscalls
from csi.mount import KernelMounter, Kind, Seen
from csi.private import OverlayViews, space
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root
LIMIT = 32 << 20


@pytest.fixture
def mounter(tmp_path: Path) -> Iterator[KernelMounter]:
    yield KernelMounter(tmp_path / "workshop")
    for mount in mountinfo.below(tmp_path):
        syscalls.umount(mount.point, syscalls.MNT_DETACH)


@pytest.fixture
def views(mounter: KernelMounter) -> OverlayViews:
    return OverlayViews(mounter, threading.Event())


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A tree as a version has it: root's, files read-only, each with a second name in another version."""
    tree = tmp_path / "gol,den:tree"
    (tree / "lib" / "deep").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for name, mode in (("lib/a.js", 0o444), ("lib/deep/b.js", 0o444), ("run", 0o555)):
        (tree / name).write_text("#!/bin/sh\necho golden\n")
        (tree / name).chmod(mode)
        (tmp_path / "other" / name.replace("/", "-")).hardlink_to(tree / name)
    (tree / "link").symlink_to("lib/a.js")
    return tree


def state(tree: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that a write could change."""
    found = {}
    for path in (tree, *sorted(tree.rglob("*"))):
        status = path.lstat()
        numbers = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_nlink, status.st_size)
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(tree))] = (*numbers, status.st_mtime_ns, status.st_ctime_ns, content)
    return found


@contextmanager
def shown(views: OverlayViews, golden: Path, root: Path, name: str = "v", limit: int = 0) -> Iterator[Path]:
    """A view of `golden` at a target, until the end of the block."""
    place, target = root / "volumes" / name, root / "pods" / name
    for directory in (place, target):
        directory.mkdir(parents=True)
    with views.make(golden, place, limit) as view:
        view.attach(target)
    yield target
    syscalls.umount(target, 0)


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda view: (view / "lib" / "a.js").write_text("mine"),
    "append": lambda view: subprocess.run(["sh", "-c", "echo x >>run"], cwd=view, check=True),
    "truncate": lambda view: os.truncate(view / "lib" / "a.js", 0),
    "chmod": lambda view: (view / "lib" / "a.js").chmod(0o777),
    "chmod of a directory": lambda view: (view / "lib").chmod(0o777),
    "chown": lambda view: os.chown(view / "lib" / "a.js", 1000, 1000),
    "chown of all": lambda view: subprocess.run(["chown", "-R", "1000:1000", "."], cwd=view, check=True),
    "touch": lambda view: os.utime(view / "lib" / "a.js", (0, 0)),
    "attribute": lambda view: os.setxattr(view / "lib" / "a.js", "user.mine", b"1"),
    "unlink": lambda view: (view / "lib" / "a.js").unlink(),
    "rename": lambda view: (view / "lib" / "a.js").rename(view / "moved"),
    "rename of a directory": lambda view: (view / "lib").rename(view / "moved"),
    "rename onto": lambda view: (view / "run").rename(view / "lib" / "a.js"),
    "hardlink": lambda view: (view / "mine").hardlink_to(view / "lib" / "a.js"),
    "write by another name": lambda view: subprocess.run(
        ["sh", "-c", "ln run mine && echo x >>mine"], cwd=view, check=True
    ),
    "write through a symlink": lambda view: (view / "link").write_text("mine"),
    "new": lambda view: (view / "lib" / "deep" / "new").write_text("mine"),
    "remove all": lambda view: subprocess.run(["rm", "-rf", "lib", "run", "link"], cwd=view, check=True),
    "replace a directory": lambda view: subprocess.run(["sh", "-c", "rm -r lib && mkdir lib"], cwd=view, check=True),
    "write to a shared mapping": lambda view: subprocess.run(
        [sys.executable, "-c", "import mmap; f = open('run', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[:2] = b'??'"],
        cwd=view, check=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("limit", [0, LIMIT])
@pytest.mark.parametrize("change", CHANGES)
def test_what_root_changes_in_a_view_changes_nothing_else(
    views: OverlayViews, golden: Path, tmp_path: Path, change: str, limit: int
) -> None:
    before = state(golden), state(tmp_path / "other")
    with shown(views, golden, tmp_path, "v", limit) as mine, shown(views, golden, tmp_path, "w", limit) as theirs:
        clean = listing(theirs)
        assert listing(mine) == clean
        CHANGES[change](mine)
        assert listing(mine) != clean
        assert listing(theirs) == clean
    assert (state(golden), state(tmp_path / "other")) == before


def listing(view: Path) -> dict[str, tuple[Any, ...]]:
    """What the view shows, apart from what every view has of its own."""
    return {
        name: (mode, uid, mtime if name != "." else 0, content, attributes(view / name))
        for name, (mode, uid, _, _, _, _, mtime, _, content) in state(view).items()
    }


def attributes(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def test_a_view_shows_the_version_and_runs_its_programs(views: OverlayViews, golden: Path, tmp_path: Path) -> None:
    with shown(views, golden, tmp_path) as view:
        assert {path.name for path in view.iterdir()} == {"lib", "link", "run"}
        assert (view / "link").read_text() == (golden / "lib" / "a.js").read_text()
        assert (view / "lib" / "a.js").stat().st_mtime_ns == (golden / "lib" / "a.js").stat().st_mtime_ns
        assert subprocess.run([view / "run"], check=True, capture_output=True).stdout == b"golden\n"
        flags = os.statvfs(view).f_flag
        assert flags & os.ST_NOSUID
        assert flags & os.ST_NODEV
        assert not flags & (os.ST_RDONLY | os.ST_NOEXEC)


def test_any_user_may_write_at_the_root_of_a_view(views: OverlayViews, golden: Path, tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    with shown(views, golden, tmp_path) as view:
        (tmp_path / "pods").chmod(0o755)
        view_fd = os.open(view, os.O_RDONLY)
        script = f"cd /proc/self/fd/{view_fd} && mkdir new && echo mine >new/file && cp run mine && ! touch lib/new"
        subprocess.run(["sh", "-c", script], user=1000, group=1000, pass_fds=(view_fd,), check=True)
        os.close(view_fd)
        assert (view / "new" / "file").read_text() == "mine\n"


def test_the_limit_binds_root_too(views: OverlayViews, golden: Path, tmp_path: Path) -> None:
    with shown(views, golden, tmp_path, limit=LIMIT) as view:
        with pytest.raises(OSError, match="No space left") as full, (view / "big").open("wb") as file:
            for _ in range(2 * LIMIT >> 20):
                file.write(b"x" * (1 << 20))
                file.flush()
        assert full.value.errno == errno.ENOSPC
        total, used, available = space(view).bytes
        assert LIMIT // 2 < used <= total <= LIMIT
        assert available < 1 << 20
        (view / "big").unlink()
        (view / "small").write_text("there is room again")
    assert (tmp_path / "volumes" / "v" / "image").stat().st_blocks * 512 <= LIMIT + (1 << 20)


def test_a_large_limit_costs_what_is_written(views: OverlayViews, golden: Path, tmp_path: Path) -> None:
    with shown(views, golden, tmp_path, limit=10 << 30) as view:
        assert space(view).bytes[0] > 9 << 30
        assert space(view).inodes[0] > 1_000_000
        (view / "file").write_bytes(b"x" * (1 << 20))
    assert (tmp_path / "volumes" / "v" / "image").stat().st_blocks * 512 < 8 << 20


def test_without_a_limit_it_is_the_file_system_of_the_place(views: OverlayViews, golden: Path, tmp_path: Path) -> None:
    with shown(views, golden, tmp_path) as view:
        assert space(view).bytes[0] == space(tmp_path).bytes[0]
    assert sorted(path.name for path in (tmp_path / "volumes" / "v").iterdir()) == ["upper", "work"]


@pytest.mark.parametrize("limit", [0, LIMIT])
def test_a_view_keeps_its_identity_and_nothing_else_of_it_is_mounted(
    views: OverlayViews, golden: Path, tmp_path: Path, limit: int
) -> None:
    mounter = KernelMounter(tmp_path / "unused")
    place, target = tmp_path / "volumes" / "v", tmp_path / "target"
    place.mkdir(parents=True)
    target.mkdir()
    with views.make(golden, place, limit) as view:
        assert mountinfo.below(tmp_path) == []
        view.attach(target)
    for number in range(100):
        (target / f"new{number}").write_text("mine")
    subprocess.run(["sh", "-c", "chmod 700 . && rm -r lib"], cwd=target, check=True)
    seen = mounter.look(target)
    assert (seen.mount_root, seen.identity, seen.readonly) == (True, view.identity, False)
    (mount,) = mountinfo.below(tmp_path)
    assert (mount.point, mount.fstype, mount.source) == (target, "overlay", str(place))
    mounter.unmount(target)
    assert loops_below(tmp_path) == []


@pytest.mark.parametrize("limit", [0, LIMIT])
def test_a_view_that_is_not_attached_is_gone(views: OverlayViews, golden: Path, tmp_path: Path, limit: int) -> None:
    place = tmp_path / "volumes" / "v"
    place.mkdir(parents=True)
    with pytest.raises(RuntimeError), views.make(golden, place, limit):
        raise RuntimeError
    assert mountinfo.below(tmp_path) == []
    assert loops_below(tmp_path) == []


def loops_below(directory: Path) -> list[Path]:
    files = [loop.backing_file(f"/dev/{device.name}") for device in Path("/sys/block").glob("loop*")]
    return [file for file in files if file is not None and file.is_relative_to(directory)]


def test_a_target_that_shows_something_else_undoes_the_mount(golden: Path, tmp_path: Path) -> None:
    class Elsewhere(KernelMounter):
        def look(self, path: Path) -> Seen:
            return Seen(Kind.DIRECTORY, True, 1, (1, 1), True)

    views = OverlayViews(Elsewhere(tmp_path / "unused"), threading.Event())
    with pytest.raises(Precondition, match="which other program"), shown(views, golden, tmp_path):
        pass
    assert mountinfo.below(tmp_path) == []


def test_a_missing_target_is_an_error_and_mounts_nothing(views: OverlayViews, golden: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), views.make(golden, tmp_path, 0) as view:
        view.attach(tmp_path / "missing")
    assert mountinfo.below(tmp_path) == []


def test_a_file_system_that_cannot_be_an_upper_layer_is_named(
    views: OverlayViews, golden: Path, tmp_path: Path
) -> None:
    """One that overlayfs itself made is such a one: the state directory in a container's own layer."""
    with shown(views, golden, tmp_path) as view:
        (view / "place").mkdir()
        refused = pytest.raises(Precondition, match=f"{view}/place failed .* such as ext4 or XFS")
        with refused, views.make(golden, view / "place", 0):
            pass


def test_no_room_for_an_image_is_said(views: OverlayViews, golden: Path, tmp_path: Path) -> None:
    with pytest.raises(OutOfSpace, match="privateMaxBytes"), views.make(golden, tmp_path, 1 << 62):
        pass


@pytest.mark.parametrize("limit", [0, LIMIT])
def test_what_a_killed_process_left_mounted_is_cleared(
    views: OverlayViews, golden: Path, tmp_path: Path, limit: int
) -> None:
    """The image is mounted for a moment; who is killed in it leaves that mount."""
    with shown(views, golden, tmp_path, "lives", limit) as lives:
        room = tmp_path / "volumes" / "left" / "room"
        room.mkdir(parents=True)
        syscalls.mount(golden, room, syscalls.MS_BIND)
        views.clear(tmp_path / "volumes")
        assert [mount.point for mount in mountinfo.below(tmp_path)] == [lives]
        assert (lives / "run").exists()


IN_NAMESPACE = """
import pathlib, subprocess, sys, threading
from csi.mount import KernelMounter
from csi.private import OverlayViews
root = pathlib.Path(sys.argv[1])
(root / "v").mkdir()
(root / "target").mkdir()
with OverlayViews(KernelMounter(root / "workshop"), threading.Event()).make(root / sys.argv[2], root / "v", 0) as view:
    view.attach(root / "target")
subprocess.run(["sh", "-ec", "echo mine >run; mv lib moved; cat moved/a.js; rm moved/a.js; mkdir lib; ls lib"],
               cwd=root / "target", check=True)
"""


def test_views_work_in_a_user_namespace(golden: Path, tmp_path: Path) -> None:
    """There the attributes of overlayfs have other names, and a directory is renamed by copying it."""
    before = state(golden)
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", IN_NAMESPACE, str(tmp_path), golden.name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "#!/bin/sh\necho golden\n"
    assert state(golden) == before
