from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cachefetch.linktree import FALLBACK, Linker, LinkReport, link_tree
from cachefetch.model import LinkMode
from tests.cachefetch.conftest import run
from tests.cachefetch.fakes import MTIME, below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HARDLINK, REFLINK, COPY = LinkMode
CONTENT = b"content" * 1000


def golden(place: Path, files: int = 3) -> Path:
    """A small golden tree, with modes and times as the store has them."""
    tree = place / "golden"
    (tree / "d" / "empty").mkdir(parents=True)
    for number in range(files):
        (tree / "d" / f"file{number}").write_bytes(CONTENT)
    (tree / "run").write_bytes(b"#!")
    (tree / "run").chmod(0o555)
    (tree / os.fsdecode(b"\xff \n")).touch()
    (tree / "d" / "link").symlink_to("../run")
    (tree / "dangling").symlink_to("/nowhere")
    for number, path in enumerate(sorted(tree.rglob("*"), reverse=True)):
        if path.is_file() and not path.is_symlink() and path.name != "run":
            path.chmod(0o444)
        os.utime(path, ns=(MTIME, MTIME + number), follow_symlinks=False)
    os.utime(tree, ns=(0, 0))
    return tree


def description(tree: Path) -> dict[str, tuple[int, int, int, int, object]]:
    """All of a tree but its inodes."""
    found = {}
    for path in (tree, *tree.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(tree))] = (
            status.st_mode, status.st_mtime_ns, status.st_uid, status.st_gid, content,
        )  # fmt: skip
    return found


def shared(left: Path, right: Path) -> set[str]:
    """Names below both trees that are one inode."""
    return {
        path
        for path in below(left) & below(right)
        if (left / path).lstat().st_ino == (right / path).lstat().st_ino
        and (left / path).lstat().st_dev == (right / path).lstat().st_dev
    }


def test_a_link_tree_equals_its_golden_tree_and_shares_every_file_and_symlink(tmp_path: Path) -> None:
    tree = golden(tmp_path)
    before = description(tree)
    report = link_tree(tree, tmp_path / "tree")
    assert description(tmp_path / "tree") == description(tree) == before
    assert shared(tree, tmp_path / "tree") == below(tree) - {"d", "d/empty"}
    assert report.modes == {HARDLINK: 7}
    assert (report.files, report.directories, report.mode) == (7, 3, HARDLINK)
    assert report.own_inodes == 3
    assert report.fallbacks == {}
    assert str(report) == "7 hardlink"


def test_a_link_tree_in_the_way_is_left_alone(tmp_path: Path) -> None:
    tree = golden(tmp_path)
    (tmp_path / "tree").mkdir()
    with pytest.raises(FileExistsError):
        link_tree(tree, tmp_path / "tree")
    assert below(tmp_path / "tree") == set()


def test_a_missing_golden_tree_is_an_error_not_an_empty_volume(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link_tree(tmp_path / "absent", tmp_path / "tree")


@pytest.mark.usefixtures("umask")
def test_directories_have_the_golden_mode_whatever_the_umask(tmp_path: Path) -> None:
    tree = golden(tmp_path)
    for path in (tree, tree / "d", tree / "d" / "empty"):
        path.chmod(0o755)
    link_tree(tree, tmp_path / "tree")
    assert {
        path.stat().st_mode & 0o777
        for path in (tmp_path / "tree" / "d" / "empty").parents
        if path.is_relative_to(tmp_path / "tree")
    } == {0o755}


def test_a_golden_tree_as_deep_as_paths_go_can_be_linked(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    fd = os.open(tmp_path / "golden", os.O_RDONLY)
    for _ in range(1990):
        os.mkdir("d", dir_fd=fd)
        below_fd = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below_fd
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    assert link_tree(tmp_path / "golden", tmp_path / "tree").directories == 1991
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    run("rm", "-rf", tmp_path / "golden", tmp_path / "tree")  # pytest could not


# Falling back


class Ways:
    """Ways of linking that refuse with an error, given by mode, and else say that it worked."""

    def __init__(self, **errors: int) -> None:
        self.calls: list[LinkMode] = []
        self.errors = {LinkMode[name.upper()]: number for name, number in errors.items()}

    def way(self, mode: LinkMode) -> Callable[[str | bytes, int, str | bytes, int], None]:
        def link(name: str | bytes, source_fd: int, new_name: str | bytes, dest_fd: int, /) -> None:
            self.calls.append(mode)
            if mode in self.errors:
                raise OSError(self.errors[mode], os.strerror(self.errors[mode]))
            os.close(os.open(new_name, os.O_CREAT | os.O_EXCL, dir_fd=dest_fd))

        return link

    def linker(self) -> Linker:
        return Linker({mode: self.way(mode) for mode in LinkMode})


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("number", sorted(FALLBACK))
def test_what_the_file_system_does_not_have_falls_back_step_by_step_and_is_reported(
    directory: int, number: int
) -> None:
    ways = Ways(hardlink=number, reflink=number)
    linker = ways.linker()
    assert linker.link("a", directory, "b", directory) is COPY
    assert ways.calls == [HARDLINK, REFLINK, COPY]
    name = errno.errorcode[number]
    assert linker.report.fallbacks == {(HARDLINK, name): 1, (REFLINK, name): 1}
    assert linker.report.mode is COPY
    assert str(linker.report) == f"1 copy (hardlink refused: {name} 1x, reflink refused: {name} 1x)"


@pytest.mark.parametrize("number", sorted(FALLBACK - {errno.EMLINK, errno.EPERM}))
def test_a_mode_that_the_file_system_does_not_have_is_tried_once_only(directory: int, number: int) -> None:
    ways = Ways(hardlink=number)
    linker = ways.linker()
    for name in "bcd":
        assert linker.link("a", directory, name, directory) is REFLINK
    assert ways.calls == [HARDLINK, REFLINK, REFLINK, REFLINK]


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EPERM])
def test_what_is_wrong_with_one_file_says_nothing_of_the_next(directory: int, number: int) -> None:
    ways = Ways(hardlink=number, reflink=errno.EOPNOTSUPP)
    linker = ways.linker()
    assert linker.link("a", directory, "b", directory) is COPY
    del ways.errors[HARDLINK]
    assert linker.link("a", directory, "c", directory) is HARDLINK


@pytest.mark.parametrize(
    "number",
    [errno.ENOENT, errno.EIO, errno.ENOSPC, errno.EACCES, errno.EDQUOT, errno.EROFS, errno.EEXIST, errno.ENAMETOOLONG],
)
@pytest.mark.parametrize("mode", LinkMode)
def test_real_errors_are_raised_at_once_and_never_papered_over(
    directory: int, tmp_path: Path, number: int, mode: LinkMode
) -> None:
    before = {each.name: errno.EXDEV for each in LinkMode if list(LinkMode).index(each) < list(LinkMode).index(mode)}
    ways = Ways(**before, **{mode.name: number})
    with pytest.raises(OSError) as caught:
        ways.linker().link("a", directory, "b", directory)
    assert caught.value.errno == number
    assert ways.calls[-1] is mode
    assert below(tmp_path) == set()


def test_when_even_a_copy_is_refused_that_is_an_error(directory: int) -> None:
    with pytest.raises(PermissionError):
        Ways(hardlink=errno.EPERM, reflink=errno.EPERM, copy=errno.EPERM).linker().link("a", directory, "b", directory)


def test_a_report_names_the_least_mode_and_every_cause() -> None:
    report = LinkReport(
        Counter({COPY: 2, HARDLINK: 3000}), 4, fallbacks=Counter({(HARDLINK, "EMLINK"): 2, (REFLINK, "ENOTSUP"): 2})
    )
    assert str(report) == "2 copy, 3000 hardlink (hardlink refused: EMLINK 2x, reflink refused: ENOTSUP 2x)"
    assert (report.files, report.mode, report.own_inodes) == (3002, COPY, 6)
    assert str(LinkReport()) == "no files"
    assert LinkReport().mode is HARDLINK


# Real file systems


@pytest.mark.root
def test_to_another_file_system_everything_is_copied_with_mode_and_time(
    tmp_path: Path, mount: Callable[..., Path]
) -> None:
    tree = golden(tmp_path)
    other = mount("other", "-t", "tmpfs", "tmpfs")
    report = link_tree(tree, other / "tree")
    assert description(other / "tree") == description(tree)
    assert (report.files, report.mode, report.modes[HARDLINK]) == (7, COPY, 0)
    assert shared(tree, other / "tree") == set()
    assert report.fallbacks == {(HARDLINK, "EXDEV"): 1, (REFLINK, "EXDEV"): 1}


@pytest.mark.root
def test_two_mounts_of_one_file_system_cannot_be_linked_either(tmp_path: Path, mount: Callable[..., Path]) -> None:
    """Why everything lives below one mount: st_dev is equal and link(2) says EXDEV all the same."""
    tree = golden(tmp_path)
    (tmp_path / "below").mkdir()
    other = mount("bind", "--bind", tmp_path / "below")
    assert other.stat().st_dev == tree.stat().st_dev
    report = link_tree(tree, other / "tree")
    assert report.fallbacks[HARDLINK, "EXDEV"] == 1
    assert description(other / "tree") == description(tree)


@pytest.mark.root
@pytest.mark.slow
def test_a_file_with_as_many_links_as_ext4_takes_is_copied_and_only_that_one(
    tmp_path: Path, image: Callable[..., Path]
) -> None:
    place = image("ext4", 64, "mkfs.ext4", "-q", "-N", "2000")
    tree = golden(place)
    (place / "links").mkdir()
    with pytest.raises(OSError, match="Too many links"):
        for number in range(70_000):
            os.link(tree / "d" / "file1", place / "links" / f"{number}")
    report = link_tree(tree, place / "tree")
    assert report.modes == {HARDLINK: 6, COPY: 1}
    assert report.fallbacks[HARDLINK, "EMLINK"] == 1
    assert shared(tree, place / "tree") == below(tree) - {"d", "d/empty", "d/file1"}
    assert description(place / "tree") == description(tree)
    assert report.own_bytes >= len(CONTENT)


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "megabytes", "mkfs"),
    [("xfs", 320, ["mkfs.xfs", "-q", "-m", "reflink=1"]), ("btrfs", 128, ["mkfs.btrfs", "-q"])],
)
def test_where_a_hardlink_is_refused_a_reflink_shares_the_blocks(
    image: Callable[..., Path], name: str, megabytes: int, mkfs: list[str]
) -> None:
    place = image(name, megabytes, *mkfs)
    tree = golden(place)
    os.sync()
    ways = Ways(hardlink=errno.EMLINK)
    linker = Linker({**Linker()._ways, HARDLINK: ways.way(HARDLINK)})
    (place / "dest").mkdir()
    source, dest = (os.open(directory, os.O_RDONLY) for directory in (tree / "d", place / "dest"))
    for file in ("file0", "file1", "link"):
        assert linker.link(file, source, file, dest) is REFLINK
    os.close(source)
    os.close(dest)
    for file in ("file0", "file1", "link"):
        old, new = (tree / "d" / file).lstat(), (place / "dest" / file).lstat()
        assert old.st_ino != new.st_ino
        assert (old.st_mode, old.st_mtime_ns) == (new.st_mode, new.st_mtime_ns)
    assert (place / "dest" / "file0").read_bytes() == CONTENT
    (place / "dest" / "file0").chmod(0o644)
    (place / "dest" / "file0").write_bytes(b"private")
    assert (tree / "d" / "file0").read_bytes() == CONTENT
    assert linker.report.mode is REFLINK


@pytest.mark.root
def test_a_full_disk_is_an_error_and_no_half_copied_file_stays(tmp_path: Path, mount: Callable[..., Path]) -> None:
    tree = golden(tmp_path, files=1)
    (tree / "d" / "big").write_bytes(os.urandom(2_000_000))
    small = mount("small", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    with pytest.raises(OSError, match="No space left"):
        link_tree(tree, small / "tree")
    assert not (small / "tree" / "d" / "big").exists()


@pytest.mark.root
def test_an_immutable_golden_file_is_copied_because_nobody_may_link_it(tmp_path: Path) -> None:
    """An administrator's chattr +i: link(2) says EPERM of that file only."""
    tree = golden(tmp_path)
    run("chattr", "+i", tree / "run")
    try:
        report = link_tree(tree, tmp_path / "tree")
    finally:
        run("chattr", "-i", tree / "run")
    assert report.modes == {HARDLINK: 6, COPY: 1}
    assert report.fallbacks[HARDLINK, "EPERM"] == 1
    assert stat.S_IMODE((tmp_path / "tree" / "run").stat().st_mode) == 0o555


def test_a_name_that_is_taken_is_an_error_not_a_replacement(tmp_path: Path, directory: int) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    for linker in (Linker(), Linker({mode: Linker()._ways[COPY] for mode in LinkMode})):
        with pytest.raises(FileExistsError):
            linker.link("a", directory, "b", directory)
    assert (tmp_path / "b").read_text() == "b"
