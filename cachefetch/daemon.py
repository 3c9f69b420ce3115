"""The daemon: refreshes every declared cache when it is due or asked for, ends when told to.

One thread decides what is next (`fetches`), a few work, so that a slow origin does not hold up the others. A running
fetch is interrupted by its own progress: the call that counts the next bytes raises. What was downloaded stays.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cachefetch import trash
from cachefetch.bandwidth import Bandwidth
from cachefetch.errors import Busy, GoldlinkError
from cachefetch.follow import Follower
from cachefetch.health import HealthServer
from cachefetch.logs import fields
from cachefetch.model import LinkMode
from cachefetch.reaper import Reaper
from cachefetch.refresh import refresh
from cachefetch.work import Ended

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from cachefetch.config import AnySource, Cache, Config
    from cachefetch.errors import ConfigError
    from cachefetch.fetches import Fetches
    from cachefetch.metrics import Metrics
    from cachefetch.model import Version
    from cachefetch.refresh import Refreshed
    from cachefetch.sources.base import Source
    from cachefetch.store import Store

_GRACE = 8.0
"""Seconds that running refreshes get to end, of the ten that the process has."""

_log = logging.getLogger(__name__)


class Limits(NamedTuple):
    """What the daemon may take of the node."""

    concurrency: int = 4
    """Refreshes at a time: enough that slow origins overlap, few enough that the disk of the node stays usable."""
    bandwidth: int | None = None
    """Bytes a second of all fetches together; None: no limit."""


class _Stopped(Exception):
    """The daemon ends, so the fetch does."""


class Daemon:
    """Does what `fetches` says is next."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        open_source: Callable[[AnySource], Source],
        metrics: Metrics,
        limits: Limits,
        *,
        ending: threading.Event | None = None,
    ) -> None:
        """`ending` is set when the daemon stops, for sources that `open_source` makes to see."""
        self._store = store
        self._fetches = fetches
        self._open_source = open_source
        self._metrics = metrics
        self._concurrency = limits.concurrency
        self._ending = ending or threading.Event()
        self._bandwidth = Bandwidth(limits.bandwidth, sleep=self._ending.wait)
        self._workers: set[threading.Thread] = set()
        self._reaper = Reaper(store.trash, trash.empty)
        self._scheduler = threading.Thread(target=self._schedule, name="schedule", daemon=True)

    def declare(self, config: Config) -> None:
        """These are the caches from now on."""
        self._fetches.declare(config.caches)
        self._metrics.config_valid.set(1)
        _log.info("declared", extra=fields(caches=",".join(cache.name for cache in config.caches)))

    def follow(self, path: Path, running: ExitStack) -> None:
        """Take the caches from the configuration file at `path`, now and when it changes.

        Raises:
            ConfigError: it is not valid at the start.
        """

        def refused(error: ConfigError) -> None:
            self._metrics.config_valid.set(0)
            _log.warning("configuration_refused", extra=fields(error=error))

        follower = Follower(path, self.declare, refused)
        self.declare(follower.current)
        follower.start()
        running.callback(follower.stop)

    def measure(self, address: str, running: ExitStack) -> None:
        """Serve the metrics at `HOST:PORT`.

        Raises:
            Precondition: it cannot be listened on.
        """
        server = HealthServer(address, self._metrics.registry, self._unhealthy)
        server.start()
        running.callback(server.stop)
        _log.info("measuring", extra=fields(address=address, port=server.port))

    def start(self) -> None:
        """Begin."""
        self._reaper.start()
        self._scheduler.start()

    def wait(self) -> None:
        """Return when another thread has called `stop`; a signal handler that raises ends the waiting, too.

        Raises:
            RuntimeError: the daemon has ended without being told to, which is a defect.
        """
        while self._scheduler.is_alive():
            self._scheduler.join(1.0)
        if not self._fetches.closed:
            raise RuntimeError("the schedule thread has died: report its traceback, which is above")

    def stop(self, grace: float = _GRACE) -> None:
        """Interrupt what runs and return when that has ended, at the latest after `grace` seconds.

        What does not end by then is left to the end of the process: the store survives that at any moment.
        """
        _log.info("stopping")
        deadline = time.monotonic() + grace
        self._ending.set()
        self._fetches.close()
        if self._scheduler.is_alive():
            self._scheduler.join(grace)
        self._reaper.stop()
        for worker in list(self._workers):
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                _log.warning("abandoned", extra=fields(cache=worker.name))
        _log.info("stopped")

    def _unhealthy(self) -> str:
        return "stopping" if self._fetches.closed else "" if self._scheduler.is_alive() else "nothing is scheduled"

    def _schedule(self) -> None:
        while cache := self._fetches.next(self._concurrency):
            worker = threading.Thread(target=self._work, args=(cache,), name=cache.name, daemon=True)
            self._workers.add(worker)
            worker.start()

    def _work(self, cache: Cache) -> None:
        """One refresh of one cache, from its start to its next time."""
        started = time.monotonic()
        try:
            self._refresh(cache, started)
        except Exception as error:  # noqa: BLE001  (a defect of one source ends neither daemon nor other caches)
            if self._ending.is_set():  # whatever fails now is no failed try: the node may be going down
                _log.info("interrupted", extra=fields(cache=cache.name))
                self._fetches.interrupted(cache)
            else:
                self._failed(cache, error, time.monotonic() - started)
        finally:
            self._workers.discard(threading.current_thread())

    def _refresh(self, cache: Cache, started: float) -> None:
        progress = _Progress(cache, self._fetches, self._bandwidth, self._metrics, self._ending)
        progress.check()
        result = refresh(self._store, cache, self._open_source(cache.source), progress)
        self._fetches.published()
        dropped, kept = self._collect(cache)
        seconds = time.monotonic() - started
        failures = self._fetches.succeeded(cache, Ended(seconds, result, dropped=dropped, kept=kept))
        self._metrics.refreshed(cache, seconds, "changed" if result.changed else "unchanged")
        _report(cache, result, failures)

    def _failed(self, cache: Cache, error: Exception, seconds: float) -> None:
        expected = isinstance(error, (GoldlinkError, OSError))
        defect = f"the fetcher has a defect ({type(error).__name__}): report the traceback in its log"
        text = str(error) if expected else defect
        counts = not isinstance(error, Busy)  # another process refreshes the cache, which is soon over
        retry = self._fetches.failed(cache, Ended(seconds, error=text), counts=counts)
        self._metrics.refreshed(cache, seconds, _kind(error))
        _log.warning(
            "refresh_failed",
            exc_info=None if expected else error,
            extra=fields(
                cache=cache.name,
                error=text,
                served=self._store.current(cache.name) or "none",
                retry_s=None if retry is None else round(retry),
            ),
        )

    def _collect(self, cache: Cache) -> tuple[tuple[Version, ...], str]:
        """Drop what nobody needs; returns that, and what was in the way."""
        try:
            dropped = self._store.gc(cache.name, cache.retain)
        except (GoldlinkError, OSError) as error:
            level = logging.DEBUG if isinstance(error, Busy) else logging.WARNING  # busy: the next one will do
            _log.log(level, "gc_failed", extra=fields(cache=cache.name, error=error))
            return (), str(error)
        for version in dropped:
            _log.info("dropped", extra=fields(cache=cache.name, version=version.id))
        self._reaper.wake()
        return tuple(dropped), ""


class _Progress:
    """Progress that keeps within the bandwidth, is counted, and ends the fetch when the daemon ends."""

    def __init__(
        self, cache: Cache, fetches: Fetches, bandwidth: Bandwidth, metrics: Metrics, ending: threading.Event
    ) -> None:
        self._cache = cache
        self._fetches = fetches
        self._bandwidth = bandwidth
        self._count = metrics.counter_of(cache)
        self._ending = ending

    def expect(self, total: int | None) -> None:
        """The source has changed, so a new version is being fetched."""
        self.check()
        self._fetches.fetching(self._cache.name, total)
        _log.info("fetching", extra=fields(cache=self._cache.name, bytes=total))

    def recall(self, count: int) -> None:
        """What an earlier fetch has brought costs no bandwidth and is no byte more for the metrics."""
        self._fetches.recall(self._cache.name, count)
        self.check()

    def advance(self, count: int) -> None:
        """Go on, or not."""
        self._count(count)
        self._fetches.advance(self._cache.name, count)
        self._bandwidth.spend(count)
        self.check()

    def check(self) -> None:
        """Raise `_Stopped` when the daemon ends."""
        if self._ending.is_set():
            raise _Stopped


def _report(cache: Cache, result: Refreshed, failures: int) -> None:
    version = result.version
    if not result.changed:
        level = logging.INFO if failures else logging.DEBUG  # no state changed, unless it was failing
        _log.log(level, "unchanged", extra=fields(cache=cache.name, version=version.id, failures=failures))
        return
    links = result.links
    _log.info(
        "refreshed",
        extra=fields(
            cache=cache.name,
            version=version.id,
            files=version.totals.files,
            bytes=version.totals.bytes,
            fetched=result.fetched_bytes,
            shared=links.modes[LinkMode.HARDLINK] if links else None,
            fallbacks=links if links and links.fallbacks else None,
        ),
    )


def _kind(error: Exception) -> str:
    """A failure for the metrics, in few words."""
    if isinstance(error, GoldlinkError):
        return error.code.name.lower()
    return "os_error" if isinstance(error, OSError) else "defect"
