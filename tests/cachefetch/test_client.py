from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cachefetch import client
from tests.cachefetch.fakes import CACHE, MemorySource
from tests.cachefetch.fetching import Stuck, cache, running

if TYPE_CHECKING:
    from cachefetch.store import Store


def test_without_a_daemon_there_is_nobody_to_talk_to(store: Store) -> None:
    with client.connect(store.root) as fetcher:
        assert fetcher is None


def test_a_daemon_that_stops_meanwhile_is_an_error_that_says_so(store: Store) -> None:
    stuck = Stuck()
    with running(store, {"deps": stuck}, cache("deps"), serve=True) as fetcher:
        with client.connect(store.root) as connected:
            assert connected
            news = connected.refresh({"deps": ""})
            next(news)
            fetcher.fetches.close()
            with pytest.raises(client.FetcherFailed, match="the fetcher stops: ask again when it is back"):
                list(news)
        stuck.let_go.set()


def test_what_it_does_is_listed(store: Store) -> None:
    with (
        running(store, {CACHE: MemorySource()}, cache(), cache("other"), serve=True),
        client.connect(store.root) as told,
    ):
        assert told
        assert [status.cache for status in told.statuses()] == [CACHE, "other"]
