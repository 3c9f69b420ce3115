"""The calls that wait: how many there may be, and how they are told to stop."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cachefetch.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 400
"""Waiting calls at once. A kubelet runs 110 pods by default and few clusters go beyond 250 a node, so 400 is more than
one waiting volume for each; every one costs a thread (see `csi.server.WORKERS`)."""


class Waiters:
    """Counts the calls that wait and wakes all of them when the driver stops. Used from any thread."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._wakes: dict[object, Callable[[], None]] = {}
        self._closed = False

    @property
    def count(self) -> int:
        """Calls that wait now."""
        return len(self._wakes)

    @contextmanager
    def waiting(self, wake: Callable[[], None]) -> Iterator[None]:
        """Hold a place while the body waits. `wake` ends that wait from another thread (Event.set, cancel of a stream).

        Raises:
            Busy: all places are taken, or the driver stops; nothing was waited for.
        """
        place = object()
        with self._lock:
            if self._closed:
                raise Busy("the driver is stopping: the call is repeated when it is back")
            if len(self._wakes) >= self._limit:
                raise Busy(f"{self._limit} calls wait for their versions already: try again when some of them are done")
            self._wakes[place] = wake
        try:
            yield
        finally:
            with self._lock:
                self._wakes.pop(place, None)

    def close(self) -> None:
        """Wake everybody and let nobody wait any more."""
        with self._lock:
            self._closed = True
            wakes = list(self._wakes.values())
        for wake in wakes:
            wake()
