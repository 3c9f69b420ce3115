"""What a server answered, so that a test can state how much was fetched, and how often."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Exchange:
    """One request and its answer so far."""

    method: str
    path: str
    """With the query."""
    range: str
    """The Range header; empty without one."""
    status: int = 0
    """0: not answered yet."""
    sent: int = 0
    """Bytes of the answer's body that were handed to the kernel; a client that hangs up early may have read less."""


class Traffic:
    """Exchanges in the order in which they began; safe to use from several threads."""

    def __init__(self, exchanges: Iterable[Exchange] = ()) -> None:
        self._exchanges = list(exchanges)
        self._lock = threading.Lock()

    def add(self, exchange: Exchange) -> None:
        """Keep one more exchange."""
        with self._lock:
            self._exchanges.append(exchange)

    def clear(self) -> None:
        """Forget all: a test counts from here."""
        with self._lock:
            self._exchanges.clear()

    def of(self, prefix: str = "/") -> list[Exchange]:
        """The exchanges whose path starts with `prefix`."""
        with self._lock:
            return [exchange for exchange in self._exchanges if exchange.path.startswith(prefix)]

    def sent(self, prefix: str = "/") -> int:
        """Bytes of bodies that were sent for paths that start with `prefix`."""
        return sum(exchange.sent for exchange in self.of(prefix))
