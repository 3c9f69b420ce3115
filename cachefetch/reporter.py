"""Tells the cluster what is on this node: a thread that looks, compares with what it has told, and tells the rest.

Nothing depends on what it tells. When the API server is away, that is told later; when it refuses, the log says so. One
thing is read: the node's labels, which decide what it holds. Those that were read last stay in force.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cachefetch import listing, reports
from cachefetch.cluster import ApiError
from cachefetch.errors import DataError, GoldlinkError, UnknownVersion
from cachefetch.fetches import Stopping
from cachefetch.logs import fields
from cachefetch.nodes import Node
from cachefetch.reports import Told
from cachefetch.work import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefetch.cluster import Api
    from cachefetch.fetches import Fetches
    from cachefetch.model import Version
    from cachefetch.records import VolumeRecord
    from cachefetch.reports import Place
    from cachefetch.store import Store
    from cachefetch.waiting import Wait, Waiting
    from cachefetch.work import Status

_LOOK = 1.0
"""Seconds between two looks at pods."""
_CACHES = 10.0
"""Seconds between two looks at caches: a thousand nodes that fetch are a hundred calls a second, as kubelets make."""
_LABELS = 60.0
"""Seconds between two looks at the labels of the node."""
_COMPARE = 300.0
"""Seconds between two comparisons with what the API server really has."""
_PAUSE = 30.0
"""Seconds after a failure."""
_SETTLE = 1.0
"""Seconds after which a volume is mounted, or its record is gone again; and a wait is worth an event."""
_REPEAT = 10.0
"""Seconds between two events about the same wait."""
_DOUBLINGS = 4
"""Of these seconds while a fetch fails: a thousand nodes whose source is down must not keep the API server busy."""
_RECENT = 300.0
"""Seconds: volumes that were mounted earlier, before this process was there, were told of by the one before."""
_GRACE = 1.0
"""Seconds that a call under way gets when the process ends."""

_log = logging.getLogger(__name__)


class PodEvents:
    """Events of the pods that have volumes here or wait for them."""

    def __init__(
        self,
        api: Api,
        place: Place,
        store: Store,
        fetches: Fetches,
        waiting: Waiting,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Tell `api` of volumes in `store` and of who is `waiting`; `wall` tells the seconds since the epoch."""
        self._api = api
        self._place = place
        self._store = store
        self._fetches = fetches
        self._waiting = waiting
        self._wall = wall
        self._volumes: set[str] = set()
        self._waits: dict[tuple[str, str], Told] = {}

    def look(self) -> None:
        """Tell what is new.

        Raises:
            ApiError: that failed; it is still new.
        """
        self._look_at_volumes()
        self._look_at_waits()

    def _look_at_volumes(self) -> None:
        ids = set(self._store.records.ids())
        self._volumes &= ids
        for volume_id in sorted(ids - self._volumes):
            record = self._store.records.read(volume_id)
            if record is None or self._wall() - record.created < _SETTLE:
                continue
            if record.pod_uid and self._wall() - record.created < _RECENT:
                self._tell(reports.mounted(self._place, record, self._version(record)))
            self._volumes.add(volume_id)

    def _look_at_waits(self) -> None:
        now, waits = self._wall(), self._waiting.all()
        statuses = {status.cache: status for status in self._fetches.statuses()} if waits else {}
        self._waits = {key: told for key, told in self._waits.items() if now - told.last < _RECENT}
        for wait in waits:
            status = statuses.get(wait.cache)
            told = self._waits.get((wait.pod.uid, wait.cache))
            if status is None or now < (told.last + _pause(told, status) if told else wait.since + _SETTLE):
                continue
            text = reports.explain(self._place, wait, status)
            if told is None or told.text != text:
                self._tell_wait(wait, _next(told, text, wait.since, now), failing=status.state is State.FAILED)

    def _tell_wait(self, wait: Wait, told: Told, *, failing: bool) -> None:
        self._tell(reports.awaited(self._place, wait, told, failing=failing))
        self._waits[wait.pod.uid, wait.cache] = told

    def _tell(self, event: dict[str, Any]) -> None:
        try:
            self._api.apply(reports.event_path(event), event)
        except ApiError as error:
            if not error.final:
                raise
            _log.info("event_refused", extra=fields(error=error))  # its namespace is going, for example

    def _version(self, record: VolumeRecord) -> Version | None:
        try:
            return self._store.version(record.cache, record.version)
        except (UnknownVersion, DataError):
            return None


def _pause(told: Told, status: Status) -> float:
    """Seconds to the next event about the same wait: longer and longer while nothing but the next try is new."""
    return _REPEAT * (2 ** min(told.times - 1, _DOUBLINGS) if status.state is State.FAILED else 1)


def _next(told: Told | None, text: str, since: float, now: float) -> Told:
    return Told(text, told.first, now, told.times + 1) if told else Told(text, since, now, 1)


class NodeCaches:
    """One object for each cache that is declared or in the store."""

    def __init__(
        self, api: Api, place: Place, store: Store, fetches: Fetches, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Tell `api` of the caches in `store`, and what `fetches` does about them; `clock` never goes back."""
        self._api = api
        self._place = place
        self._store = store
        self._fetches = fetches
        self._clock = clock
        self._told: dict[str, dict[str, Any]] = {}
        self._compare_at = clock()

    def look(self) -> None:
        """Tell what is new, and withdraw what is gone.

        Raises:
            ApiError: that failed, for one at least; the others were told unless there was no answer.
        """
        if self._clock() >= self._compare_at:
            self._compare()
            self._compare_at = self._clock() + _COMPARE
        wanted = {report["metadata"]["name"]: report for report in self._reports()}
        failure = None
        for name in sorted({*wanted, *self._told}):
            try:
                self._settle(name, wanted.get(name))
            except ApiError as error:
                failure = error
                if not error.final:
                    break
        if failure:
            raise failure

    def _compare(self) -> None:
        """Take what the API server has for what was told: others may have changed that."""
        try:
            there = self._api.names(reports.caches_path(self._place), reports.selector(self._place))
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            # Helm installs definitions with the first release of a chart and never with an upgrade.
            text = "the cluster knows no NodeCaches: apply crds/nodecaches.yaml of the chart"
            raise ApiError(text, error.status) from error
        self._told = {name: self._told.get(name, {}) for name in there}

    def _settle(self, name: str, report: dict[str, Any] | None) -> None:
        path = reports.caches_path(self._place, name)
        if report is None:
            self._api.delete(path)
            del self._told[name]
        elif self._told.get(name) != report:
            self._api.apply(path, report)
            self._told[name] = report

    def _reports(self) -> list[dict[str, Any]]:
        statuses = {status.cache: status for status in self._fetches.statuses()}
        by_cache = groupby(listing.rows(self._store, list(statuses)), key=lambda row: row.cache)
        return [reports.node_cache(self._place, list(rows), statuses.get(cache)) for cache, rows in by_cache]


class NodeLabels:
    """The labels of this node."""

    def __init__(self, api: Api, place: Place, fetches: Fetches) -> None:
        """Ask `api`, and tell `fetches`, which knows no labels until then."""
        self._api = api
        self._place = place
        self._fetches = fetches
        fetches.locate(Node(place.node))

    def look(self) -> None:
        """Take the labels as they are now.

        Raises:
            ApiError: that failed; those known stay in force.
        """
        self._fetches.locate(Node(self._place.node, self._api.labels(reports.node_path(self._place))))


@dataclass
class _Job:
    """Something that is done again and again."""

    every: float
    run: Callable[[], None]
    due: float = 0.0
    complaint: str = ""
    """Why it failed last, which is logged once."""


class Reporter:
    """A thread that looks and tells, from `start` to `stop`."""

    def __init__(self, api: Api, place: Place, store: Store, fetches: Fetches, waiting: Waiting) -> None:
        """Tell `api` of what `store` has, what `fetches` does, and who is `waiting`."""
        self._jobs = [
            _Job(_LABELS, NodeLabels(api, place, fetches).look),
            _Job(_LOOK, PodEvents(api, place, store, fetches, waiting).look),
            _Job(_CACHES, NodeCaches(api, place, store, fetches).look),
        ]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is not told by now is not told."""
        self._ending.set()
        self._thread.join(_GRACE)

    def _run(self) -> None:
        while not self._ending.wait(_LOOK):
            for job in self._jobs:
                if time.monotonic() >= job.due:
                    job.due = time.monotonic() + (job.every if self._do(job) else _PAUSE)

    def _do(self, job: _Job) -> bool:
        """Whether it could be done."""
        try:
            job.run()
        except Stopping:
            return False
        except (GoldlinkError, OSError) as error:
            if str(error) != job.complaint:
                _log.warning("cluster_not_told", extra=fields(error=error))
                job.complaint = str(error)
            return False
        except Exception:  # noqa: BLE001  (the edge of the thread: a defect ends this look, not the next)
            _log.exception("cluster_not_told")
            return False
        job.complaint = ""
        return True
