"""What the tests of sources share: a real store that is refreshed from them, and a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cachefetch import manifest
from cachefetch.config import AnySource, Cache
from cachefetch.index import Index
from cachefetch.limits import Limits
from cachefetch.progress import Silent
from cachefetch.refresh import Refreshed, refresh
from cachefetch.stage import Stage
from tests.cachefetch.httpd import Httpd, running
from tests.servers.fixtures import *  # noqa: F403  (that is how pytest shares fixtures between directories)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cachefetch.model import Entry
    from cachefetch.sources.base import Source
    from cachefetch.store import Store


class Fetched:
    """A cache called `c` in a real store, refreshed from a source."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def refresh(self, config: AnySource, source: Source) -> Refreshed:
        """One refresh."""
        return refresh(self._store, Cache(name="c", source=config), source, Silent())

    @property
    def tree(self) -> Path:
        """The golden tree that is current."""
        return self._store.root / "caches" / "c" / "versions" / self.version / "tree"

    @property
    def version(self) -> str:
        """The id of the current version; empty when there is none."""
        return self._store.current("c") or ""

    def entries(self) -> dict[bytes, Entry]:
        """The current version's manifest."""
        return {entry.path: entry for entry in manifest.read(self.tree.parent / "manifest")}


@pytest.fixture
def fetched(store: Store) -> Fetched:
    return Fetched(store)


@pytest.fixture
def httpd() -> Iterator[Httpd]:
    with running() as server:
        yield server


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage of its own, limited to 1 MiB and 100 entries."""
    yield from stages(tmp_path, lambda _: None)


def stages(base: Path, on_bytes: Callable[[int], None]) -> Iterator[Stage]:
    """One stage below `base`."""
    place, scratch = base / "stage", base / "scratch"
    place.mkdir()
    scratch.mkdir()
    index = Index.create(base / "index")
    stage = Stage(place, scratch, index, limits=Limits(max_bytes=1 << 20, max_entries=100), on_bytes=on_bytes)
    yield stage
    stage.close()
    index.close()
