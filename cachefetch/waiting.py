"""Which pods wait for which cache, so that the cluster can be told why they do not start."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Pod(NamedTuple):
    """A pod, as kubelet names it to the driver."""

    namespace: str
    name: str
    uid: str


class Wait(NamedTuple):
    """A pod that waits for a cache."""

    pod: Pod
    cache: str
    since: float
    """Seconds since the epoch."""


class Waiting:
    """Everybody who waits now. Used from any thread."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """`wall` tells the seconds since the epoch."""
        self._wall = wall
        self._lock = threading.Lock()
        self._waits: dict[object, Wait] = {}

    @contextmanager
    def of(self, pod: Pod, cache: str) -> Iterator[None]:
        """The pod waits for the cache while the body runs."""
        wait, key = Wait(pod, cache, self._wall()), object()
        with self._lock:
            self._waits[key] = wait
        try:
            yield
        finally:
            with self._lock:
                del self._waits[key]

    def all(self) -> list[Wait]:
        """Who waits at this moment, in the order in which they came."""
        with self._lock:
            return list(self._waits.values())
