"""The command line of a store whose daemon runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cachefetch import client, commands, remote
from cachefetch.errors import ConfigError, UnknownCache
from tests.cachefetch.commandline import CONTENT, Origins, Output
from tests.cachefetch.commandline import output as output  # noqa: PLC0414  (a fixture)
from tests.cachefetch.fakes import File, MemorySource
from tests.cachefetch.fetching import Stuck, cache, eventually, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefetch.config import Cache
    from cachefetch.store import Store


def refresh(store: Store, caches: Sequence[Cache], output: Output) -> int:
    with client.connect(store.root) as fetcher:
        assert fetcher
        return remote.refresh(store, fetcher, caches, output.terminal)


def test_the_output_is_that_of_a_refresh_without_a_daemon(store: Store, output: Output) -> None:
    """Apart from the seconds."""
    source = MemorySource([File(b"a", b"1"), File(b"lib/b", CONTENT)])
    sources = {"deps": source, "bad": MemorySource(fail_resolve=True)}
    caches = [cache("deps", retain=1, interval=None), cache("bad", interval=None)]
    with running(store, sources, *caches, serve=True) as fetcher:
        eventually(lambda: all(status.state in {"idle", "failed"} for status in fetcher.fetches.statuses()))
        source.items = [File(b"a", b"22"), File(b"lib/b", CONTENT)]
        assert refresh(store, caches, output) == 1
        assert refresh(store, caches, output) == 1
    alone = Output()
    source.items = [File(b"a", b"333"), File(b"lib/b", CONTENT)]
    assert commands.refresh(store, caches, Origins(**sources), alone.terminal) == 1
    assert commands.refresh(store, caches, Origins(**sources), alone.terminal) == 1
    assert shape(output.out) == shape(alone.out)
    assert len(output.out) == 3
    assert output.complaints == alone.complaints


def shape(lines: Sequence[str]) -> list[list[str]]:
    """The words that do not differ from one version to the next."""
    return [[word for word in line.split() if word.isalpha() or word.endswith(":")] for line in lines]


def test_what_others_do_meanwhile_is_kept_until_it_is_their_turn(store: Store, output: Output) -> None:
    stuck, source = Stuck(then=MemorySource([File(b"a")])), MemorySource([File(b"b")])
    caches = [cache("first"), cache("second")]
    with running(store, {"first": stuck, "second": source}, *caches, serve=True):
        eventually(lambda: store.current("second"))
        stuck.let_go.set()
        assert refresh(store, caches, output) == 0
    assert [line.partition(":")[0] for line in output.out] == ["first", "second"]


def test_what_the_daemon_does_not_know_is_an_error(store: Store, output: Output) -> None:
    with running(store, {"deps": MemorySource()}, cache("deps"), serve=True):
        with pytest.raises(UnknownCache, match="no cache 'other'"):
            refresh(store, [cache("other")], output)
        with pytest.raises(ConfigError, match="declared in another way"):
            refresh(store, [cache("deps", retain=9)], output)
