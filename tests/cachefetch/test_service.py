from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from cachefetch import service
from cachefetch.errors import Busy
from cachefetch.fetches import Fetches
from cachefetch.pb import fetch_pb2, fetch_pb2_grpc
from cachefetch.sockets import fetch_socket
from cachefetch.waiting import Pod, Waiting
from tests.cachefetch.fakes import CACHE, File, MemorySource
from tests.cachefetch.fetching import Stuck, cache, eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefetch.store import Store


@contextmanager
def stub_of(store: Store) -> Iterator[fetch_pb2_grpc.FetchStub]:
    with grpc.insecure_channel(f"unix:{fetch_socket(store.root)}") as channel:
        yield fetch_pb2_grpc.FetchStub(channel)


def test_the_name_of_the_service_is_a_promise() -> None:
    assert fetch_pb2.DESCRIPTOR.services_by_name["Fetch"].full_name == "goldlink.cachefetch.v1.Fetch"


def test_every_call_answers(store: Store) -> None:
    with running(store, {CACHE: MemorySource([File(b"a")])}, cache(), serve=True), stub_of(store) as stub:
        *_, last = stub.Ensure(fetch_pb2.EnsureRequest(cache=CACHE))
        assert last.version == store.current(CACHE)
        *_, result = stub.Refresh(fetch_pb2.RefreshRequest())
        assert (result.cache, result.result.refreshed.version.id) == (CACHE, last.version)
        [listed] = stub.List(fetch_pb2.ListRequest()).caches
        assert (listed.cache, listed.current) == (CACHE, last.version)
        watching = stub.Watch(fetch_pb2.WatchRequest())
        assert next(watching).status.cache == CACHE
        watching.cancel()


@pytest.mark.parametrize(("name", "version"), [("", ""), ("../x", ""), ("A", ""), (CACHE, "latest"), (CACHE, "0" * 63)])
def test_malformed_names_are_refused(store: Store, name: str, version: str) -> None:
    with running(store, {}, serve=True), stub_of(store) as stub:
        with pytest.raises(grpc.RpcError) as error:
            list(stub.Ensure(fetch_pb2.EnsureRequest(cache=name, version=version)))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_call_that_ends_gives_its_place_back(store: Store) -> None:
    stuck = Stuck()
    with running(store, {CACHE: stuck}, cache(), serve=True) as fetcher, stub_of(store) as stub:

        def waiting() -> float | None:
            return fetcher.metrics.registry.get_sample_value("goldlink_fetch_waiting_calls")

        calls = [stub.Ensure(fetch_pb2.EnsureRequest(cache=CACHE)) for _ in range(5)]
        eventually(lambda: waiting() == 5)
        for call in calls:
            call.cancel()
        eventually(lambda: waiting() == 0)
        stuck.let_go.set()


def test_the_pod_that_waits_is_known_while_it_does(store: Store) -> None:
    stuck, pod = Stuck(), Pod("team-a", "web-0", "uid")
    asked = fetch_pb2.EnsureRequest(cache=CACHE, pod=fetch_pb2.Pod(namespace="team-a", name="web-0", uid="uid"))
    with running(store, {CACHE: stuck}, cache(), serve=True) as fetcher, stub_of(store) as stub:
        call = stub.Ensure(asked)
        nobody = stub.Ensure(fetch_pb2.EnsureRequest(cache=CACHE))
        eventually(lambda: fetcher.metrics.registry.get_sample_value("goldlink_fetch_waiting_calls") == 2)
        assert [(wait.pod, wait.cache) for wait in fetcher.waiting.all()] == [(pod, CACHE)]
        call.cancel()
        nobody.cancel()
        eventually(lambda: not fetcher.waiting.all())
        stuck.let_go.set()


def test_hundreds_who_wait_keep_nobody_else_out(store: Store) -> None:
    stuck = Stuck()
    with running(store, {CACHE: stuck}, cache(), serve=True) as fetcher, stub_of(store) as stub:
        calls = [stub.Ensure(fetch_pb2.EnsureRequest(cache=CACHE)) for _ in range(300)]
        eventually(lambda: fetcher.metrics.registry.get_sample_value("goldlink_fetch_waiting_calls") == 300)
        for _ in range(20):
            assert len(stub.List(fetch_pb2.ListRequest(), timeout=5).caches) == 1
        stuck.then = MemorySource([File(b"a")])
        stuck.let_go.set()
        with ThreadPoolExecutor(20) as pool:
            assert {list(news)[-1].version for news in pool.map(lambda call: [*call], calls)} == {store.current(CACHE)}


def test_one_too_many_is_told_to_come_again() -> None:
    counts: list[int] = []
    servicer = service.Fetch(Fetches.__new__(Fetches), counts.append, Waiting())
    servicer._waiting = service.WAITING_MOST
    with pytest.raises(Busy, match="calls wait for the fetcher already"), servicer._place():
        pass
    assert counts == []
