"""A fetcher in the test's process: the real daemon and its service, with sources from memory."""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cachefetch.config import Cache, Config, Directory, Prefetch, Refresh
from cachefetch.daemon import Daemon, Limits
from cachefetch.errors import SourceError
from cachefetch.fetches import Fetches
from cachefetch.journal import Journal
from cachefetch.metrics import Metrics
from cachefetch.service import Fetch, make_server
from cachefetch.sockets import fetch_socket
from cachefetch.units import Duration
from cachefetch.waiting import Waiting
from tests.cachefetch.fakes import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cachefetch.config import AnySource
    from cachefetch.sources.base import Known, Snapshot, Source
    from cachefetch.stage import Stage
    from cachefetch.store import Store

PATIENCE = 60.0


def eventually(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def at_work(name: str = CACHE) -> bool:
    """Whether a thread still refreshes the cache: one that was abandoned holds the store's locks until it ends."""
    return name in {thread.name for thread in threading.enumerate()}


def cache(
    name: str = CACHE,
    *,
    interval: float | None = 3600,
    retain: int = 2,
    path: str | None = None,
    prefetch: Prefetch = Prefetch.ALWAYS,
) -> Cache:
    refresh = Refresh(manual=True) if interval is None else Refresh(interval=Duration(interval))
    source = Directory(path=path or f"/{name}")
    return Cache(name=name, source=source, refresh=refresh, retain=retain, prefetch=prefetch)


def config(*caches: Cache) -> Config:
    return Config(caches=caches)


@dataclass
class Origins:
    """Sources by the path that the configuration gives."""

    sources: Mapping[str, Source]

    def __call__(self, config: AnySource) -> Source:
        assert isinstance(config, Directory)
        return self.sources[config.path[1:]]


@dataclass
class Endless:
    """A source that delivers for ever, and notes what it left in the stage's scratch directory."""

    size: int | None = None
    meta: dict[str, str] = field(default_factory=dict)
    begun: threading.Event = field(default_factory=threading.Event)

    def resolve(self, known: Known | None) -> Endless:
        return self

    def read(self, size: int, /) -> bytes:
        self.begun.set()
        time.sleep(0.001)
        return bytes(min(size, 1024))

    def fill(self, stage: Stage) -> None:
        (stage.scratch / "partial").touch()
        stage.file(b"endless", 0o644, 0, self)


@dataclass
class Stuck:
    """A source that does not answer before it is let go, and then as `then` does, or with a failure."""

    then: Source | None = None
    let_go: threading.Event = field(default_factory=threading.Event)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def resolve(self, known: Known | None) -> Snapshot | None:
        self.asked.release()
        self.let_go.wait(PATIENCE)
        if self.then is None:
            raise SourceError("let go")
        return self.then.resolve(known)


class Defect:
    """A source with a programming error."""

    def resolve(self, known: Known | None) -> None:
        raise ZeroDivisionError


class Fetcher:
    """A daemon that runs, and what it consists of."""

    def __init__(self, store: Store, sources: Mapping[str, Source], limits: Limits | None = None) -> None:
        self.metrics = Metrics("test")
        self.fetches = Fetches(store, Journal.of(store.root), random.random)
        self.daemon = Daemon(store, self.fetches, Origins(sources), self.metrics, limits or Limits())
        self.waiting = Waiting()
        fetch = Fetch(self.fetches, self.metrics.waiting.set, self.waiting)
        self.server = make_server(fetch_socket(store.root), fetch)

    def declare(self, *caches: Cache) -> None:
        self.daemon.declare(config(*caches))


@contextmanager
def running(
    store: Store,
    sources: Mapping[str, Source],
    *caches: Cache,
    grace: float = 8.0,
    limits: Limits | None = None,
    serve: bool = False,
) -> Iterator[Fetcher]:
    """A fetcher of these caches until the end of the block; with `serve` also at its socket."""
    fetcher = Fetcher(store, sources, limits)
    fetcher.declare(*caches)
    with ExitStack() as at_end:
        at_end.callback(fetcher.daemon.stop, grace)
        fetcher.daemon.start()
        if serve:
            fetcher.server.start()
            at_end.callback(fetcher.server.stop, 2)
            at_end.callback(fetcher.fetches.close)
        yield fetcher
