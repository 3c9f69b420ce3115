"""The table of mounts is read as the kernel writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from csi import mountinfo, syscalls
from csi.mountinfo import Mount

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda name: not {0, ord("/")} & {*name} and name not in {b".", b".."}
)
PATHS = st.lists(NAMES, max_size=4).map(lambda names: Path(os.fsdecode(b"/" + b"/".join(names))))
WORDS = st.text(st.characters(codec="ascii", exclude_characters="\0\n"), max_size=20)
TAGS = st.lists(st.sampled_from(["shared:1", "master:22", "propagate_from:3", "unbindable"]), max_size=4)
IDS = st.integers(0, 2**31)


def escaped(path: Path | str) -> bytes:
    """As the kernel's `mangle` and `seq_path` write it."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes((byte,)) for byte in os.fsencode(path))


def line(mount: Mount, tags: list[str]) -> bytes:
    places = b"%b %b" % (escaped(mount.root), escaped(mount.point))
    origin = b"%b %b" % (escaped(mount.fstype), escaped(mount.source))
    return b"%d %d 8:1 %b rw,noatime %b- %b rw\n" % (
        mount.id, mount.parent, places, b"".join(tag.encode() + b" " for tag in tags), origin
    )  # fmt: skip


@given(st.lists(st.tuples(st.builds(Mount, IDS, IDS, PATHS, PATHS, WORDS, WORDS), TAGS)))
@example([(Mount(1, 0, Path("/a - b"), Path("/ \\040"), "tmpfs", ""), ["shared:1"])])
@example([(Mount(1, 0, Path("/-"), Path("/-"), "-", "-"), [])])
def test_every_name_survives(table: list[tuple[Mount, list[str]]]) -> None:
    """Any bytes in paths, empty sources and any number of optional fields come back as they were."""
    text = b"".join(line(mount, tags) for mount, tags in table)
    assert list(mountinfo.parse(text)) == [mount for mount, _ in table]


@given(st.binary(max_size=60))
@example(b"36 35 98:0 / /mnt rw master:1 ext3 /dev/root rw")
@example(b"36 35 98:0 / /mnt rw - ext3 /dev/root")
@example(b"x 35 98:0 / /mnt rw - ext3 /dev/root rw")
def test_other_text_is_refused_by_value_error_only(text: bytes) -> None:
    lines = [part for part in text.split(b"\n") if part]
    try:
        mounts = list(mountinfo.parse(text))
    except ValueError:
        assert lines
    else:
        assert len(mounts) == len(lines)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    r"""A directory that holds `t mp\` (tmpfs, twice), and in it `inner` (tmpfs); unmounted afterwards."""
    point = tmp_path / "t mp\\"
    point.mkdir()
    for _ in range(2):
        syscalls.mount("wei#rd one", point, 0, fstype="tmpfs")
    inner = point / "inner"
    inner.mkdir()
    syscalls.mount("", inner, 0, fstype="tmpfs")
    yield tmp_path
    for mount in mountinfo.below(tmp_path):
        syscalls.umount(mount.point, 0)
    assert not mountinfo.below(tmp_path)


@pytest.mark.root
def test_below_lists_each_mount_of_a_stack_deepest_first(mounted: Path) -> None:
    point = mounted / "t mp\\"
    assert [mount.point for mount in mountinfo.below(mounted)] == [point / "inner", point, point]
    assert [mount.source for mount in mountinfo.below(mounted)] == ["", "wei#rd one", "wei#rd one"]


@pytest.mark.root
def test_below_leaves_out_the_directory_itself_and_its_namesakes(mounted: Path) -> None:
    point = mounted / "t mp\\"
    assert [mount.point for mount in mountinfo.below(point)] == [point / "inner"]
    assert mountinfo.below(mounted / "t") == []


@pytest.mark.root
def test_below_resolves_symlinks(mounted: Path) -> None:
    link = mounted / "link"
    link.symlink_to(mounted / "t mp\\")
    assert [mount.point for mount in mountinfo.below(link)] == [mounted / "t mp\\" / "inner"]


@pytest.mark.root
def test_find_tells_where_a_mount_comes_from(mounted: Path) -> None:
    listed = mountinfo.below(mounted)
    assert [mountinfo.find(mount.id) for mount in listed] == listed
    assert {mount.fstype for mount in listed} == {"tmpfs"}
    assert mountinfo.find(2**31 - 1) is None


@pytest.mark.root
def test_covered_is_what_another_mount_sits_on(mounted: Path) -> None:
    inner, one, other = (mountinfo.covered(mount.id) for mount in mountinfo.below(mounted))
    assert (inner, one, other) == (False, True, True)
