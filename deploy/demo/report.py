"""What the demo shows: numbered steps, claims that were checked, tables. Plain text, colours on a terminal only."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, TextIO

from cachefetch.terminal import table

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 92
"""Columns that a line may have."""
_BOLD, _DIM, _GREEN, _RED = "1", "2", "32", "31"
_MS = 1000


class ClaimFailed(Exception):
    """Something that the demo says of goldlink is not so; the text is the claim and what was found instead."""


class Report:
    """Writes to `out` and remembers what was proved."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = out.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
        self._step = 0
        self.proved = 0
        """How many claims were checked and hold."""

    def title(self, text: str, explanation: str) -> None:
        """What this is, for somebody who has never heard of it."""
        self._say(self._paint(text, _BOLD))
        self._say(self._paint("=" * len(text), _DIM))
        self._paragraph(explanation, "")
        self._say("")

    def step(self, title: str, meaning: str) -> None:
        """Begin a step; `meaning` says what it proves."""
        self._step += 1
        self._say("")
        self._say(self._paint(f"{self._step}. {title}", _BOLD))
        self._paragraph(meaning, "   ")

    def heading(self, title: str) -> None:
        """Begin a part that is no step."""
        self._say("")
        self._say(self._paint(title, _BOLD))

    def command(self, line: str) -> None:
        """What is run now, as one would type it."""
        self._say(self._paint(f"   $ {line}", _DIM))

    def output(self, text: str) -> None:
        """What a command answered."""
        for line in text.splitlines():
            self._paragraph(line, "     ")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """Aligned columns; `right` numbers those set to the right, as figures are."""
        head, *lines = table(header, rows, right=right, width=WIDTH - 3)
        self._say(self._paint(f"   {head}", _DIM))
        for line in lines:
            self._say(f"   {line}")

    def claim(self, text: str, *, holds: bool, found: str) -> None:
        """Say that the claim was checked.

        Raises:
            ClaimFailed: it does not hold; `found` tells what is the case instead.
        """
        if not holds:
            raise ClaimFailed(f"{text}: {found}")
        self.proved += 1
        head, *rest = textwrap.wrap(text, WIDTH - 6)
        self._say(f"   {self._paint('ok', _GREEN)} {head}")
        for line in rest:
            self._say(f"      {line}")

    def failed(self, text: str) -> None:
        """Say what went wrong, last of all."""
        self._say("")
        head, *rest = textwrap.wrap(text, WIDTH - 7, break_on_hyphens=False)
        self._say(f"{self._paint('FAILED', _RED)} {head}")
        for line in rest:
            self._say(f"       {line}")

    def paragraph(self, text: str) -> None:
        """A few sentences."""
        self._paragraph(text, "")

    def _paragraph(self, text: str, indent: str) -> None:
        wrapped = textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        for line in wrapped:
            self._say(line)

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def took(seconds: float) -> str:
    """A duration in milliseconds below one second, in seconds from there on."""
    return f"{seconds * _MS:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
