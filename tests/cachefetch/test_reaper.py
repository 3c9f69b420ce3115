"""What is in the trash is deleted soon, also what an earlier process left, and nothing keeps the rest from it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from cachefetch.background import BackgroundStopped
from cachefetch.reaper import Reaper
from cachefetch.trash import empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def until(met: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def trash(tmp_path: Path) -> Path:
    (tmp_path / "trash").mkdir()
    return tmp_path / "trash"


@pytest.fixture
def start() -> Iterator[Callable[[Reaper], Reaper]]:
    """Starts reapers; they end with the test."""
    before = threading.active_count()
    started: list[Reaper] = []

    def start(reaper: Reaper) -> Reaper:
        started.append(reaper)
        reaper.start()
        return reaper

    yield start
    for reaper in started:
        reaper.stop()
    until(lambda: threading.active_count() == before)


def names(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


def fill(place: Path) -> Path:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "file").write_text("x")
    (place / "out").symlink_to("/etc")
    return place


def test_what_an_earlier_process_left_goes_at_the_start(trash: Path, start: Callable[[Reaper], Reaper]) -> None:
    fill(trash / "old")
    start(Reaper(trash, empty))
    until(lambda: not names(trash))


def test_waking_deletes_and_files_shared_by_hardlink_stay(
    tmp_path: Path, trash: Path, start: Callable[[Reaper], Reaper]
) -> None:
    reaper = start(Reaper(trash, empty))
    golden = fill(tmp_path / "golden")
    for round_ in range(3):
        place = fill(trash / f"volume-{round_}")
        (place / "shared").hardlink_to(golden / "a" / "file")
        reaper.wake()
        until(lambda: not names(trash))
    status = (golden / "a" / "file").stat()
    assert (status.st_nlink, status.st_size) == (1, 1)


def test_it_looks_again_by_itself(trash: Path, start: Callable[[Reaper], Reaper]) -> None:
    start(Reaper(trash, empty, interval=0.02))
    until(lambda: not names(trash))
    fill(trash / "late")
    until(lambda: not names(trash))


def test_what_cannot_be_deleted_is_told_and_tried_again(
    trash: Path, start: Callable[[Reaper], Reaper], caplog: pytest.LogCaptureFixture
) -> None:
    hidden = trash.rename(trash.with_name("hidden"))
    start(Reaper(trash, empty, interval=0.02))
    until(lambda: "trash" in caplog.messages)
    fill(hidden / "item")
    hidden.rename(trash)
    until(lambda: not names(trash))


def test_a_stopped_reaper_deletes_no_more(trash: Path) -> None:
    reaper = Reaper(trash, empty, interval=0.02)
    before = threading.active_count()
    reaper.start()
    reaper.stop()
    until(lambda: threading.active_count() == before)
    fill(trash / "later")
    reaper.wake()
    assert names(trash) == ["later"]


def test_a_driver_that_stops_ends_it_without_a_word(trash: Path, caplog: pytest.LogCaptureFixture) -> None:
    def stopped(_directory: Path) -> None:
        raise BackgroundStopped("the driver stops")

    before = threading.active_count()
    Reaper(trash, stopped).start()
    until(lambda: threading.active_count() == before)
    assert caplog.messages == []
