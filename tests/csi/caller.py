"""An RPC that waits, for whoever waits in its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeCaller:
    """An RPC that a test ends when it likes."""

    def __init__(self, remaining: float | None = None, *, gone: bool = False) -> None:
        self.remaining = remaining
        self.gone = gone
        self.callbacks: list[Callable[[], None]] = []

    def time_remaining(self) -> float | None:
        return self.remaining

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return not self.gone

    def leave(self) -> None:
        for callback in self.callbacks:
            callback()
