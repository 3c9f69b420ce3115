"""Work in a child process: the same result as in this one, at the lowest priority, and no child outlives a stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.background import Background, BackgroundFailed, decode_report, encode_report
from cachefetch.linktree import LinkReport
from cachefetch.model import LinkMode

if TYPE_CHECKING:
    from collections.abc import Callable

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


def test_a_stop_ends_the_child(tree: Path, tmp_path: Path) -> None:
    """Stopped before the child's interpreter is up: it is killed, and is gone when the call returns."""
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(BackgroundFailed, match="the driver stops"):
        Background(stopping).link(tree, tmp_path / "copy")
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


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    """The parent is killed while the child works on a tree that takes seconds: the child is gone at once."""
    many = tmp_path / "many"
    for number in range(200):
        (many / str(number)).mkdir(parents=True)
        for name in range(60):
            (many / str(number) / str(name)).touch()
    program = "import sys, threading; from pathlib import Path; from cachefetch.background import Background; "
    program += "Background(threading.Event()).link(Path(sys.argv[1]), Path(sys.argv[2]))"
    parent = subprocess.Popen([sys.executable, "-c", program, many, tmp_path / "copy"])
    task = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    until(lambda: (tmp_path / "copy" / "1").exists() or parent.poll() is not None)
    child = task.read_text().split()
    parent.kill()
    parent.wait(20)
    assert child
    until(lambda: not Path(f"/proc/{child[0]}/exe").exists())
    assert sum(1 for path in (tmp_path / "copy").glob("*/*")) < 200 * 60


def test_a_child_whose_parent_is_gone_already_does_nothing(tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cachefetch.background", "1", "link", str(tree), str(tmp_path / "copy")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "copy").exists()


def until(met: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)
