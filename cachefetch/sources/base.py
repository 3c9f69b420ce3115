"""What a source is: something that can say whether it changed, and deliver what it holds now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cachefetch.errors import SourceError

if TYPE_CHECKING:
    from cachefetch.stage import Stage


class SourceChanged(SourceError):
    """The source changed while it was read, so what was staged mixes two states: drop the stage and fill a new one."""


class Known(Protocol):
    """What is remembered of the version that was fetched last (`cachefetch.index.Index`)."""

    @property
    def meta(self) -> dict[str, str]:
        """`Snapshot.meta` of then."""
        ...

    def token(self, path: bytes) -> bytes | None:
        """What the source said about `path` then; None when there was no such path."""
        ...


class Snapshot(Protocol):
    """What a source holds now, ready to be staged."""

    @property
    def size(self) -> int | None:
        """Bytes that will be staged or downloaded; None when the origin does not say."""
        ...

    @property
    def meta(self) -> dict[str, str]:
        """To be remembered for the next `resolve`. Complete after `fill`."""
        ...

    def fill(self, stage: Stage) -> None:
        """Put everything into `stage`. May be called again with a new stage when it failed.

        Raises:
            SourceChanged: the source changed meanwhile; filling a new stage at once may succeed.
            SourceError: the origin could not be reached or read.
            DataError: what the origin delivered is wrong.
        """
        ...


class Source(Protocol):
    """Where a cache comes from."""

    def resolve(self, known: Known | None) -> Snapshot | None:
        """What the source holds now; None when nothing changed since `known`.

        Raises:
            SourceError: the origin could not be reached or read.
            DataError: what the origin says is wrong.
        """
        ...
