"""How far a long piece of work has come, told to whoever asked for it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears how a piece of work goes on. Called often: must be cheap."""

    def expect(self, total: int | None) -> None:
        """How many bytes there will be; None when the origin does not say."""
        ...

    def advance(self, count: int) -> None:
        """So many bytes more are done."""
        ...

    def recall(self, count: int) -> None:
        """So many bytes more are done because an earlier try has brought them."""
        ...


class Silent:
    """Progress that nobody looks at."""

    def expect(self, total: int | None) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""

    def recall(self, count: int) -> None:
        """Nothing."""
