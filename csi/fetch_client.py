"""Waiting for a version that the fetcher brings: one stream for each call, made anew whenever it breaks.

The fetch is the fetcher's, so nothing is lost when a stream breaks. Whatever happens to the fetcher meanwhile, the
store decides: without a fetcher somebody may still run `cachefetch refresh`, so it is looked at between the tries.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from cachefetch.errors import Busy, InvalidRequest, NotReady, Precondition, UnknownVersion
from cachefetch.pb import fetch_pb2, fetch_pb2_grpc
from cachefetch.sockets import served
from csi.arrivals import explain, patience

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cachefetch.store import Store
    from csi.arrivals import Caller
    from csi.requests import Pod
    from csi.waiters import Waiters

_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.1, 0.9, 1.3
"""Seconds until a broken stream is made anew; ever more, so that hundreds of waiting calls cost next to nothing."""
_PASSING = frozenset({
    grpc.StatusCode.UNAVAILABLE,  # it stops, or was killed
    grpc.StatusCode.CANCELLED,  # by the end of the wait
    grpc.StatusCode.DEADLINE_EXCEEDED,
})  # fmt: skip
"""Codes that say nothing about the version."""
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
)
"""By itself gRPC waits up to two minutes before it connects again (gRPC, doc/connection-backoff.md)."""


class FetchArrivals:
    """Asks the fetcher at a socket, which need not be there (see `csi.arrivals.Arrivals`)."""

    def __init__(self, store: Store, waiters: Waiters, seconds: float, path: Path) -> None:
        """Wait up to `seconds`, and never longer than the caller does; `path` is the fetcher's socket."""
        self._store = store
        self._waiters = waiters
        self._seconds = seconds
        self._path = path
        self._channel = grpc.insecure_channel(f"unix:{path}", options=_OPTIONS)
        self._stub = fetch_pb2_grpc.FetchStub(self._channel)

    def close(self) -> None:
        """Close the connection; whoever waits has been woken."""
        self._channel.close()

    def wait(self, cache: str, version: str, caller: Caller, pod: Pod | None = None) -> str:
        """See `Arrivals`. What is here already needs no place among those that wait, and no fetcher.

        Raises:
            NotReady: it did not come in time; says how far it is.
            Busy: too many wait, or the driver stops.
            UnknownVersion: the source has another version by now.
            Precondition: this node does not hold the cache.
        """
        request = fetch_pb2.EnsureRequest(cache=cache, version=version)
        if pod is not None:
            request.pod.CopyFrom(fetch_pb2.Pod(namespace=pod.namespace, name=pod.name, uid=pod.uid))
        return self._find(cache, version) or self._await(request, caller)

    def _await(self, request: fetch_pb2.EnsureRequest, caller: Caller) -> str:
        cache, version = request.cache, request.version
        wait = _Wait(time.monotonic() + patience(self._seconds, caller))
        with self._waiters.waiting(wait.end):
            if not caller.add_callback(wait.end):
                raise Busy("the caller is gone: nothing was done")
            while True:
                found = self._ask(request, wait) or self._find(cache, version)
                if found:
                    return found
                wait.pause(cache, version)

    def _find(self, cache: str, version: str) -> str | None:
        wanted = version or self._store.current(cache)
        return wanted if wanted and self._store.has(cache, wanted) else None

    def _ask(self, request: fetch_pb2.EnsureRequest, wait: _Wait) -> str | None:
        """Follow one stream to its end: the version, or None when it broke."""
        if not served(self._path):
            wait.news = (
                "and no fetcher is running: start 'cachefetch run', "
                f"or fetch it once with 'cachefetch refresh {request.cache}'"
            )
            return None
        call = self._stub.Ensure(request, timeout=wait.left())
        try:
            with wait.following(call):
                for response in call:
                    if response.version:
                        return response.version
                    wait.hear(request.cache, request.version, response.status)
        except grpc.RpcError as error:
            wait.broken(error)
        return None


class _Wait:
    """One call that waits: until when, what it has heard, and the stream that it follows now."""

    def __init__(self, deadline: float) -> None:
        self.news = "and its fetcher does not answer"
        """Why the version is not here, as heard last."""
        self._deadline = deadline
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._call: grpc.Call | None = None
        self._pause = _FIRST_PAUSE

    def left(self) -> float:
        """Seconds until the wait ends without result."""
        return max(0.0, self._deadline - time.monotonic())

    def end(self) -> None:
        """End the wait now; called from any thread."""
        self._ended.set()
        with self._lock:
            call = self._call
        if call is not None:
            call.cancel()

    @contextmanager
    def following(self, call: grpc.Call) -> Iterator[None]:
        """Follow the stream in the body, and give it up afterwards."""
        with self._lock:
            self._call = call
        if self._ended.is_set():  # before the call was known, so nobody has cancelled it
            call.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._call = None
            call.cancel()

    def hear(self, cache: str, version: str, status: fetch_pb2.CacheStatus) -> None:
        """The fetcher says how far it is.

        Raises:
            NotReady: it will not try again before the wait ends, so the reason is better told now.
        """
        self.news = f"({status.text})"
        self._pause = _FIRST_PAUSE
        if status.state == fetch_pb2.STATE_FAILED and status.next_in > self.left():
            raise NotReady(explain(cache, version, self.news))

    def broken(self, error: grpc.RpcError) -> None:
        """The stream ended without the version; returns when another try makes sense.

        Raises:
            UnknownVersion: the source has another version by now, or the fetcher knows no such cache.
            InvalidRequest: the fetcher takes the names for malformed.
            Precondition: this node does not hold the cache; kubelet tries again, and labels may have changed by then.
        """
        text = error.details() or ""
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise UnknownVersion(text) from error
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            raise InvalidRequest(text) from error
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            raise Precondition(text) from error
        if error.code() not in _PASSING:
            self.news = f"({text})"

    def pause(self, cache: str, version: str) -> None:
        """Wait a moment before the next try.

        Raises:
            NotReady: there is no time left.
            Busy: the caller is gone or the driver stops.
        """
        left = self.left()
        if self._ended.wait(min(self._pause, left)):
            raise Busy("the wait was ended because the caller is gone or the driver stops: it is repeated")
        if left <= self._pause:
            raise NotReady(explain(cache, version, self.news))
        self._pause = min(self._pause * _GROWTH, _LONGEST_PAUSE)
