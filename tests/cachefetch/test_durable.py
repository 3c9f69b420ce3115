from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cachefetch import durable
from cachefetch.errors import Busy
from tests.cachefetch.fakes import below

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from cachefetch import durable
with getattr(durable, sys.argv[1])(Path(sys.argv[2]), *sys.argv[3:]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hold(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Another process that holds the lock `tmp_path/lock`, when it returns."""

    def start(kind: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, kind, str(tmp_path / "lock")]
        command += ["busy"] if kind == "exclusive" else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    return start


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert process.stdout
    process.stdout.close()


def test_a_concurrent_reader_sees_the_old_or_the_new_content_and_always_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([65 + number]) * 10_000 for number in range(20)]
    durable.replace(path, contents[0])
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(400):
            durable.replace(path, contents[number % 20], durable=False)
    finally:
        done.set()
        reader.join()
    assert seen <= set(contents)
    assert len(seen) > 1


def test_a_symlink_is_repointed_without_a_moment_of_absence(tmp_path: Path) -> None:
    link = tmp_path / "current"
    durable.point(link, "0")
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(str(link.readlink()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(200):
            durable.point(link, str(number % 7))
    finally:
        done.set()
        reader.join()
    assert seen <= set("0123456")
    assert len(seen) > 1
    assert below(tmp_path) == {"current"}


@pytest.mark.parametrize("durably", [True, False])
def test_replace_leaves_nothing_beside_the_file(tmp_path: Path, durably: bool) -> None:
    for content in (b"one", b"", b"three" * 1000):
        durable.replace(tmp_path / "file", content, durable=durably)
        assert (tmp_path / "file").read_bytes() == content
    assert below(tmp_path) == {"file"}


def test_a_replace_that_fails_leaves_the_old_content_and_no_temporary(tmp_path: Path) -> None:
    (tmp_path / "file" / "below").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        durable.replace(tmp_path / "file", b"new")
    with pytest.raises(IsADirectoryError):
        durable.point(tmp_path / "file", "new")
    assert below(tmp_path) == {"file", "file/below"}


def test_one_exclusive_holder_keeps_everybody_else_out_and_is_named_by_the_caller(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        durable.exclusive(lock, "first"),
        pytest.raises(Busy, match="second is too late"),
        durable.exclusive(lock, "second is too late"),
    ):
        pytest.fail("two exclusive holders")
    with durable.exclusive(lock, "free again"):
        pass


def test_sharers_hold_it_together_and_keep_exclusive_ones_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with durable.shared(lock), durable.shared(lock), pytest.raises(Busy), durable.exclusive(lock, "busy"):
        pytest.fail("shared and exclusive at once")
    with durable.exclusive(lock, "busy"):
        pass


def test_a_sharer_waits_for_the_exclusive_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    events: list[str] = []
    waiting = threading.Event()

    def share() -> None:
        waiting.set()
        with durable.shared(lock):
            events.append("shared")

    with durable.exclusive(lock, "busy"):
        thread = threading.Thread(target=share)
        thread.start()
        waiting.wait()
        thread.join(0.05)
        events.append("exclusive ends")
    thread.join()
    assert events == ["exclusive ends", "shared"]


@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_a_lock_does_not_outlive_its_killed_holder(
    tmp_path: Path, hold: Callable[[str], subprocess.Popen[str]], kind: str
) -> None:
    process = hold(kind)
    with pytest.raises(Busy), durable.exclusive(tmp_path / "lock", "busy"):
        pytest.fail("the other process holds it")
    end(process)
    with durable.exclusive(tmp_path / "lock", "busy"):
        pass


def test_a_program_started_under_a_lock_does_not_inherit_it(tmp_path: Path) -> None:
    with durable.exclusive(tmp_path / "lock", "busy"):
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        with durable.exclusive(tmp_path / "lock", "the child has it"):
            pass
    finally:
        child.kill()
        child.wait()


def test_an_error_inside_the_lock_stays_what_it_is(tmp_path: Path) -> None:
    """Also one that looks like the lock being held: a non-blocking read has the same error number."""
    with pytest.raises(BlockingIOError), durable.exclusive(tmp_path / "lock", "busy"):
        raise BlockingIOError
    with durable.exclusive(tmp_path / "lock", "released all the same"):
        pass


def test_lock_files_stay_because_unlinking_one_would_let_two_in(tmp_path: Path) -> None:
    with durable.exclusive(tmp_path / "lock", "busy"):
        pass
    assert (tmp_path / "lock").exists()


def test_syncing_what_is_no_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    durable.sync_filesystem(tmp_path)
    durable.sync_directory(tmp_path)
    for sync in (durable.sync_filesystem, durable.sync_directory):
        with pytest.raises(FileNotFoundError, match="absent"):
            sync(tmp_path / "absent")
