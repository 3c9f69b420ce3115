"""What the command line shows to people: sizes and ages in words, tables, and progress.

Results go to stdout and can be piped; progress and errors go to stderr. Progress is a bar where stderr is a terminal,
and lines elsewhere. `rich` is imported only for the bar.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Self, TextIO

from cachefetch.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from rich.console import RenderableType
    from rich.live import Live

    from cachefetch.progress import Progress

_LINE_EVERY = 5.0
_RATE_WINDOW = 10.0
_BAR_WIDTH = 24
_BINARY = 1024
_PRECISE_BELOW = 9.95  # where one decimal still says something
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_AGES = ((86400, "d"), (3600, "h"), (60, "m"))


class Terminal:
    """Where a command writes to.

    Args:
        out: results.
        err: progress and errors.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err

    def say(self, line: str) -> None:
        """One line of the result; visible at once, also in a pipe."""
        print(line, file=self._out, flush=True)

    def complain(self, text: str) -> None:
        """One error."""
        print(f"cachefetch: {text}", file=self._err, flush=True)

    def progress(self, label: str, waiting: str) -> AbstractContextManager[Progress]:
        """Progress of the work on `label`; until bytes are expected or arrive, `waiting` says what is going on."""
        meter = Meter(waiting)
        if self._animated():
            return Bar(label, meter, self._err)
        return Lines(label, meter, lambda line: print(line, file=self._err, flush=True))

    def bar(self, label: str, waiting: str) -> AbstractContextManager[Progress]:
        """As `progress`, but nothing where a bar cannot be shown."""
        return Bar(label, Meter(waiting), self._err) if self._animated() else nullcontext(Silent())

    def _animated(self) -> bool:
        return self._err.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Meter:
    """How far a piece of work is, how fast it goes, and when it will be done.

    Args:
        waiting: what goes on before the first byte.
        clock: seconds.
    """

    def __init__(self, waiting: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.waiting = waiting
        self.clock = clock
        self.started = clock()
        self.total: int | None = None
        self.done = 0
        self._recalled = 0
        self._samples = deque([(self.started, 0)])
        """When, and how many bytes had come by then that were not recalled."""

    def expect(self, total: int | None) -> None:
        """There will be so many bytes."""
        self.total = total
        self._samples = deque([(self.clock(), self.done - self._recalled)])

    def recall(self, count: int) -> None:
        """So many bytes are done, and say nothing of how fast the others come."""
        self._recalled += count  # and not the samples, which another thread may be drawing from
        self.done += count

    def rate(self) -> float:
        """Bytes a second over the last ten seconds."""
        now, come = self.clock(), self.done - self._recalled
        self._samples.append((now, come))
        while len(self._samples) > 2 and now - self._samples[1][0] > _RATE_WINDOW:  # noqa: PLR2004  (two make a rate)
            self._samples.popleft()
        then, before = self._samples[0]
        return max(0, come - before) / (now - then) if now > then else 0.0

    def status(self) -> str:
        """In words: `340 MiB of 1.2 GiB (28%), 68 MiB/s, 13 s left`."""
        rate = self.rate()
        if self.total is None and not self.done:
            return self.waiting
        if self.total is not None and self.done >= self.total:
            return f"{size(self.done)}, finishing"
        speed = f", {size(int(rate))}/s" if rate else ""
        if self.total is None:
            return f"{size(self.done)}{speed}"
        left = f", {seconds((self.total - self.done) / rate)} left" if rate else ""
        return f"{size(self.done)} of {size(self.total)} ({100 * self.done // self.total}%){speed}{left}"


class Lines:
    """Progress as lines: one at the start, one about every five seconds, one at the end."""

    def __init__(self, label: str, meter: Meter, write: Callable[[str], None]) -> None:
        self._label = label
        self._meter = meter
        self._write = write
        self._next = meter.started + _LINE_EVERY

    def __enter__(self) -> Self:
        """Write the first line."""
        self._write(f"{self._label}: {self._meter.waiting}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Write the last line, if there was anything to do and it went well."""
        if kind is None and self._meter.done:
            took = self._meter.clock() - self._meter.started
            self._write(f"{self._label}: {size(self._meter.done)} done in {seconds(took)}")

    def expect(self, total: int | None) -> None:
        """Write how much there is to do."""
        self._meter.expect(total)
        if total:
            self._write(f"{self._label}: {size(total)} to do")

    def advance(self, count: int) -> None:
        """Write a line when the last one is old enough."""
        self._meter.done += count
        now = self._meter.clock()
        if now >= self._next:
            self._next = now + _LINE_EVERY
            self._write(f"{self._label}: {self._meter.status()}")

    def recall(self, count: int) -> None:
        """As `advance`, without an influence on the rate."""
        self._meter.recall(count)
        self.advance(0)


class Bar:
    """Progress as a bar at the bottom of a terminal, gone at the end."""

    def __init__(self, label: str, meter: Meter, stream: TextIO) -> None:
        self._label = label
        self._meter = meter
        self._stream = stream
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Show it; a thread of rich redraws it, also while nothing arrives."""
        from rich.console import Console  # noqa: PLC0415  (the rest of the command line does not pay for rich)
        from rich.live import Live  # noqa: PLC0415

        console = Console(file=self._stream)
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=10, transient=True)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Take it away, with or without an error."""
        if self._live is not None:
            self._live.stop()

    def expect(self, total: int | None) -> None:
        """So many bytes make a full bar."""
        self._meter.expect(total)

    def advance(self, count: int) -> None:
        """Only counts: the drawing thread looks by itself."""
        self._meter.done += count

    def recall(self, count: int) -> None:
        """As `advance`, without an influence on the rate."""
        self._meter.recall(count)

    def _draw(self) -> RenderableType:
        from rich.progress_bar import ProgressBar  # noqa: PLC0415  (see __enter__)
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        meter = self._meter
        row = Table.grid(padding=(0, 1))
        row.add_row(
            Text(cut(self._label, 32), no_wrap=True),
            ProgressBar(meter.total or 1, meter.done, width=_BAR_WIDTH, pulse=not meter.total),
            Text(meter.status(), no_wrap=True, overflow="ellipsis"),
        )
        return row


def size(count: int) -> str:
    """Bytes for people: `812 B`, `3.4 MiB`, `120 GiB`."""
    value, unit = float(count), 0
    while value >= _BINARY - 0.5 and unit < len(_UNITS) - 1:  # what would round to 1024 belongs to the next unit
        value /= _BINARY
        unit += 1
    precise = unit and value < _PRECISE_BELOW
    return f"{value:.1f} {_UNITS[unit]}" if precise else f"{value:.0f} {_UNITS[unit]}"


def seconds(duration: float) -> str:
    """A duration for people: `310 ms`, `2.3 s`, `13 s`, `4m10s`, `2h05m`."""
    if duration < 1:
        return f"{1000 * duration:.0f} ms"
    if duration < _PRECISE_BELOW:
        return f"{duration:.1f} s"
    whole = round(duration)
    if whole < 60:  # noqa: PLR2004  (a minute)
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004  (an hour)
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def age(duration: float) -> str:
    """How old something is, in its largest unit: `12s`, `5m`, `3h`, `80d`; a clock that was set back makes no age."""
    for unit, name in _AGES:
        if duration >= unit:
            return f"{int(duration // unit)}{name}"
    return f"{max(0, int(duration))}s"


def many(count: int, noun: str) -> str:
    """`1 file`, `1,234 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns."""
    return text if len(text) <= width else text[: width - 1] + "…"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int], width: int) -> list[str]:
    """Lines of a table at most `width` wide; the first column is cut to make it fit.

    `right` numbers the columns that are set to the right, as figures are.
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rest = sum(widths[1:]) + 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(len(header[0]), width - rest))
    return [
        "  ".join(
            cell.rjust(widths[column]) if column in right else cut(cell, widths[column]).ljust(widths[column])
            for column, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]
