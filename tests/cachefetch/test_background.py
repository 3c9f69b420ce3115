"""Work in a child process: the same result as in this one, at the lowest priority, and no child outlives a stop."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.background import Background, BackgroundFailed, decode_report, encode_report
from cachefetch.linktree import LinkReport
from cachefetch.model import LinkMode

COUNTS = st.integers(0, 2**40)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / "a").write_bytes(b"a")
    (tree / "out").symlink_to("/etc")
    return tree


def test_a_child_makes_the_tree_and_reports_what_it_did(tree: Path, tmp_path: Path) -> None:
    report = Background(threading.Event()).link(tree, tmp_path / "copy")
    assert (report.modes, report.directories) == (Counter({LinkMode.HARDLINK: 2}), 2)
    assert (tmp_path / "copy" / "lib" / "a").samefile(tree / "lib" / "a")


def test_a_child_empties_the_trash(tree: Path, tmp_path: Path) -> None:
    trash = tmp_path / "trash"
    trash.mkdir()
    tree.rename(trash / "tree")
    Background(threading.Event()).empty(trash)
    assert list(trash.iterdir()) == []


def test_a_failure_says_what_failed_and_why(tmp_path: Path) -> None:
    with pytest.raises(BackgroundFailed, match=r"link of .*absent did not finish: FileNotFoundError"):
        Background(threading.Event()).link(tmp_path / "absent", tmp_path / "copy")


def test_a_stop_ends_the_child(tmp_path: Path) -> None:
    """A tree that takes seconds to link: the child is killed half-way, and is gone when the call returns."""
    many = tmp_path / "many"
    for number in range(300):
        (many / str(number)).mkdir(parents=True)
        for name in range(60):
            (many / str(number) / str(name)).touch()
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(BackgroundFailed, match="the driver stops"):
        Background(stopping).link(many, tmp_path / "copy")
    assert children() == []


def children() -> list[str]:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()


@given(
    st.dictionaries(st.sampled_from(LinkMode), COUNTS),
    COUNTS,
    COUNTS,
    st.dictionaries(st.tuples(st.sampled_from(LinkMode), st.sampled_from(["EXDEV", "EMLINK"])), COUNTS),
)
def test_reports_survive_the_way_to_the_parent(
    modes: dict[LinkMode, int], directories: int, own_bytes: int, fallbacks: dict[tuple[LinkMode, str], int]
) -> None:
    report = LinkReport(Counter(modes), directories, own_bytes, Counter(fallbacks))
    assert decode_report(encode_report(report)) == report


def test_the_child_gives_way_to_everybody() -> None:
    program = "import os; from cachefetch.background import give_way; give_way(); print(os.nice(0))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "19"
