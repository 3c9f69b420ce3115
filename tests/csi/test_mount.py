"""Real mounts keep the promises of `Mounter`, by either way and inside a user namespace; the fake does too."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import GoldlinkError, Precondition
from csi import mountinfo, syscalls
from csi.mount import (
    BindElsewhere,
    KernelMounter,
    Kind,
    Mounter,
    Seen,
    bind_detached,
    mount_by_fdinfo,
    mount_by_statx,
)
from tests.csi.fakes import FakeMounter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

WAYS = ("detached", "elsewhere")


@pytest.fixture(autouse=True)
def clean(tmp_path: Path) -> Iterator[None]:
    """No test leaves a mount behind, nor anything in the workshop."""
    (tmp_path / "source" / "sub").mkdir(parents=True)
    (tmp_path / "source" / "file").write_bytes(b"golden")
    (tmp_path / "target").mkdir()
    yield
    left = mountinfo.below(tmp_path)
    while mounts := mountinfo.below(tmp_path):  # read anew: a shared one takes its peers along
        syscalls.umount(mounts[0].point, syscalls.MNT_DETACH)
    assert left == []
    assert not (tmp_path / "workshop").exists() or not list((tmp_path / "workshop").iterdir())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def kernel_mounter(way: str, workshop: Path) -> KernelMounter:
    if way == "detached":
        return KernelMounter(workshop, bind=bind_detached, mount_of=mount_by_statx)
    return KernelMounter(workshop, bind=BindElsewhere(workshop), mount_of=mount_by_fdinfo)


@pytest.fixture(params=WAYS)
def mounter(request: pytest.FixtureRequest, tmp_path: Path) -> KernelMounter:
    return kernel_mounter(request.param, tmp_path / "workshop")


@pytest.fixture(params=[*WAYS, "fake"])
def any_mounter(request: pytest.FixtureRequest, tmp_path: Path) -> Mounter:
    return FakeMounter() if request.param == "fake" else kernel_mounter(request.param, tmp_path / "workshop")


def identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def tmpfs(point: Path, propagation: int = syscalls.MS_PRIVATE, flags: int = 0) -> Iterator[Path]:
    point.mkdir(exist_ok=True)
    syscalls.mount("tmpfs", point, flags, fstype="tmpfs")
    try:
        syscalls.mount("", point, propagation | syscalls.MS_REC)
        yield point
    finally:
        syscalls.umount(point, 0)


# What every Mounter promises, the fake included.


def test_a_bound_directory_shows_the_source_and_unmount_takes_it_away(
    any_mounter: Mounter, source: Path, target: Path
) -> None:
    before = any_mounter.look(target)
    any_mounter.bind_readonly(source, target)
    seen = any_mounter.look(target)
    assert (seen.kind, seen.mount_root, seen.identity, seen.readonly) == (
        Kind.DIRECTORY, True, identity(source), True,
    )  # fmt: skip
    assert seen.mount_id != before.mount_id
    any_mounter.unmount(target)
    assert any_mounter.look(target) == before
    assert (before.mount_root, before.identity, before.readonly) == (False, identity(target), False)


def test_mounts_stack_and_come_off_one_by_one(any_mounter: Mounter, source: Path, target: Path) -> None:
    any_mounter.bind_readonly(source, target)
    first = any_mounter.look(target)
    any_mounter.bind_readonly(source / "sub", target)
    second = any_mounter.look(target)
    assert (first.identity, second.identity) == (identity(source), identity(source / "sub"))
    assert [mount.point for mount in any_mounter.below(target.parent)] == [target, target]
    any_mounter.unmount(target)
    assert any_mounter.look(target) == first
    any_mounter.unmount(target)
    assert not any_mounter.look(target).mount_root


def test_unmounting_nothing_is_fine(any_mounter: Mounter, source: Path, target: Path) -> None:
    any_mounter.unmount(target)
    any_mounter.unmount(target / "missing" / "too")
    any_mounter.unmount(source / "file")
    any_mounter.unmount(source / "file" / "below a file")
    assert target.is_dir()


def test_look_tells_kinds_and_follows_no_symlink(any_mounter: Mounter, source: Path, target: Path) -> None:
    link = target / "link"
    link.symlink_to(source)
    kinds = {path: any_mounter.look(path).kind for path in (source, source / "file", link, target / "missing")}
    assert list(kinds.values()) == [Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK, Kind.MISSING]
    assert any_mounter.look(link).identity == identity(link)
    assert any_mounter.look(target / "missing") == any_mounter.look(source / "file" / "below") == Seen(Kind.MISSING)


@pytest.mark.parametrize("role", ["source", "target"])
@pytest.mark.parametrize("what", ["file", "symlink", "missing"])
def test_only_directories_are_mounted(any_mounter: Mounter, tmp_path: Path, role: str, what: str) -> None:
    """A symlink, also one to a directory, is refused and not followed."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "symlink").symlink_to(tmp_path / "source")
    paths = {"source": tmp_path / "source", "target": tmp_path / "target"} | {role: tmp_path / what}
    with pytest.raises(Precondition, match=f"{what} is no directory"):
        any_mounter.bind_readonly(paths["source"], paths["target"])
    assert any_mounter.below(tmp_path) == []


def test_find_tells_the_source_of_a_mount(any_mounter: Mounter, source: Path, target: Path) -> None:
    any_mounter.bind_readonly(source, target)
    found = any_mounter.find(any_mounter.look(target).mount_id)
    assert found is not None
    assert found.point == target
    assert found.root.parts[-1] == "source"
    any_mounter.unmount(target)
    assert any_mounter.find(found.id) is None


# What only the kernel can show.


def test_the_constructor_chooses_what_this_kernel_can(tmp_path: Path) -> None:
    mounter = KernelMounter(tmp_path / "workshop")
    assert (mounter._bind is bind_detached) == syscalls.has_set_attributes()
    assert (mounter._mount_of is mount_by_statx) == syscalls.has_mount_of()


@pytest.mark.parametrize(
    "change",
    [
        lambda top: (top / "file").write_bytes(b"evil"),
        lambda top: (top / "file").chmod(0o777),
        lambda top: os.utime(top / "file"),
        lambda top: os.chown(top / "file", 0, 0),
        lambda top: (top / "file").unlink(),
        lambda top: (top / "file").rename(top / "other"),
        lambda top: (top / "link").hardlink_to(top / "file"),
        lambda top: (top / "new").mkdir(),
        lambda top: (top / "sub").rmdir(),
        lambda top: os.setxattr(top / "file", "user.x", b"y"),
    ],
)
def test_root_changes_nothing_through_the_mount(
    mounter: KernelMounter, source: Path, target: Path, change: Callable[[Path], object]
) -> None:
    mounter.bind_readonly(source, target)
    with pytest.raises(OSError) as caught:
        change(target)
    assert caught.value.errno == errno.EROFS
    assert (target / "file").read_bytes() == b"golden"
    mounter.unmount(target)


def test_the_source_stays_writable_and_shows_through(mounter: KernelMounter, source: Path, target: Path) -> None:
    mounter.bind_readonly(source, target)
    (source / "new").write_bytes(b"more")
    assert (target / "new").read_bytes() == b"more"
    mounter.unmount(target)


@pytest.mark.parametrize(("flag", "kept"), [(0, 0), (syscalls.MS_NOEXEC, os.ST_NOEXEC)])
def test_set_id_and_devices_are_off_and_noexec_is_kept(
    mounter: KernelMounter, tmp_path: Path, target: Path, flag: int, kept: int
) -> None:
    flags = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    with tmpfs(tmp_path / "origin", flags=flag) as origin:
        mounter.bind_readonly(origin, target)
        assert os.statvfs(target).f_flag & flags == os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | kept
        assert os.statvfs(origin).f_flag & flags == kept
        mounter.unmount(target)


def test_never_visible_writable(mounter: KernelMounter, source: Path, target: Path) -> None:
    """A program that creates a file at the target all the time never gets one into the source."""
    script = f"""
import os
while True:
    try:
        os.close(os.open({str(target / "evil")!r}, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pass
"""
    with subprocess.Popen([sys.executable, "-SEc", script]) as writer:
        try:
            while not (target / "evil").exists():
                assert writer.poll() is None
            for _ in range(1000):
                mounter.bind_readonly(source, target)
                # In use by the writer now and then: that is not what is tested.
                syscalls.umount(target, syscalls.MNT_DETACH)
        finally:
            writer.kill()
    assert not (source / "evil").exists()


def test_a_shared_parent_passes_the_mount_on_read_only(mounter: KernelMounter, tmp_path: Path, source: Path) -> None:
    """As from the driver's container to the node: mount and unmount appear there too."""
    with tmpfs(tmp_path / "pods", syscalls.MS_SHARED) as pods:
        peer = tmp_path / "peer"
        peer.mkdir()
        syscalls.mount(pods, peer, syscalls.MS_BIND)
        (pods / "volume").mkdir()
        mounter.bind_readonly(source, pods / "volume")
        assert mounter.look(pods / "volume").mount_root
        seen = mounter.look(peer / "volume")
        assert (seen.mount_root, seen.identity, seen.readonly) == (True, identity(source), True)
        mounter.unmount(pods / "volume")
        assert not mounter.look(peer / "volume").mount_root
        syscalls.umount(peer, 0)


def test_mounts_in_a_shared_source_do_not_come_through(mounter: KernelMounter, tmp_path: Path, target: Path) -> None:
    """Neither those that were there nor later ones, nor the other way round."""
    with tmpfs(tmp_path / "origin", syscalls.MS_SHARED) as origin:
        (origin / "a").mkdir()
        (origin / "b").mkdir()
        with tmpfs(origin / "a"):
            mounter.bind_readonly(origin, target)
            with tmpfs(origin / "b"):
                assert not mounter.look(target / "a").mount_root
                assert not mounter.look(target / "b").mount_root
        with tmpfs(target / "b"):
            assert not mounter.look(origin / "b").mount_root
        mounter.unmount(target)


def test_a_workshop_below_a_shared_mount_works(tmp_path: Path, source: Path, target: Path) -> None:
    with tmpfs(tmp_path / "state", syscalls.MS_SHARED) as state:
        mounter = kernel_mounter("elsewhere", state / "workshop")
        mounter.bind_readonly(source, target)
        assert mounter.look(target).readonly
        assert mountinfo.below(state) == []
        mounter.unmount(target)


def test_a_workshop_is_cleared_of_what_a_crash_left(tmp_path: Path, source: Path) -> None:
    """The files of a source that is still mounted there survive."""
    workshop = tmp_path / "workshop"
    (workshop / "slot" / "tree").mkdir(parents=True)
    (workshop / "early").mkdir()
    syscalls.mount(workshop / "slot", workshop / "slot", syscalls.MS_BIND)
    syscalls.mount(source, workshop / "slot" / "tree", syscalls.MS_BIND)
    BindElsewhere(workshop)
    assert list(workshop.iterdir()) == []
    assert (source / "file").read_bytes() == b"golden"


def test_a_mount_in_use_stays_and_the_error_says_so(mounter: KernelMounter, source: Path, target: Path) -> None:
    mounter.bind_readonly(source, target)
    with (
        (target / "file").open("rb"),
        pytest.raises(Precondition, match=f"unmounting {target} .* still uses it") as caught,
    ):
        mounter.unmount(target)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EBUSY
    assert mounter.look(target).mount_root
    mounter.unmount(target)


def test_unmount_does_not_follow_a_symlink(mounter: KernelMounter, source: Path, target: Path) -> None:
    mounter.bind_readonly(source, target)
    link = target.parent / "link"
    link.symlink_to(target)
    mounter.unmount(link)
    assert mounter.look(target).mount_root
    mounter.unmount(target)


def test_a_mounted_file_is_a_mount_root(mounter: KernelMounter, source: Path, tmp_path: Path) -> None:
    """Others may mount files: look is not only for directories."""
    point = tmp_path / "point"
    point.write_bytes(b"")
    syscalls.mount(source / "file", point, syscalls.MS_BIND)
    seen = mounter.look(point)
    assert (seen.kind, seen.mount_root, seen.identity) == (Kind.FILE, True, identity(source / "file"))
    mounter.unmount(point)
    assert not mounter.look(point).mount_root


def test_look_sees_devices_as_other_and_readonly_filesystems(mounter: KernelMounter, tmp_path: Path) -> None:
    assert mounter.look(Path("/dev/null")).kind == Kind.OTHER
    with tmpfs(tmp_path / "frozen", flags=syscalls.MS_RDONLY) as frozen:
        assert mounter.look(frozen).readonly


def test_a_dead_filesystem_is_seen_and_can_be_unmounted(mounter: KernelMounter, target: Path) -> None:
    """A FUSE server that died: every access fails with ENOTCONN."""
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    syscalls.mount("dead", target, syscalls.MS_NOSUID | syscalls.MS_NODEV, fstype="fuse", options=options)
    os.close(fuse)
    with pytest.raises(OSError) as caught:
        target.stat()
    assert caught.value.errno == errno.ENOTCONN
    seen = mounter.look(target)
    assert (seen.kind, seen.mount_root, seen.identity) == (Kind.DEAD, True, None)
    found = mounter.find(seen.mount_id)
    assert found is not None
    assert (found.fstype, found.source) == ("fuse", "dead")
    assert mounter.look(target / "inside").kind == Kind.DEAD
    mounter.unmount(target)
    assert mounter.look(target).kind == Kind.DIRECTORY


def test_both_ways_to_look_agree(tmp_path: Path, source: Path, target: Path) -> None:
    new, old = (kernel_mounter(way, tmp_path / "workshop") for way in WAYS)
    new.bind_readonly(source, target)
    (tmp_path / "link").symlink_to(target)
    for path in (source, target, target / "sub", target / "file", tmp_path / "link", Path("/proc"), Path("/dev/null")):
        assert new.look(path) == old.look(path)
    new.unmount(target)


def test_look_passes_on_what_is_neither_missing_nor_dead(mounter: KernelMounter, target: Path) -> None:
    with pytest.raises(OSError) as caught:
        mounter.look(target / ("x" * 300))
    assert caught.value.errno == errno.ENAMETOOLONG


# When the mount does not come out as it should.


def test_a_writable_result_is_undone(tmp_path: Path, source: Path, target: Path) -> None:
    def careless(source_fd: int, target_fd: int) -> int:
        mounted = syscalls.clone_tree(source_fd)
        syscalls.attach(mounted, target_fd)
        return mounted

    with pytest.raises(Precondition, match="came to nothing"):
        KernelMounter(tmp_path, bind=careless).bind_readonly(source, target)
    assert mountinfo.below(tmp_path) == []


def test_a_mount_that_covers_ours_is_not_taken_away(tmp_path: Path, source: Path, target: Path) -> None:
    """Another program that mounts over ours at the same moment keeps its mount."""

    def overtaken(source_fd: int, target_fd: int) -> int:
        mounted = bind_detached(source_fd, target_fd)
        syscalls.mount("other", target, 0, fstype="tmpfs")
        return mounted

    mounter = KernelMounter(tmp_path, bind=overtaken)
    with pytest.raises(Precondition, match="came to nothing"):
        mounter.bind_readonly(source, target)
    other = mounter.find(mounter.look(target).mount_id)
    assert other is not None
    assert other.source == "other"
    mounter.unmount(target)
    mounter.unmount(target)


def test_a_target_moved_meanwhile_is_not_left_mounted(tmp_path: Path, source: Path, target: Path) -> None:
    def late(source_fd: int, target_fd: int) -> int:
        target.rename(tmp_path / "moved")
        return bind_detached(source_fd, target_fd)

    with pytest.raises(Precondition, match="came to nothing"):
        KernelMounter(tmp_path, bind=late).bind_readonly(source, target)
    assert mountinfo.below(tmp_path) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_target_removed_meanwhile_is_an_error_that_says_so(
    tmp_path: Path, source: Path, target: Path, way: str
) -> None:
    bind = bind_detached if way == "detached" else BindElsewhere(tmp_path / "workshop")

    def late(source_fd: int, target_fd: int) -> int:
        target.rmdir()
        return bind(source_fd, target_fd)

    with pytest.raises(Precondition, match="removed meanwhile"):
        KernelMounter(tmp_path, bind=late).bind_readonly(source, target)


def test_no_descriptor_is_leaked(mounter: KernelMounter, source: Path, target: Path, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    mounter.bind_readonly(source, target)
    mounter.look(target)
    mounter.unmount(target)
    for refused in (tmp_path / "missing", source / "file"):
        with pytest.raises(Precondition):
            mounter.bind_readonly(source, refused)
    assert descriptors() == before


# Who may.


def python(script: str, *before: str) -> str:
    """What a script of its own process prints, started by the command `before`."""
    result = subprocess.run([*before, sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("way", ["bind_detached", "BindElsewhere(workshop)"])
def test_a_process_without_the_privilege_is_told(way: str, tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from csi.mount import BindElsewhere, KernelMounter, bind_detached
workshop = Path("{tmp_path}/workshop")
mounter = KernelMounter(workshop, bind={way})
for call in (lambda: mounter.bind_readonly(Path("/usr"), Path("/mnt")), lambda: mounter.unmount(Path("/proc"))):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""
    lines = python(script, "setpriv", "--bounding-set=-sys_admin").splitlines()
    assert len(lines) == 2
    assert all(line.startswith("Precondition") and "run the node process privileged" in line for line in lines)


def test_a_mount_inherited_from_a_stronger_namespace_cannot_be_taken_away() -> None:
    """The kernel says EINVAL, as if nothing was mounted; a caller that unmounts until nothing is must not loop."""
    script = """
from pathlib import Path
from csi.mount import KernelMounter
try:
    KernelMounter(Path("/nowhere")).unmount(Path("/proc"))
except Exception as error:
    print(type(error).__name__, error)
"""
    assert python(script, "unshare", "-Urm").startswith("Precondition /proc cannot be unmounted from here")


def test_everything_holds_inside_a_user_namespace(tmp_path: Path) -> None:
    """All other tests of this file once more, as root of a user namespace only."""
    only = ["-k", "not everything_holds", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/inner", __file__]
    command = ["unshare", "-Urm", sys.executable, "-m", "pytest", "-q", *only]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ passed, 1 deselected", result.stdout), result.stdout


# The fake's own controls.


def test_the_fake_fails_when_told_before_or_after_its_work(source: Path, target: Path) -> None:
    fake = FakeMounter()
    fake.fail_next("bind_readonly", OSError(errno.EIO, "early"))
    fake.fail_next("bind_readonly", GoldlinkError("late"), late=True)
    with pytest.raises(OSError, match="early"):
        fake.bind_readonly(source, target)
    assert not fake.look(target).mount_root
    with pytest.raises(GoldlinkError, match="late"):
        fake.bind_readonly(source, target)
    assert fake.look(target).mount_root
    assert [verb for verb, _ in fake.calls] == ["bind_readonly", "look", "bind_readonly", "look"]


def test_the_fake_knows_busy_dead_and_foreign_mounts(source: Path, target: Path) -> None:
    fake = FakeMounter()
    mount = fake.mount_foreign(source, target, fstype="nfs4")
    assert not fake.look(target).readonly
    mount.busy = True
    with pytest.raises(Precondition, match="still uses it"):
        fake.unmount(target)
    mount.busy, mount.dead = False, True
    seen = fake.look(target)
    assert (seen.kind, seen.mount_root) == (Kind.DEAD, True)
    found = fake.find(seen.mount_id)
    assert found is not None
    assert found.fstype == "nfs4"
    fake.unmount(target)
    assert fake.look(target).kind == Kind.DIRECTORY
