from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.terminal import Bar, Lines, Meter, Terminal, age, cut, many, seconds, size, table

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TerminalBuffer(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (10 * MIB, "10 MiB"), (MIB - 1, "1.0 MiB"),
     (1023 * MIB, "1023 MiB"), (3 << 40, "3.0 TiB"), (5 << 60, "5120 PiB")],
)  # fmt: skip
def test_sizes_for_people(count: int, text: str) -> None:
    assert size(count) == text


@given(st.integers(0, 1 << 62))
def test_a_size_is_within_five_percent_of_the_truth(count: int) -> None:
    number, unit = size(count).split()
    power = ("B", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit)
    assert float(number) * 1024**power == pytest.approx(count, rel=0.05)
    assert float(number) < 1024 or unit == "PiB"


@pytest.mark.parametrize(
    ("duration", "text"),
    [(0, "0 ms"), (0.31, "310 ms"), (1.04, "1.0 s"), (9.96, "10 s"), (59.4, "59 s"), (59.7, "1m00s"), (250, "4m10s"),
     (7500, "2h05m"), (359_999, "99h59m")],
)  # fmt: skip
def test_durations_for_people(duration: float, text: str) -> None:
    assert seconds(duration) == text


@pytest.mark.parametrize(
    ("duration", "text"), [(-5, "0s"), (12.9, "12s"), (60, "1m"), (3 * 3600 + 5, "3h"), (80.5 * 86400, "80d")]
)
def test_ages_for_people(duration: float, text: str) -> None:
    assert age(duration) == text


def test_one_is_not_many() -> None:
    assert [many(count, "file") for count in (0, 1, 2, 12345)] == ["0 files", "1 file", "2 files", "12,345 files"]


@given(st.text(), st.integers(1, 50))
def test_cut_text_fits_and_short_text_is_whole(text: str, width: int) -> None:
    result = cut(text, width)
    assert len(result) <= width
    assert result == text or len(text) > width


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,63}", fullmatch=True), st.integers(0, 10**9)), max_size=5))
def test_a_table_fits_its_width_and_keeps_the_figures(rows: list[tuple[str, int]]) -> None:
    lines = table(("NAME", "COUNT"), [(name, str(count)) for name, count in rows], right=(1,), width=40)
    assert all(len(line) <= 40 for line in lines)
    for line, (name, count) in zip(lines[1:], rows, strict=True):
        assert line.endswith(str(count))
        assert line.startswith(name[:20])
    assert len({len(line) for line in lines}) == 1, "columns are aligned"


def test_a_meter_tells_amount_share_rate_and_time_left() -> None:
    clock = Clock()
    meter = Meter("looking", clock)
    assert meter.status() == "looking"
    meter.expect(100 * MIB)
    clock.now += 2
    meter.done = 40 * MIB
    assert meter.status() == "40 MiB of 100 MiB (40%), 20 MiB/s, 3.0 s left"
    meter.done = 100 * MIB
    assert meter.status() == "100 MiB, finishing"


def test_a_meter_without_a_total_promises_nothing() -> None:
    clock = Clock()
    meter = Meter("looking", clock)
    meter.expect(None)
    clock.now += 2
    meter.done = 40 * MIB
    assert meter.status() == "40 MiB, 20 MiB/s"


def test_what_an_earlier_try_has_brought_is_done_but_says_nothing_of_the_rate() -> None:
    clock = Clock()
    meter = Meter("looking", clock)
    meter.expect(100 * MIB)
    clock.now += 2
    meter.recall(40 * MIB)
    meter.done += 20 * MIB
    assert meter.status() == "60 MiB of 100 MiB (60%), 10 MiB/s, 4.0 s left"


def test_progress_is_drawn_while_bytes_are_recalled() -> None:
    meter = Meter("looking")
    meter.expect(MIB)
    ended = threading.Event()

    def draw() -> None:
        while not ended.is_set():
            meter.status()

    drawing = threading.Thread(target=draw)
    drawing.start()
    try:
        for _ in range(20_000):
            meter.recall(1)
    finally:
        ended.set()
        drawing.join()
    assert meter.done == 20_000


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """A stalled fetch does not live on the speed that it once had."""
    clock = Clock()
    meter = Meter("looking", clock)
    meter.expect(100 * MIB)
    clock.now += 1
    meter.done = 50 * MIB
    for _ in range(30):
        meter.rate()
        clock.now += 1
    assert meter.rate() == 0
    assert meter.status() == "50 MiB of 100 MiB (50%)"


def test_lines_come_at_the_start_every_five_seconds_and_at_the_end() -> None:
    clock = Clock()
    written: list[str] = []
    with Lines("deps", Meter("looking", clock), written.append) as progress:
        progress.expect(20 * MIB)
        for _ in range(20):
            clock.now += 0.6
            progress.advance(MIB)
    assert written == [
        "deps: looking",
        "deps: 20 MiB to do",
        "deps: 9.0 MiB of 20 MiB (45%), 1.7 MiB/s, 6.6 s left",
        "deps: 18 MiB of 20 MiB (90%), 1.7 MiB/s, 1.2 s left",
        "deps: 20 MiB done in 12 s",
    ]


def test_lines_of_a_failure_end_without_a_success() -> None:
    written: list[str] = []

    def fail() -> None:
        with Lines("deps", Meter("looking"), written.append) as progress:
            progress.advance(1)
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        fail()
    assert written == ["deps: looking"]


def test_results_go_to_out_and_errors_and_progress_to_err() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err)
    terminal.say("result")
    terminal.complain("problem")
    with terminal.progress("deps", "looking") as progress:
        progress.expect(None)
    with terminal.bar("deps", "looking") as progress:
        progress.advance(1)
    assert out.getvalue() == "result\n"
    assert err.getvalue() == "cachefetch: problem\ndeps: looking\n"


@pytest.mark.parametrize(("term", "kind"), [("xterm", Bar), ("dumb", Lines), (None, Lines)])
def test_a_bar_is_shown_only_where_it_can_be(term: str | None, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if term:
        monkeypatch.setenv("TERM", term)
    assert isinstance(Terminal(io.StringIO(), TerminalBuffer()).progress("deps", "looking"), kind)


def test_the_bar_shows_the_status_on_a_real_terminal_and_is_gone_at_the_end() -> None:
    code = """
import sys, time
from cachefetch.terminal import Terminal
terminal = Terminal(sys.stdout, sys.stderr)
with terminal.progress("deps", "looking") as progress:
    progress.expect(100 << 20)
    progress.advance(40 << 20)
    time.sleep(0.5)
"""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=theirs, env=env)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            seen += chunk
    except OSError:  # EIO: the other side has closed
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0
    assert b"deps" in seen
    assert b"40 MiB of 100 MiB (40%)" in seen
    assert b"left" in seen
    assert seen.rstrip().endswith(b"\x1b[2K"), "the last thing done is to erase the line"


def test_rich_is_not_imported_without_a_terminal() -> None:
    code = """
import io, sys
from cachefetch.terminal import Terminal
with Terminal(io.StringIO(), io.StringIO()).progress("deps", "looking") as progress:
    progress.expect(10)
    progress.advance(10)
sys.exit("rich" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
