"""How commands talk to the fetcher that runs on a store."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from cachefetch.errors import ConfigError, GoldlinkError, UnknownCache
from cachefetch.messages import decode_ended, decode_status
from cachefetch.pb import fetch_pb2, fetch_pb2_grpc
from cachefetch.sockets import fetch_socket, served

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cachefetch.work import Ended, Status

_TIMEOUT = 10.0
"""Seconds for an answer that needs no waiting."""


class FetcherFailed(GoldlinkError):
    """The fetcher that runs could not do it."""


class Fetcher:
    """The fetcher that runs."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = fetch_pb2_grpc.FetchStub(channel)

    def refresh(self, targets: Mapping[str, str]) -> Iterator[tuple[str, Status | Ended]]:
        """See `asking.refresh`.

        Raises:
            UnknownCache: one is not declared to it.
            ConfigError: one is declared to it in another way.
            FetcherFailed: it stopped, or could not do it.
        """
        wanted = [fetch_pb2.RefreshTarget(cache=name, declaration=known) for name, known in targets.items()]
        with _failures():
            for response in self._stub.Refresh(fetch_pb2.RefreshRequest(targets=wanted)):
                if response.HasField("result"):
                    yield response.cache, decode_ended(response.result)
                else:
                    yield response.cache, decode_status(response.status)

    def statuses(self) -> list[Status]:
        """What every cache that is declared to it is doing.

        Raises:
            FetcherFailed: it stopped, or does not answer.
        """
        with _failures():
            answer = self._stub.List(fetch_pb2.ListRequest(), timeout=_TIMEOUT)
        return [decode_status(status) for status in answer.caches]


@contextmanager
def connect(root: Path) -> Iterator[Fetcher | None]:
    """The fetcher that runs on the store at `root`; None when none does.

    Raises:
        PermissionError: only root may talk to it.
    """
    path = fetch_socket(root)
    if not served(path):
        yield None
        return
    with grpc.insecure_channel(f"unix:{path}") as channel:
        yield Fetcher(channel)


@contextmanager
def _failures() -> Iterator[None]:
    """The codes of the service as errors for a command line."""
    try:
        yield
    except grpc.RpcError as error:
        text = error.details() or "it gave no reason"
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise UnknownCache(text) from error
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            raise ConfigError(text) from error
        raise FetcherFailed(f"the fetcher did not finish ({text}): see its log, then run the command again") from error
