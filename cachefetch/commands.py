"""What the commands do, apart from how their arguments are read: refresh, list, verify, gc.

Each takes a store and what was asked for, writes to a terminal, and returns the exit status. `populate` is a module of
its own, because it imports less.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from cachefetch import manifest, trash
from cachefetch.errors import Busy, DataError, GoldlinkError, UnknownVersion
from cachefetch.model import LinkMode, Version, short_id
from cachefetch.refresh import Refreshed
from cachefetch.refresh import refresh as refresh_cache
from cachefetch.selection import no_version, one_version, present, version_ids
from cachefetch.space import reclaimable
from cachefetch.terminal import age, many, seconds, size, table
from cachefetch.verify import Damage
from cachefetch.verify import verify as verify_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cachefetch.config import AnySource, Cache, Config
    from cachefetch.sources.base import Source
    from cachefetch.store import Store
    from cachefetch.terminal import Terminal

_TABLE_WIDTH = 100


def refresh(
    store: Store, caches: Sequence[Cache], open_source: Callable[[AnySource], Source], terminal: Terminal
) -> int:
    """One pass over the caches, one after the other; one that fails does not stop the others."""
    failed = 0
    for cache in caches:
        try:
            _refresh_one(store, cache, open_source, terminal)
        except (GoldlinkError, OSError) as error:
            failed += 1
            terminal.complain(_failure(store, cache.name, error))
    trash.empty(store.trash)
    return 1 if failed else 0


def _refresh_one(store: Store, cache: Cache, open_source: Callable[[AnySource], Source], terminal: Terminal) -> None:
    started = time.monotonic()
    with terminal.progress(cache.name, "looking for a new version") as progress:
        result = refresh_cache(store, cache, open_source(cache.source), progress)
    terminal.say(f"{cache.name}: {_result(result)}; {seconds(time.monotonic() - started)}")
    try:
        dropped = store.gc(cache.name, cache.retain)
    except Busy as error:
        terminal.say(f"{cache.name}: older versions stay for now: {error}")
        return
    for version in dropped:
        terminal.say(f"{cache.name}: {_dropped(version)}")


def _failure(store: Store, name: str, error: Exception) -> str:
    """What is still served, what failed, what to do."""
    current = store.current(name)
    served = f"version {short_id(current)} stays current" if current else "there is no version to serve yet"
    return f"{name}: the refresh failed, {served}: {error}; then run 'cachefetch refresh {name}' again"


def _result(result: Refreshed) -> str:
    version = result.version
    change = "changed" if result.changed else "unchanged"
    line = f"{change}, version {version.short}, {many(version.totals.files, 'file')}, {size(version.totals.bytes)}"
    if result.links is None:
        return line
    shared = f"{many(result.links.modes[LinkMode.HARDLINK], 'file')} shared with the version before"
    fallback = f" ({result.links})" if result.links.fallbacks else ""
    return f"{line}; fetched {size(result.fetched_bytes)}, {shared}{fallback}"


def _dropped(version: Version) -> str:
    return f"dropped version {version.short}, {size(version.totals.bytes)}"


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


def show_list(store: Store, config: Config, terminal: Terminal, *, as_json: bool) -> int:
    """Every version of every cache."""
    rows = list(_rows(store, config))
    now = time.time()
    if as_json:
        terminal.say(json.dumps([_record(row, now) for row in rows], indent=2))
        return 0
    header = ("CACHE", "VERSION", "SIZE", "FILES", "AGE", "USERS", "NOTE")
    for line in table(header, [_cells(row, now) for row in rows], right=(2, 3, 4, 5), width=_TABLE_WIDTH):
        terminal.say(line)
    return 0


def _rows(store: Store, config: Config) -> Iterator[Row]:
    users = Counter((record.cache, record.version) for record in store.records.all())
    there = present(store)
    names = [cache.name for cache in config.caches]
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
    return record


def _cells(row: Row, now: float) -> tuple[str, ...]:
    notes = {
        "no version": not row.id,
        "damaged": bool(row.id) and row.version is None,
        "current": row.current,
        "undeclared": not row.declared,
    }
    note = ", ".join(text for text, holds in notes.items() if holds)
    if row.version is None:
        return (row.cache, short_id(row.id) or "-", "-", "-", "-", str(row.users), note)
    totals = row.version.totals
    passed = age(now - row.version.published)
    return (row.cache, row.version.short, size(totals.bytes), f"{totals.files:,}", passed, str(row.users), note)


def verify(store: Store, name: str, prefix: str, terminal: Terminal, *, as_json: bool) -> int:
    """Hash versions again; 1 when anything is damaged.

    Those of the cache `name`, and of these the one whose id starts with `prefix`; with empty words all there are.
    """
    if name and not version_ids(store, name):
        raise no_version(name)
    records = []
    damaged = 0
    for cache in [name] if name else present(store):
        with store.pin(cache):
            for version_id in [one_version(store, cache, prefix)] if prefix else version_ids(store, cache):
                damage = _verify_one(store, cache, version_id, terminal)
                damaged += bool(damage)
                records.append(_verified(cache, version_id, damage))
                if not as_json:
                    _report_damage(cache, version_id, damage, terminal)
    if as_json:
        terminal.say(json.dumps(records, indent=2))
    elif not records:
        terminal.say("there is no version to verify")
    return 1 if damaged else 0


def _verify_one(store: Store, cache: str, version_id: str, terminal: Terminal) -> list[Damage]:
    with terminal.bar(f"{cache}@{short_id(version_id)}", "reading the manifest") as progress:
        with suppress(DataError, FileNotFoundError):  # what verify names as damage
            progress.expect(manifest.read_totals(store.manifest(cache, version_id)).bytes)
        return list(verify_version(store, cache, version_id, on_bytes=progress.advance))


def _report_damage(cache: str, version_id: str, damage: Sequence[Damage], terminal: Terminal) -> None:
    name = f"{cache}@{short_id(version_id)}"
    for item in damage:
        terminal.say(f"{name}: {item}")
    terminal.say(f"{name}: {len(damage):,} damaged" if damage else f"{name}: intact")


def _verified(cache: str, version_id: str, damage: Sequence[Damage]) -> dict[str, object]:
    """Paths are escaped as in the manifest, because JSON has no words for arbitrary bytes."""
    damaged = [{"path": manifest.escape(item.path).decode(), "what": item.what} for item in damage]
    return {"cache": cache, "version": version_id, "intact": not damage, "damaged": damaged}


def gc(store: Store, config: Config, terminal: Terminal, *, as_json: bool) -> int:
    """Drop what nobody needs of every cache, and empty the trash; 1 when that was not possible for some cache."""
    retain = {cache.name: cache.retain for cache in config.caches}
    dropped: list[Version] = []
    failed = 0
    for name in store.caches():
        try:
            dropped += store.gc(name, retain.get(name))
        except GoldlinkError as error:
            failed += 1
            terminal.complain(str(error))
    freed = reclaimable(store.trash)
    trash.empty(store.trash)
    if as_json:
        records = [{"cache": version.cache, "version": version.id} for version in dropped]
        terminal.say(json.dumps({"dropped": records, "freed": freed}, indent=2))
    else:
        for version in dropped:
            terminal.say(f"{version.cache}: {_dropped(version)}")
        terminal.say(f"{many(len(dropped), 'version')} dropped, {size(freed)} of disk space freed")
    return 1 if failed else 0
