"""How fast all fetches together may go."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BURST = 0.25
"""Seconds of the rate that may come at once after a pause."""


class Bandwidth:
    """Delays those who received something until all of it together fits the rate.

    Args:
        rate: bytes a second; None: no limit.
        clock: seconds; does not go back.
        sleep: waits so many seconds, or returns earlier when the daemon ends.
    """

    def __init__(
        self, rate: float | None, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object]
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._paid = clock()
        """Until when the rate is used up by what has come so far."""

    def spend(self, count: int) -> None:
        """So many bytes came: return when the next may. The sender is slowed down by nobody reading (TCP)."""
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            self._paid = max(self._paid, now - _BURST) + count / self._rate
            delay = self._paid - now
        if delay > 0:
            self._sleep(delay)
