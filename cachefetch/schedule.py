"""When is which cache due? A timetable without a clock and without side effects: who asks says what time it is.

A cache is due at once when it is declared or changed. After a success it is due again after its interval, give or take
a tenth, so that the nodes of a cluster do not all ask the origin in the same second. After a failure it is due after a
back-off that doubles up to a cap. A cache that is refreshed by hand is due only while it has no version.

Whoever needs a cache may ask for it: then it is due at once and before the others, unless it is in its back-off and the
one who asks is not so impatient as to skip that. Asked for while it runs, it runs once more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cachefetch.config import Prefetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cachefetch.config import Cache

BACKOFF_LEAST = 5.0
"""Seconds until the first retry, at least."""
BACKOFF_MOST = 300.0
"""Seconds between two retries, at most."""
_INTERVAL_SPREAD = 0.1
_BACKOFF_SPREAD = 0.5
_NEVER = math.inf


@dataclass
class _Row:
    cache: Cache
    due: float
    """When its next refresh is to start; `_NEVER`: not before somebody asks."""
    failures: int = 0
    """Since the last success."""
    asked: bool = False
    """Somebody waits for it, so it goes before those that are merely due."""
    again: bool = False
    """Asked for while it runs: what runs may have looked at the source too early for who asks."""
    impatient: bool = False
    """... and also when what runs fails."""


class Look(NamedTuple):
    """What the timetable says about a cache."""

    due: float | None
    """None: it runs, or nothing is planned."""
    failures: int
    running: bool


class Timetable:
    """The declared caches and when each is due. Times are seconds of any clock that does not go back.

    Args:
        draw: a random number in [0, 1), for the jitter.
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._rows: dict[str, _Row] = {}
        self._running: set[str] = set()

    def declare(self, caches: Iterable[Cache], has_version: Callable[[str], bool], now: float) -> None:
        """These and no other caches there are from now on. Caches that did not change keep their time.

        A changed cache is due at once, even in its back-off: the change is likely to be the remedy.
        """
        rows = {}
        for cache in caches:
            row = self._rows.get(cache.name)
            if row is None or row.cache != cache:
                row = _Row(cache, _first(cache, now, has_version=has_version(cache.name)))
            rows[cache.name] = row
        self._rows = rows

    def resume(self, name: str, failures: int, due: float) -> None:
        """A declared cache failed so often before this process began; it is due then, unless somebody has asked."""
        row = self._rows[name]
        if name not in self._running and not row.asked:
            row.failures, row.due = failures, due

    def ask(self, name: str, now: float, *, impatient: bool = False) -> None:
        """Somebody needs a declared cache to be refreshed from now on; `impatient`: also in its back-off."""
        row = self._rows[name]
        if name in self._running:
            row.again = True
            row.impatient = row.impatient or impatient
        elif impatient or not row.failures:
            row.due, row.asked = min(row.due, now), True

    def look(self, name: str) -> Look:
        """How it is with a declared cache."""
        row, running = self._rows[name], name in self._running
        return Look(None if running or row.due == _NEVER else row.due, row.failures, running)

    def take(self, now: float) -> Cache | None:
        """The cache that is next, which is running from now on: first those asked for, then those due for the longest.

        None: nothing is due.
        """
        ready = (row for row in self._waiting() if row.due <= now)
        row = min(ready, key=lambda row: (not row.asked, row.due), default=None)
        if row is None:
            return None
        row.due, row.asked, row.again, row.impatient = _NEVER, False, False, False
        self._running.add(row.cache.name)
        return row.cache

    @property
    def running(self) -> int:
        """How many caches run, also of those that are not declared any more."""
        return len(self._running)

    def next_due(self) -> float | None:
        """When the next cache is due; None: none is before something changes."""
        due = min((row.due for row in self._waiting()), default=_NEVER)
        return None if due == _NEVER else due

    def succeeded(self, cache: Cache, now: float) -> int:
        """The refresh of a running cache ended well; returns how many failures came before."""
        self._running.discard(cache.name)
        row = self._rows.get(cache.name)
        if row is None:
            return 0
        failures, row.failures = row.failures, 0
        if row.cache == cache:  # otherwise it was declared anew meanwhile and has its time already
            row.due = _after_success(cache, now, self._draw())
        if row.again:
            row.due, row.asked = now, True
        return failures

    def failed(self, cache: Cache, now: float, *, counts: bool = True) -> float | None:
        """The refresh of a running cache failed; returns the seconds until the next try, None when there is none.

        `counts` is False when it is nobody's fault: another process works on the cache.
        """
        self._running.discard(cache.name)
        row = self._rows.get(cache.name)
        if row is None:
            return None
        if row.cache == cache:
            row.failures += counts
            row.due = now + backoff(max(1, row.failures), self._draw())
        if row.again and row.impatient:
            row.due, row.asked = now, True
        return None if row.due == _NEVER else max(0.0, row.due - now)

    def _waiting(self) -> Iterator[_Row]:
        return (row for name, row in self._rows.items() if name not in self._running)


def backoff(failures: int, draw: float) -> float:
    """Seconds to wait after so many failures in a row, within `BACKOFF_LEAST` and `BACKOFF_MOST`.

    The base doubles, and up to half of it is added at random, so that nodes that failed together do not retry together.
    """
    most = BACKOFF_MOST / (1 + _BACKOFF_SPREAD)
    doublings = min(failures - 1, 16)  # far beyond the cap, far below an overflow
    return min(most, BACKOFF_LEAST * 2.0**doublings) * (1 + _BACKOFF_SPREAD * draw)


def _first(cache: Cache, now: float, *, has_version: bool) -> float:
    """When a cache that was just declared is due."""
    if has_version:
        return _NEVER if cache.refresh.manual else now
    return now if cache.prefetch is Prefetch.ALWAYS else _NEVER


def _after_success(cache: Cache, now: float, draw: float) -> float:
    interval = cache.refresh.interval
    if interval is None:
        return _NEVER
    return now + interval * (1 - _INTERVAL_SPREAD + 2 * _INTERVAL_SPREAD * draw)
