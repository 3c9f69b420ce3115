"""Waiting for a version that is not on this node yet."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from cachefetch.errors import Busy, NotReady
from cachefetch.model import short_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefetch.store import Store
    from csi.waiters import Waiters

_FIRST_LOOK = 0.1
_LAST_LOOK = 1.0
_GROWTH = 1.3


class Caller(Protocol):
    """The RPC that waits: gRPC's ServicerContext has this form."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller gives up; None: never."""
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when the caller is gone; False: it is gone already."""
        ...


class Arrivals(Protocol):
    """Brings a version to this node, or waits until somebody does."""

    def wait(self, cache: str, version: str, caller: Caller) -> str:
        """The id of the version, which is on this node now; `version` empty: whatever is current.

        Raises:
            NotReady: it did not come in time; says how far it is.
            Busy: too many wait, or the driver stops.
        """
        ...


class StoreArrivals:
    """Looks into the store until the version is there: somebody may run `cachefetch refresh`."""

    def __init__(self, store: Store, waiters: Waiters, seconds: float) -> None:
        """Wait up to `seconds`, and never longer than the caller does."""
        self._store = store
        self._waiters = waiters
        self._seconds = seconds

    def wait(self, cache: str, version: str, caller: Caller) -> str:
        """See `Arrivals`. What is here already needs no place among those that wait."""
        return self._find(cache, version) or self._await(cache, version, caller)

    def _await(self, cache: str, version: str, caller: Caller) -> str:
        """Look ever more rarely, so that hundreds of waiting calls cost next to nothing."""
        woken = threading.Event()
        deadline = time.monotonic() + patience(self._seconds, caller)
        pause = _FIRST_LOOK
        with self._waiters.waiting(woken.set):
            if not caller.add_callback(woken.set):
                raise Busy("the caller is gone: nothing was done")
            while (found := self._find(cache, version)) is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise NotReady(self._explain(cache, version))
                if woken.wait(min(pause, left)):
                    raise Busy("the wait was ended because the caller is gone or the driver stops: it is repeated")
                pause = min(pause * _GROWTH, _LAST_LOOK)
        return found

    def _find(self, cache: str, version: str) -> str | None:
        wanted = version or self._store.current(cache)
        return wanted if wanted and self._store.has(cache, wanted) else None

    def _explain(self, cache: str, version: str) -> str:
        what = f"version {short_id(version)} of cache {cache!r}" if version else f"cache {cache!r}"
        return (
            f"{what} is not on this node yet and no fetcher is running: start 'cachefetch run', "
            f"or fetch it once with 'cachefetch refresh {cache}'; the mount is tried again"
        )


def patience(seconds: float, caller: Caller) -> float:
    """How long to wait: `seconds`, or a tenth less than the caller has left, so that it still hears the reason."""
    remaining = caller.time_remaining()
    return seconds if remaining is None else min(seconds, max(0.0, remaining * 0.9))
