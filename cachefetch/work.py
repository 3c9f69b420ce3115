"""What the fetcher does for one cache, in states, numbers and words. No clock, no lock, no side effects.

The refreshes of a cache are numbered. They never overlap, so a number also says when one began: whoever needs to know
what the source holds *now* must not be answered by a refresh that began before the question.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cachefetch.terminal import seconds, size

if TYPE_CHECKING:
    from cachefetch.model import Version
    from cachefetch.refresh import Refreshed
    from cachefetch.schedule import Look
    from cachefetch.terminal import Meter


class State(StrEnum):
    """What a declared cache is doing."""

    IDLE = "idle"
    """Until its next refresh there is nothing to do."""
    QUEUED = "queued"
    """It is due and waits for its turn."""
    LOOKING = "looking"
    """Its source is asked what there is."""
    FETCHING = "fetching"
    """A new version is fetched."""
    FAILED = "failed"
    """The last try failed; it waits for the next one."""
    UNHELD = "unheld"
    """Its `nodeSelector` keeps it from this node."""


@dataclass(frozen=True)
class Ended:
    """How a refresh ended."""

    seconds: float
    refreshed: Refreshed | None = None
    """None: it failed."""
    error: str = ""
    """Why, and the remedy; empty: it did not fail."""
    dropped: tuple[Version, ...] = ()
    """Versions that were collected afterwards."""
    kept: str = ""
    """Why older versions stay for now; empty: nothing hindered."""


@dataclass
class Work:
    """The refreshes of one cache."""

    begun: int = 0
    """The number of the last one that began."""
    ended: int = 0
    """The number of the last one that ended."""
    last: Ended | None = None
    """How that ended; None: it was interrupted by the end of the daemon, or there was none."""
    meter: Meter | None = None
    """How far the one that runs is; None: none does."""
    fetching: bool = False
    """The one that runs found a new version."""
    error: str = ""
    """Why the last one failed; empty: it did not."""

    def ticket(self, *, join: bool) -> int:
        """The number of the refresh that will answer who asks now; with `join` the one that runs will do."""
        return self.begun + (0 if join and self.begun > self.ended else 1)

    def begin(self, meter: Meter) -> None:
        """The next one begins."""
        self.begun += 1
        self.meter, self.fetching = meter, False

    def end(self, how: Ended | None) -> None:
        """The one that runs is over."""
        self.ended = self.begun
        self.meter, self.fetching, self.last = None, False, how
        if how is not None:
            self.error = how.error

    def answer(self, ticket: int) -> Ended | None:
        """How it ended for who has this ticket; None: not yet."""
        return self.last if self.ended >= ticket else None


@dataclass(frozen=True)
class Status:
    """A declared cache at one moment."""

    cache: str
    state: State
    current: str
    """Empty: there is no version."""
    done: int
    """Bytes, of the fetch that runs."""
    total: int | None
    """None: the source does not say, or none runs."""
    next_in: float | None
    """Seconds until the next refresh; None: none is planned."""
    error: str
    failures: int
    text: str
    """For people: how far it is."""

    def news(self) -> tuple[object, ...]:
        """What must differ to be worth an event: not how far it is."""
        return self.state, self.current, self.error, self.failures


def status(cache: str, work: Work, look: Look, current: str, now: float) -> Status:
    """The cache as it is at the time `now` of the timetable's clock."""
    state = _state(work, look, now)
    next_in = None if look.due is None else max(0.0, look.due - now)
    meter = work.meter
    return Status(
        cache=cache,
        state=state,
        current=current,
        done=meter.done if meter else 0,
        total=meter.total if meter else None,
        next_in=next_in,
        error=work.error,
        failures=look.failures,
        text=_text(state, meter, next_in, work.error),
    )


def unheld_status(cache: str, current: str, reason: str) -> Status:
    """A cache that this node does not hold, and why; `current` is left from when it did."""
    return Status(cache, State.UNHELD, current, 0, None, None, "", 0, reason)


def _state(work: Work, look: Look, now: float) -> State:
    if look.running:
        return State.FETCHING if work.fetching else State.LOOKING
    if look.due is not None and look.due <= now:
        return State.QUEUED
    return State.FAILED if work.error else State.IDLE


def _text(state: State, meter: Meter | None, next_in: float | None, error: str) -> str:
    if state is State.FETCHING and meter is not None:
        return f"fetching {how_far(meter)}"
    if state is State.LOOKING:
        return "its source is being looked at"
    if state is State.QUEUED:
        return "it waits for its turn to be fetched"
    when = "only by hand" if next_in is None else f"in {seconds(next_in)}"
    return f"last try failed: {error}; next {when}" if state is State.FAILED else f"next refresh {when}"


def how_far(meter: Meter) -> str:
    """`340 MiB of 1.2 GiB, 28%, 12 s left`."""
    done, total, rate = meter.done, meter.total, meter.rate()
    if total is None:
        return size(done)
    if done >= total:
        return f"{size(done)}, finishing"
    left = f", {seconds((total - done) / rate)} left" if rate else ""
    return f"{size(done)} of {size(total)}, {100 * done // total}%{left}"
