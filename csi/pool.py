"""Link trees made ahead, so that a publish takes one by rename and never links.

    <state-dir>/pool/<cache>/<version>/<slot>       a complete link tree, ready
                                      /.<random>    one that is being made; after a crash it is trash

A slot's name says what its tree costs (`<random>-<bytes>-<inodes>-<link mode>`), so taking one reads no file. Trees
are made in the background for the current version of each cache while enough inodes are free. A cache's `pool` is the
most there are of a version, ready and in volumes: what the pool costs does not grow with the number of pods. A tree
that was only ever mounted read-only goes back. When no tree is ready the golden tree itself is bound, which costs no
disk space at all: the pool is a convenience, never a wait.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cachefetch.background import BackgroundStopped
from cachefetch.errors import GoldlinkError
from cachefetch.logs import fields
from cachefetch.model import LinkMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cachefetch.config import Config
    from cachefetch.linktree import LinkReport
    from cachefetch.store import Store

_log = logging.getLogger(__name__)

_SLOT = re.compile(r"([0-9a-f]{16})-([0-9]+)-([0-9]+)-([a-z]+)")
_FREE_INODES = 0.1
"""Share of the inodes that must stay free: a pool may cost convenience, never the node."""
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class Slot:
    """A ready link tree and what it costs beyond the golden one."""

    name: str
    own_bytes: int
    own_inodes: int
    link_mode: LinkMode

    @classmethod
    def of(cls, report: LinkReport) -> Slot:
        """The slot of a tree that was just made."""
        name = f"{secrets.token_hex(8)}-{report.own_bytes}-{report.own_inodes}-{report.mode}"
        return cls(name, report.own_bytes, report.own_inodes, report.mode)

    @classmethod
    def parse(cls, name: str) -> Slot | None:
        """The slot of that name; None when it is none."""
        match = _SLOT.fullmatch(name)
        if match is None or match[4] not in set(LinkMode):
            return None
        return cls(name, int(match[2]), int(match[3]), LinkMode(match[4]))


class Maker(Protocol):
    """Makes link trees, as `cachefetch.background.Background` does."""

    def link(self, source: Path, dest: Path) -> LinkReport:
        """Make `dest` a link tree of `source`.

        Raises:
            GoldlinkError: it did not work; what was made of `dest` is for the caller to discard.
        """
        ...


Key = tuple[str, str]
"""Cache and version."""


class Pool:
    """The ready trees of all caches. Safe to use from many threads; one thread of its own makes new ones."""

    def __init__(
        self,
        store: Store,
        maker: Maker,
        *,
        config: Callable[[], Config],
        on_link: Callable[[LinkReport, float], None],
        on_discard: Callable[[], None],
    ) -> None:
        """Keep trees in `store` as `config` says.

        `on_link` hears of each tree made and the seconds it took, `on_discard` of anything that went to the trash.
        """
        self._store = store
        self._maker = maker
        self._config = config
        self._on_link = on_link
        self._on_discard = on_discard
        self._lock = threading.Lock()
        self._ready: dict[Key, list[Slot]] = {}
        self._in_volumes: Counter[Key] = Counter()
        self._wake = threading.Event()
        self._stopping = False
        self._not_before: dict[Key, float] = {}
        self._thread = threading.Thread(target=self._run, name="pool", daemon=True)

    def take(self, cache: str, version: str, dest: Path) -> Slot | None:
        """Rename a ready tree of the version to `dest`; None when none is ready."""
        with self._lock:
            ready = self._ready.get((cache, version))
            slot = ready.pop() if ready else None
            if slot is None:
                return None
            self._in_volumes[cache, version] += 1
        tree = self._place(cache, version) / slot.name
        try:
            tree.rename(dest)
        except OSError:  # a full disk, for example
            self.lost(cache, version)
            with self._lock:
                if tree.is_dir():
                    self._ready[cache, version].append(slot)
            raise
        return slot

    def give(self, cache: str, version: str, tree: Path, slot: Slot) -> bool:
        """Take back a tree that was only ever mounted read-only, if it is still wanted; False: it is the caller's."""
        self.lost(cache, version)
        if self._stopping or self._store.current(cache) != version:
            return False
        with self._lock:
            if self._missing(cache, version) <= 0:
                return False
            ready = self._ready.setdefault((cache, version), [])
            try:
                tree.rename(self._place(cache, version) / slot.name)
            except FileNotFoundError:
                return False  # the pool's directory went with its version
            except OSError as error:  # the trash will do, and unpublish is not to be repeated for it
                _log.warning("pool", extra=fields(cache=cache, error=error))
                return False
            ready.append(slot)
        return True

    def lost(self, cache: str, version: str) -> None:
        """A tree that was taken will not come back: another one may be made in its place."""
        with self._lock:
            self._in_volumes[cache, version] -= 1
            if self._in_volumes[cache, version] <= 0:
                del self._in_volumes[cache, version]

    def ready(self) -> Mapping[Key, list[Slot]]:
        """What is ready, for metrics."""
        with self._lock:
            return {key: list(slots) for key, slots in self._ready.items() if slots}

    def start(self, in_volumes: Mapping[Key, int]) -> None:
        """Adopt what an earlier process made and go on making; `in_volumes` counts the trees that volumes have."""
        self._in_volumes.update(in_volumes)
        self._adopt()
        self._thread.start()

    def stop(self) -> None:
        """Make no more; what is ready waits for the next start."""
        self._stopping = True
        self._wake.set()

    def _adopt(self) -> None:
        """Complete trees are ready, whatever else is there is trash."""
        for cache in (self._store.root / "pool").iterdir():
            for version in cache.iterdir():
                for place in version.iterdir():
                    slot = Slot.parse(place.name)
                    if slot is None:
                        self._discard(place)
                    else:
                        self._ready.setdefault((cache.name, version.name), []).append(slot)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                self._drop_unwanted()
                made = self._make_one()
            except BackgroundStopped:
                return
            except (OSError, GoldlinkError) as error:
                _log.warning("pool", extra=fields(error=str(error)))
                made = False
            if not made:
                self._wake.wait(_LOOK_SECONDS)

    def _drop_unwanted(self) -> None:
        """Trees of versions that new volumes do not get any more, and those beyond the limit."""
        wanted = self._wanted()
        for (cache, version), slots in self.ready().items():
            with self._lock:
                surplus = -self._missing(cache, version) if wanted.get(cache) == version else len(slots)
            for slot in slots[: max(0, surplus)]:
                with self._lock:
                    if slot not in self._ready[cache, version]:
                        continue
                    self._ready[cache, version].remove(slot)
                self._discard(self._place(cache, version) / slot.name)
            if surplus >= len(slots):
                with suppress(OSError):  # not empty yet: the next round
                    self._place(cache, version).rmdir()

    def _make_one(self) -> bool:
        """Make a tree where one is missing; returns whether there may be more to make."""
        for cache, version in self._wanted().items():
            with self._lock:
                missing = self._missing(cache, version)
            if missing > 0 and self._not_before.get((cache, version), 0.0) <= time.monotonic() and self._has_inodes():
                self._make(cache, version)
                return True
        return False

    def _make(self, cache: str, version: str) -> None:
        place = self._place(cache, version)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = place / f".{secrets.token_hex(8)}"
        start = time.perf_counter()
        try:
            with self._store.pin(cache):
                report = self._maker.link(self._store.tree(cache, version), new)
        except GoldlinkError:
            self._not_before[cache, version] = time.monotonic() + _RETRY_SECONDS
            self._discard(new)
            raise
        self._on_link(report, time.perf_counter() - start)
        slot = Slot.of(report)
        new.rename(place / slot.name)
        with self._lock:
            self._ready.setdefault((cache, version), []).append(slot)

    def _wanted(self) -> dict[str, str]:
        """The version of each cache that new volumes get, for caches that have a pool."""
        found = {cache.name: self._store.current(cache.name) for cache in self._config().caches if cache.pool}
        return {cache: version for cache, version in found.items() if version and self._store.has(cache, version)}

    def _missing(self, cache: str, version: str) -> int:
        """How many trees of the version may be made; below 0: so many are too many. Call it with the lock held."""
        return self._limit(cache) - len(self._ready.get((cache, version), ())) - self._in_volumes[cache, version]

    def _limit(self, cache: str) -> int:
        return next((declared.pool for declared in self._config().caches if declared.name == cache), 0)

    def _has_inodes(self) -> bool:
        status = os.statvfs(self._store.root)
        return status.f_favail >= _FREE_INODES * status.f_files

    def _place(self, cache: str, version: str) -> Path:
        return self._store.root / "pool" / cache / version

    def _discard(self, path: Path) -> None:
        try:
            self._store.discard(path)
        except FileNotFoundError:
            return
        self._on_discard()
