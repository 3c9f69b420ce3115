"""Who waits for what: the timetable and the work of every declared cache behind one lock, for the daemon's threads.

One refresh at a time for each cache, whoever asks. Those who wait hold neither a lock nor the fetch, so it goes on when
they are gone; they are woken by every change, and look at least once a second.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from cachefetch import nodes
from cachefetch.errors import Code, GoldlinkError, NotReady, Precondition, UnknownCache, UnknownVersion
from cachefetch.journal import Failure
from cachefetch.model import short_id
from cachefetch.refresh import identify
from cachefetch.schedule import BACKOFF_MOST, Timetable
from cachefetch.terminal import Meter
from cachefetch.work import Work, status, unheld_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cachefetch.config import Cache
    from cachefetch.journal import Journal
    from cachefetch.nodes import Node
    from cachefetch.store import Store
    from cachefetch.work import Ended, Status

_TELL = 1.0
"""Seconds between two looks of who waits."""
_NOTICE = 3.0
"""Seconds in which a change of the configuration, which who asks knows already, must have been noticed here, too."""


class Stopping(GoldlinkError):
    """The daemon ends: ask again when it is back."""

    code = Code.UNAVAILABLE


def declaration(cache: Cache) -> str:
    """A name for everything that is declared about the cache."""
    return hashlib.sha256(msgspec.json.encode(cache, order="sorted", enc_hook=str)).hexdigest()[:16]


class Fetches:
    """What is declared, what runs, how it ended. Used from any thread."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        draw: Callable[[], float],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Resume the back-off that `journal` tells.

        Args:
            store: where versions arrive.
            journal: keeps the failures.
            draw: a random number in [0, 1).
            clock: seconds; does not go back.
            wall: seconds since the epoch; may jump.
        """
        self._store = store
        self._journal = journal
        self._clock = clock
        self._wall = wall
        self._timetable = Timetable(draw)
        self._changed = threading.Condition()
        self._changes = 0
        self._caches: tuple[Cache, ...] = ()
        self._node: Node | None = None
        self._declared: dict[str, Cache] = {}  # those that this node holds
        self._unheld: dict[str, str] = {}  # why it does not hold the others
        self._works: dict[str, Work] = {}
        self._failures = journal.read()
        self._closed = False

    # For the daemon

    def declare(self, caches: Sequence[Cache]) -> None:
        """These and no other caches there are from now on."""
        with self._changed:
            self._caches = tuple(caches)
            self._hold()

    def locate(self, node: Node) -> None:
        """The node is this one, and holds what its labels select from now on; before there was no cluster."""
        with self._changed:
            if node != self._node:
                self._node = node
                self._hold()

    def next(self, most: int) -> Cache | None:
        """Wait until a cache is due and fewer than `most` run; it runs from now on. None: the daemon ends."""
        with self._changed:
            while not self._closed:
                running = self.running
                if running < most and (cache := self._timetable.take(self._clock())):
                    self._works[cache.name].begin(Meter("", self._clock))
                    self._notify()
                    return cache
                due = self._timetable.next_due()
                idle = due is None or running >= most  # until something changes
                self._changed.wait(None if idle or due is None else max(0.0, due - self._clock()))
        return None

    @property
    def running(self) -> int:
        """Refreshes that run now, also of caches that are not declared any more."""
        return self._timetable.running

    def fetching(self, name: str, total: int | None) -> None:
        """The refresh that runs found a new version of so many bytes."""
        with self._changed:
            work = self._works.get(name)
            if work is not None and work.meter is not None:
                work.meter.expect(total)
                work.fetching = True
            self._notify()

    def advance(self, name: str, count: int) -> None:
        """So many bytes more. Called for every chunk, so it takes no lock: only the thread of the refresh counts."""
        work = self._works.get(name)
        if work is not None and (meter := work.meter) is not None:
            meter.done += count

    def recall(self, name: str, count: int) -> None:
        """As `advance`, of bytes that an earlier fetch has brought: they say nothing of how fast the others come."""
        work = self._works.get(name)
        if work is not None and (meter := work.meter) is not None:
            meter.recall(count)

    def published(self) -> None:
        """A version may be there now, although its refresh is not over yet."""
        with self._changed:
            self._notify()

    def succeeded(self, cache: Cache, ended: Ended) -> int:
        """The refresh that runs is over; returns how many failures came before."""
        with self._changed:
            failures = self._timetable.succeeded(cache, self._clock())
            self._end(cache, ended)
            if self._failures.pop(cache.name, None):
                self._journal.write(self._failures)
            self._notify()
        return failures

    def failed(self, cache: Cache, ended: Ended, *, counts: bool = True) -> float | None:
        """The refresh that runs failed; returns the seconds until the next try, None when there is none."""
        with self._changed:
            retry = self._timetable.failed(cache, self._clock(), counts=counts)
            self._end(cache, ended)
            if retry is not None and counts and self._declared[cache.name] == cache:
                failures = self._timetable.look(cache.name).failures
                self._failures[cache.name] = Failure(
                    source=identify(cache), count=failures, error=ended.error, retry=self._wall() + retry
                )
                self._journal.write(self._failures)
            self._notify()
        return retry

    def interrupted(self, cache: Cache) -> None:
        """The refresh that runs was ended by `close`."""
        with self._changed:
            self._end(cache, None)
            self._notify()

    @property
    def unheld(self) -> Mapping[str, str]:
        """The declared caches that this node does not hold, and why."""
        return self._unheld

    @property
    def closed(self) -> bool:
        """Whether the daemon ends."""
        return self._closed

    def close(self) -> None:
        """Nothing begins any more, and nobody waits any more."""
        with self._changed:
            self._closed = True
            self._notify()

    # For those who ask (`asking`)

    @property
    def changes(self) -> int:
        """How often something has changed so far; for `wait`."""
        return self._changes

    def wait(self, changes: int) -> None:
        """Return when something has changed since `changes` was read, at the latest after a second."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != changes, _TELL)

    def find(self, name: str, version: str) -> str | None:
        """The id of the version, or with an empty one of what is current, if that is on this node."""
        wanted = version or self._store.current(name)
        return wanted if wanted and self._store.has(name, wanted) else None

    def statuses(self) -> list[Status]:
        """Every declared cache, in the order of the configuration.

        Raises:
            Stopping: the daemon ends.
        """
        with self._changed:
            self._check_open()
            return [self._status(cache.name) for cache in self._caches]

    def look(self, name: str, ticket: int) -> tuple[Status, Ended | None]:
        """How it is with the cache, and how the refresh of this number or a later one ended, if it did.

        Raises:
            UnknownCache: it is not declared.
            Precondition: this node does not hold it; NotReady: its labels are not known yet.
            Stopping: the daemon ends.
        """
        with self._changed:
            self._check_open()
            answer = self._work(name).answer(ticket)
            return self._status(name), answer

    def noticed(self, name: str, known: str) -> None:
        """Return when the cache is declared here as who asks knows it: the configuration is followed by looking.

        How one that this node does not hold is declared makes no difference.

        Raises:
            UnknownCache: it is not declared.
            Precondition: it is declared in another way than `known` says; empty: any.
        """

        def holds() -> bool:
            cache = self._declared.get(name)
            return self._closed or name in self._unheld or (cache is not None and known in {"", declaration(cache)})

        with self._changed:
            if not self._changed.wait_for(holds, _NOTICE):
                self._work(name)
                raise Precondition(
                    f"cache {name!r} is declared in another way to the fetcher that runs: give the configuration that "
                    "it follows, and see its log for a configuration that it refused"
                )

    def demand(self, name: str, version: str) -> int:
        """Have the version fetched; returns the number of the refresh that decides about it.

        For whatever is current the refresh that runs will do. A cache in its back-off is not tried earlier.

        Raises:
            UnknownCache: the cache is not declared.
            Precondition: this node does not hold it; NotReady: its labels are not known yet.
            UnknownVersion: nothing but its administrator moves the cache.
        """
        with self._changed:
            work = self._work(name)
            current = self._store.current(name)
            if version and current and self._declared[name].refresh.manual:
                raise UnknownVersion(
                    f"cache {name!r} has no version {short_id(version)} here and is refreshed by hand only: name "
                    f"{short_id(current)}, which is current, or run 'cachefetch refresh {name}'"
                )
            ticket = work.ticket(join=not version)
            if ticket > work.begun:
                self._timetable.ask(name, self._clock())
                self._notify()
            return ticket

    def hurry(self, names: Iterable[str]) -> dict[str, int]:
        """Refresh the caches now, whatever failed before; returns the numbers of the refreshes that begin from now on.

        Raises:
            UnknownCache: one is not declared.
            Precondition: this node does not hold one; NotReady: its labels are not known yet.
        """
        with self._changed:
            tickets = {name: self._work(name).ticket(join=False) for name in names}
            for name in tickets:
                self._timetable.ask(name, self._clock(), impatient=True)
            self._notify()
            return tickets

    # Behind the lock

    def _hold(self) -> None:
        """Work out anew what this node holds of what is declared. What did not change keeps its time."""
        reasons = {cache.name: nodes.unheld(cache, self._node) for cache in self._caches}
        self._unheld = {name: reason for name, reason in reasons.items() if reason}
        held = [cache for cache in self._caches if cache.name not in self._unheld]
        now, before = self._clock(), self._declared
        self._timetable.declare(held, self._has_version, now)
        self._declared = {cache.name: cache for cache in held}
        self._works = {name: self._works.get(name) or Work() for name in self._declared}
        for cache in held:
            if cache.name not in before:
                self._resume(cache, now)
        self._notify()

    def _resume(self, cache: Cache, now: float) -> None:
        failure = self._failures.get(cache.name)
        if failure is None or failure.source != identify(cache):
            return
        left = min(max(0.0, failure.retry - self._wall()), BACKOFF_MOST)  # the clock may have jumped
        self._timetable.resume(cache.name, failure.count, now + left)
        self._works[cache.name].error = failure.error

    def _has_version(self, name: str) -> bool:
        return self._store.current(name) is not None

    def _end(self, cache: Cache, ended: Ended | None) -> None:
        work = self._works.get(cache.name)
        if work is not None:
            work.end(ended)

    def _work(self, name: str) -> Work:
        work = self._works.get(name)
        if work is None:
            if reason := self._unheld.get(name):
                unknown = self._node is not None and self._node.labels is None
                raise NotReady(reason) if unknown else Precondition(reason)
            known = ", ".join(self._declared) or "none"
            raise UnknownCache(f"the fetcher knows no cache {name!r}: declared are {known}")
        return work

    def _status(self, name: str) -> Status:
        current = self._store.current(name) or ""
        if reason := self._unheld.get(name):
            return unheld_status(name, current, reason)
        return status(name, self._works[name], self._timetable.look(name), current, self._clock())

    def _check_open(self) -> None:
        if self._closed:
            raise Stopping("the fetcher stops: ask again when it is back")

    def _notify(self) -> None:
        self._changes += 1
        self._changed.notify_all()
