"""The daemon: refreshes every declared cache when it is due, follows the configuration, ends when told to.

One thread decides (`schedule.Timetable`), a few work, so that a slow origin does not hold up the others. A running
fetch is interrupted by its own progress: the call that counts the next bytes raises. What was downloaded stays.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from cachefetch import durable, trash
from cachefetch.errors import Busy, GoldlinkError
from cachefetch.follow import Follower
from cachefetch.logs import fields
from cachefetch.model import LinkMode
from cachefetch.reaper import Reaper
from cachefetch.refresh import refresh
from cachefetch.schedule import Timetable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachefetch.config import AnySource, Cache, Config
    from cachefetch.errors import ConfigError
    from cachefetch.refresh import Refreshed
    from cachefetch.sources.base import Source
    from cachefetch.store import Store

_AT_ONCE = 4
"""Refreshes at a time: enough that slow origins overlap, few enough that the disk of the node stays usable."""
_GRACE = 8.0
"""Seconds that running refreshes get to end, of the ten that the process has."""

_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """The daemon ends, so the fetch does."""


class Daemon:
    """Refreshes what is declared, when it is due.

    Args:
        clock: seconds; does not go back.
        draw: a random number in [0, 1).
    """

    def __init__(
        self,
        store: Store,
        open_source: Callable[[AnySource], Source],
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._open_source = open_source
        self._clock = clock
        self._timetable = Timetable(draw)
        self._changed = threading.Condition()
        self._stopping = False
        self._workers: set[threading.Thread] = set()
        self._reaper = Reaper(store.trash, trash.empty)
        self._scheduler = threading.Thread(target=self._schedule, name="schedule", daemon=True)

    def declare(self, config: Config) -> None:
        """These are the caches from now on."""
        with self._changed:
            self._timetable.declare(config.caches, self._has_version, self._clock())
            self._changed.notify_all()
        _log.info("declared", extra=fields(caches=",".join(cache.name for cache in config.caches)))

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
        if not self._stopping:
            raise RuntimeError("the schedule thread has died: report its traceback, which is above")

    def stop(self, grace: float = _GRACE) -> None:
        """Interrupt what runs and return when that has ended, at the latest after `grace` seconds.

        What does not end by then is left to the end of the process: the store survives that at any moment.
        """
        deadline = time.monotonic() + grace
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            workers = list(self._workers)
        self._reaper.stop()
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                _log.warning("abandoned", extra=fields(cache=worker.name))

    def _has_version(self, name: str) -> bool:
        return self._store.current(name) is not None

    def _schedule(self) -> None:
        with self._changed:
            while not self._stopping:
                while len(self._workers) < _AT_ONCE and (cache := self._timetable.take(self._clock())):
                    worker = threading.Thread(target=self._work, args=(cache,), name=cache.name, daemon=True)
                    self._workers.add(worker)
                    worker.start()
                due = self._timetable.next_due()
                idle = due is None or len(self._workers) >= _AT_ONCE  # until a worker ends or something changes
                self._changed.wait(None if idle or due is None else max(0.0, due - self._clock()))

    def _work(self, cache: Cache) -> None:
        """One refresh of one cache, from its start to its next time."""
        try:
            result = refresh(self._store, cache, self._open_source(cache.source), _Interruptible(self, cache.name))
        except _Stopped:
            _log.info("interrupted", extra=fields(cache=cache.name))
        except Exception as error:  # noqa: BLE001  (a defect of one source ends neither daemon nor other caches)
            self._failed(cache, error)
        else:
            self._succeeded(cache, result)
            self._collect(cache)
        finally:
            with self._changed:
                self._workers.discard(threading.current_thread())
                self._changed.notify_all()

    def _failed(self, cache: Cache, error: Exception) -> None:
        with self._changed:
            retry = self._timetable.failed(cache, self._clock())
        unexpected = error if not isinstance(error, (GoldlinkError, OSError)) else None
        current = self._store.current(cache.name)
        _log.warning(
            "refresh_failed",
            exc_info=unexpected,
            extra=fields(
                cache=cache.name,
                error=error,
                served=current or "none",
                retry_s=None if retry is None else round(retry),
            ),
        )

    def _succeeded(self, cache: Cache, result: Refreshed) -> None:
        with self._changed:
            failures = self._timetable.succeeded(cache, self._clock())
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

    def _collect(self, cache: Cache) -> None:
        try:
            dropped = self._store.gc(cache.name, cache.retain)
        except (GoldlinkError, OSError) as error:
            level = logging.DEBUG if isinstance(error, Busy) else logging.WARNING  # busy: the next one will do
            _log.log(level, "gc_failed", extra=fields(cache=cache.name, error=error))
            return
        for version in dropped:
            _log.info("dropped", extra=fields(cache=cache.name, version=version.id))
        self._reaper.wake()

    def check_running(self) -> None:
        """Raise `_Stopped` when the daemon is about to end. Called for every chunk, so it takes no lock."""
        if self._stopping:
            raise _Stopped


class _Interruptible:
    """Progress that ends the fetch when the daemon ends."""

    def __init__(self, daemon: Daemon, cache: str) -> None:
        self._daemon = daemon
        self._cache = cache

    def expect(self, total: int | None) -> None:
        """The source has changed, so a new version is being fetched."""
        self._daemon.check_running()
        _log.info("fetching", extra=fields(cache=self._cache, bytes=total))

    def advance(self, _count: int) -> None:
        """Go on, or not."""
        self._daemon.check_running()


def run(store: Store, config: Path, open_source: Callable[[AnySource], Source]) -> None:
    """Be the daemon of this store until KeyboardInterrupt, which is what a signal to end should raise.

    Raises:
        Busy: the store has a daemon.
        ConfigError: the configuration is not valid at the start.
    """
    busy = f"another cachefetch daemon runs on {store.root}: stop that one first, or name another --state-dir"
    with durable.exclusive(store.root / "locks" / "@daemon", busy):
        daemon = Daemon(store, open_source)
        follower = Follower(config, daemon.declare, _refused)
        try:
            daemon.declare(follower.current)
            daemon.start()
            follower.start()
            daemon.wait()
        finally:
            _log.info("stopping")
            daemon.stop()
            follower.stop()
            _log.info("stopped")


def _refused(error: ConfigError) -> None:
    _log.warning("configuration_refused", extra=fields(error=error))
