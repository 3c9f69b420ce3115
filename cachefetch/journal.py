"""The failures of the fetcher, in one small file: its back-off survives a restart, and people see it without a daemon.

Written when a refresh fails, and when one succeeds after failures. A daemon that is killed writes nothing, so that is
no failed try.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from cachefetch import durable
from cachefetch.decoding import UNREADABLE
from cachefetch.logs import fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """That the last tries of a cache failed."""

    source: str
    """What it was fetched from (`refresh.identify`): the failures of one source say nothing about another."""
    count: int
    """Tries since the last success."""
    error: str
    """One sentence: what went wrong the last time, and the remedy."""
    retry: float
    """When the next try is to be, in seconds since the epoch."""


class Journal:
    """The failures by the names of their caches, in the file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(cls, root: Path) -> Journal:
        """That of the store at `root`."""
        return cls(root / "run" / "failures.json")

    def read(self) -> dict[str, Failure]:
        """What was written last; nothing when there is no file, or only a damaged one (the machine lost power)."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Failure])
        except FileNotFoundError:
            return {}
        except UNREADABLE as error:
            _log.warning("journal_damaged", extra=fields(path=self._path, error=error, effect="no back-off is known"))
            return {}

    def write(self, failures: Mapping[str, Failure]) -> None:
        """Replace what was written. Not durable: after a power cut the caches are simply tried again."""
        durable.replace(self._path, msgspec.json.encode(failures, order="sorted"), durable=False)
