"""What `cachefetch list` shows: every version of every cache, and what the fetcher does about the cache."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from cachefetch.errors import DataError, UnknownVersion
from cachefetch.journal import Journal
from cachefetch.model import Version, short_id
from cachefetch.refresh import identify
from cachefetch.selection import present, version_ids
from cachefetch.terminal import age, seconds, size, table
from cachefetch.work import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cachefetch.config import Config
    from cachefetch.store import Store
    from cachefetch.terminal import Terminal
    from cachefetch.work import Status

_TABLE_WIDTH = 100


class Doing(NamedTuple):
    """What is known about the refreshes of a cache."""

    state: State | None = None
    """None: no fetcher runs."""
    next_in: float | None = None
    """Seconds; None: nothing is planned, or that is not known."""
    error: str = ""
    """Why the last try failed, and the remedy; empty: it did not."""
    failures: int = 0
    text: str = ""
    """What is worth a line of its own; empty: nothing."""


def told(statuses: Sequence[Status]) -> dict[str, Doing]:
    """What the fetcher that runs says."""
    return {
        status.cache: Doing(
            status.state,
            status.next_in,
            status.error,
            status.failures,
            "" if status.state is State.IDLE else status.text,
        )
        for status in statuses
    }


def remembered(store: Store, config: Config, now: float) -> dict[str, Doing]:
    """What the last fetcher left behind; `now` in seconds since the epoch."""
    failures = Journal.of(store.root).read()
    found = {}
    for cache in config.caches:
        failure = failures.get(cache.name)
        if failure is not None and failure.source == identify(cache):
            text = f"last try failed: {failure.error}; no fetcher is running"
            found[cache.name] = Doing(None, max(0.0, failure.retry - now), failure.error, failure.count, text)
    return found


class Row(NamedTuple):
    """One version, or one cache that has none."""

    cache: str
    declared: bool
    id: str = ""
    """Empty for a cache without a version."""
    version: Version | None = None
    """None when there is none, or its manifest cannot be read."""
    current: bool = False
    users: int = 0
    doing: Doing = Doing()


def show(store: Store, names: Sequence[str], doings: Mapping[str, Doing], terminal: Terminal, *, as_json: bool) -> int:
    """Every version of every cache, those of these `names` are declared; `doings` says what is done about them."""
    shown = [row._replace(doing=doings.get(row.cache, Doing())) for row in rows(store, names)]
    now = time.time()
    if as_json:
        terminal.say(json.dumps([_record(row, now) for row in shown], indent=2))
        return 0
    header = ("CACHE", "VERSION", "SIZE", "FILES", "AGE", "USERS", "NOTE")
    for line in table(header, [_cells(row, now) for row in shown], right=(2, 3, 4, 5), width=_TABLE_WIDTH):
        terminal.say(line)
    for name, doing in doings.items():
        if doing.text:
            terminal.say(f"{name}: {doing.text}")
    return 0


def rows(store: Store, names: Sequence[str]) -> Iterator[Row]:
    """Every version of the caches of these names, which are declared, then of the others in the store."""
    users = Counter((record.cache, record.version) for record in store.records.all())
    there = present(store)
    for name in [*names, *(name for name in there if name not in names)]:
        versions = _versions(store, name) if name in there else {}
        current = store.current(name)
        for version_id, version in versions.items():
            yield Row(name, name in names, version_id, version, version_id == current, users[name, version_id])
        if not versions:
            yield Row(name, name in names)


def _versions(store: Store, name: str) -> dict[str, Version | None]:
    """The versions by their ids, newest first, at the end those whose manifest cannot be read."""
    found: dict[str, Version | None] = {}
    with store.pin(name):  # so that none disappears while they are looked at
        for version_id in version_ids(store, name):
            try:
                found[version_id] = store.version(name, version_id)
            except (DataError, UnknownVersion):
                found[version_id] = None
    return dict(sorted(found.items(), key=lambda item: item[1].published if item[1] else 0.0, reverse=True))


def _record(row: Row, now: float) -> dict[str, object]:
    record: dict[str, object] = {"cache": row.cache, "declared": row.declared, "version": row.id or None}
    if row.id:
        record |= {"current": row.current, "users": row.users, "damaged": row.version is None}
    if row.version is not None:
        record |= {
            "bytes": row.version.totals.bytes,
            "files": row.version.totals.files,
            "entries": row.version.totals.entries,
            "published": datetime.fromtimestamp(row.version.published, UTC).isoformat(timespec="seconds"),
            "age": max(0, round(now - row.version.published)),
        }
    doing = row.doing
    return record | {
        "state": doing.state,
        "next": None if doing.next_in is None else round(doing.next_in, 1),
        "error": doing.error or None,
        "failures": doing.failures,
    }


def _cells(row: Row, now: float) -> tuple[str, ...]:
    notes = {
        "no version": not row.id,
        "damaged": bool(row.id) and row.version is None,
        "current": row.current,
        "undeclared": not row.declared,
        _planned(row.doing): row.doing.state is State.IDLE and (row.current or not row.id),
    }
    note = ", ".join(text for text, holds in notes.items() if holds)
    if row.version is None:
        return (row.cache, short_id(row.id) or "-", "-", "-", "-", str(row.users), note)
    totals = row.version.totals
    passed = age(now - row.version.published)
    return (row.cache, row.version.short, size(totals.bytes), f"{totals.files:,}", passed, str(row.users), note)


def _planned(doing: Doing) -> str:
    return "by hand only" if doing.next_in is None else f"next look in {seconds(doing.next_in)}"
