"""What commands are tested with: a terminal whose text can be read, a store that may be damaged, declarations."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from cachefetch.config import Cache, Config, Directory
from cachefetch.records import VolumeRecord
from cachefetch.store import Store
from cachefetch.terminal import Terminal
from tests.cachefetch.fakes import CACHE, File, MemorySource, publish

if TYPE_CHECKING:
    from pathlib import Path

    from cachefetch.config import AnySource
    from cachefetch.model import Version

CONTENT = bytes(100_000)


class Output:
    """A terminal whose text can be read."""

    def __init__(self) -> None:
        self._out = io.StringIO()
        self._err = io.StringIO()
        self.terminal = Terminal(self._out, self._err)

    @property
    def out(self) -> list[str]:
        return self._out.getvalue().splitlines()

    @property
    def complaints(self) -> list[str]:
        return [line for line in self._err.getvalue().splitlines() if line.startswith("cachefetch: ")]

    def json(self) -> Any:
        return json.loads(self._out.getvalue())


class Origins:
    """Memory sources by the path that the configuration gives."""

    def __init__(self, **sources: MemorySource) -> None:
        self._sources = sources

    def __call__(self, config: AnySource) -> MemorySource:
        assert isinstance(config, Directory)
        return self._sources[config.path[1:]]


@pytest.fixture
def output() -> Output:
    return Output()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Of its own, because these tests damage it."""
    return Store.open(tmp_path / "state")


def cache(name: str = CACHE, retain: int = 2) -> Cache:
    return Cache(name=name, source=Directory(path=f"/{name}"), retain=retain)


def config(*names: str, retain: int = 2) -> Config:
    return Config(caches=tuple(cache(name, retain) for name in names))


def published(store: Store, content: bytes = b"1", name: str = CACHE) -> Version:
    return publish(store, [File(b"a", content), File(b"lib/b", CONTENT)], name)


def use(store: Store, version: Version, volume: str = "v1") -> None:
    store.records.write(VolumeRecord(id=volume, cache=version.cache, version=version.id, target="/t"))
