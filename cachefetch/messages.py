"""The fetcher's types as messages of its service, and back for its clients."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cachefetch.linktree import LinkReport
from cachefetch.model import LinkMode, Totals, Version
from cachefetch.pb import fetch_pb2
from cachefetch.refresh import Refreshed
from cachefetch.work import Ended, State, Status

if TYPE_CHECKING:
    from collections.abc import Iterable


def encode_status(status: Status) -> fetch_pb2.CacheStatus:
    """A cache at one moment."""
    return fetch_pb2.CacheStatus(
        cache=status.cache,
        state=fetch_pb2.State.Value(f"STATE_{status.state.name}"),
        current=status.current,
        done_bytes=status.done,
        total_bytes=status.total or 0,
        next_in=status.next_in,
        error=status.error,
        failures=status.failures,
        text=status.text,
    )


def decode_status(message: fetch_pb2.CacheStatus) -> Status:
    """The inverse of `encode_status`; a state of a newer fetcher counts as idle."""
    name = fetch_pb2.State.Name(message.state).removeprefix("STATE_") if message.state in _STATES else "IDLE"
    return Status(
        cache=message.cache,
        state=State[name],
        current=message.current,
        done=message.done_bytes,
        total=message.total_bytes or None,
        next_in=message.next_in if message.HasField("next_in") else None,
        error=message.error,
        failures=message.failures,
        text=message.text,
    )


_STATES = frozenset(fetch_pb2.State.Value(f"STATE_{state.name}") for state in State)


def encode_ended(ended: Ended) -> fetch_pb2.RefreshResult:
    """How a refresh ended."""
    result = fetch_pb2.RefreshResult(dropped=_versions(ended.dropped), kept=ended.kept, seconds=ended.seconds)
    if ended.refreshed is None:
        result.error = ended.error
        return result
    done = ended.refreshed
    result.refreshed.version.CopyFrom(_version(done.version))
    result.refreshed.changed = done.changed
    result.refreshed.fetched_bytes = done.fetched_bytes
    if done.links is not None:
        result.refreshed.links.CopyFrom(_links(done.links))
    return result


def decode_ended(message: fetch_pb2.RefreshResult) -> Ended:
    """The inverse of `encode_ended`."""
    refreshed = None
    if message.HasField("refreshed"):
        done = message.refreshed
        links = _report(done.links) if done.HasField("links") else None
        refreshed = Refreshed(_read_version(done.version), done.changed, done.fetched_bytes, links)
    dropped = tuple(_read_version(version) for version in message.dropped)
    return Ended(message.seconds, refreshed, message.error, dropped, message.kept)


def _versions(versions: Iterable[Version]) -> list[fetch_pb2.Version]:
    return [_version(version) for version in versions]


def _version(version: Version) -> fetch_pb2.Version:
    entries, files, size = version.totals
    return fetch_pb2.Version(
        cache=version.cache, id=version.id, entries=entries, files=files, bytes=size, published=version.published
    )


def _read_version(message: fetch_pb2.Version) -> Version:
    totals = Totals(message.entries, message.files, message.bytes)
    return Version(message.cache, message.id, totals, message.published)


def _links(report: LinkReport) -> fetch_pb2.Links:
    fallbacks = [
        fetch_pb2.Fallback(mode=mode, cause=cause, files=count) for (mode, cause), count in report.fallbacks.items()
    ]
    return fetch_pb2.Links(
        modes={mode.value: count for mode, count in report.modes.items()},
        fallbacks=fallbacks,
        directories=report.directories,
        own_bytes=report.own_bytes,
    )


def _report(message: fetch_pb2.Links) -> LinkReport:
    return LinkReport(
        modes=Counter({LinkMode(mode): count for mode, count in message.modes.items()}),
        directories=message.directories,
        own_bytes=message.own_bytes,
        fallbacks=Counter({(LinkMode(item.mode), item.cause): item.files for item in message.fallbacks}),
    )
