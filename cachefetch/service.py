"""The fetch service: protobuf to `asking` and back, no logic of its own."""

from __future__ import annotations

# ruff: noqa: ARG002, N802  (names and signatures of the protocol)
import logging
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import grpc

from cachefetch import asking
from cachefetch.asking import Arrived
from cachefetch.errors import Busy
from cachefetch.logs import fields
from cachefetch.messages import encode_ended, encode_status
from cachefetch.model import check_cache_name, check_version_id
from cachefetch.pb import fetch_pb2, fetch_pb2_grpc
from cachefetch.rpc import SocketServer, outcome
from cachefetch.waiting import Pod
from cachefetch.work import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cachefetch.fetches import Fetches
    from cachefetch.waiting import Waiting

_log = logging.getLogger(__name__)

WAITING_MOST = 512
"""Calls that wait at once: more than the driver lets wait (400), so that it is the one that refuses."""
WORKERS = WAITING_MOST + 16
"""Threads: one for every call that may wait, and some for those that do not, so that none takes longer because others
wait. Threads are made when a call finds none idle."""


class Fetch(fetch_pb2_grpc.FetchServicer):
    """Answers from `fetches`.

    Args:
        fetches: what the daemon does.
        on_waiting: hears how many calls wait now.
        waiting: knows which pods they are for.
    """

    def __init__(self, fetches: Fetches, on_waiting: Callable[[int], None], waiting: Waiting) -> None:
        self._fetches = fetches
        self._on_waiting = on_waiting
        self._pods = waiting
        self._lock = threading.Lock()
        self._waiting = 0

    def Ensure(
        self, request: fetch_pb2.EnsureRequest, context: grpc.ServicerContext
    ) -> Iterator[fetch_pb2.EnsureResponse]:
        """How far the version is, until it is there."""
        with _answering("Ensure", context), self._place(), self._of(request):
            check_cache_name(request.cache)
            if request.version:
                check_version_id(request.version)
            for news in asking.ensure(self._fetches, request.cache, request.version):
                if isinstance(news, Arrived):
                    yield fetch_pb2.EnsureResponse(version=news.version)
                else:
                    yield fetch_pb2.EnsureResponse(status=encode_status(news))

    def Refresh(
        self, request: fetch_pb2.RefreshRequest, context: grpc.ServicerContext
    ) -> Iterator[fetch_pb2.RefreshResponse]:
        """How far each cache is, and how its refresh ended."""
        with _answering("Refresh", context), self._place():
            targets = {target.cache: target.declaration for target in request.targets}
            if not targets:
                targets = {status.cache: "" for status in self._fetches.statuses()}
            for name, news in asking.refresh(self._fetches, targets):
                if isinstance(news, Status):
                    yield fetch_pb2.RefreshResponse(cache=name, status=encode_status(news))
                else:
                    yield fetch_pb2.RefreshResponse(cache=name, result=encode_ended(news))

    def List(self, request: fetch_pb2.ListRequest, context: grpc.ServicerContext) -> fetch_pb2.ListResponse:
        """What every declared cache is doing."""
        with _answering("List", context):
            return fetch_pb2.ListResponse(caches=map(encode_status, self._fetches.statuses()))

    def Watch(
        self, request: fetch_pb2.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[fetch_pb2.WatchResponse]:
        """Every declared cache, then each that changes."""
        with _answering("Watch", context), self._place():
            for status in asking.watch(self._fetches, lambda: not context.is_active()):
                yield fetch_pb2.WatchResponse(status=encode_status(status))

    def _of(self, request: fetch_pb2.EnsureRequest) -> AbstractContextManager[None]:
        """The pod that waits, if it is one, is known to wait."""
        pod = request.pod
        return self._pods.of(Pod(pod.namespace, pod.name, pod.uid), request.cache) if pod.uid else nullcontext()

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Hold a place among the calls that wait."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            if change > 0 and self._waiting >= WAITING_MOST:
                raise Busy(f"{WAITING_MOST} calls wait for the fetcher already: try again when some of them are done")
            self._waiting += change
            self._on_waiting(self._waiting)


def make_server(path: Path, servicer: Fetch) -> SocketServer:
    """A server of the service at `path`, not started yet."""
    server = SocketServer(path, WORKERS, option="--state-dir")
    fetch_pb2_grpc.add_FetchServicer_to_server(servicer, server.grpc)
    return server


@contextmanager
def _answering(method: str, context: grpc.ServicerContext) -> Iterator[None]:
    """End the call with the code and text of what the body raises."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (the boundary of the call)
        code, text = outcome(error, method)
        if code is grpc.StatusCode.INTERNAL:
            _log.exception("call_failed", extra=fields(method=method))
        context.abort(code, text)
