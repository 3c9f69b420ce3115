"""What the commands do, apart from how their arguments are read: refresh, verify, gc.

Each takes a store and what was asked for, writes to a terminal, and returns the exit status. `listing`, `populate` and
`remote`, the refresh by a daemon that runs, are modules of their own.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cachefetch import manifest, trash
from cachefetch.errors import Busy, DataError, GoldlinkError
from cachefetch.model import LinkMode, Version, short_id
from cachefetch.refresh import Refreshed
from cachefetch.refresh import refresh as refresh_cache
from cachefetch.selection import no_version, one_version, present, version_ids
from cachefetch.space import reclaimable
from cachefetch.terminal import many, seconds, size
from cachefetch.verify import Damage
from cachefetch.verify import verify as verify_version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachefetch.config import AnySource, Cache, Config
    from cachefetch.sources.base import Source
    from cachefetch.store import Store
    from cachefetch.terminal import Terminal


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
            terminal.complain(failure(store, cache.name, str(error)))
    trash.empty(store.trash)
    return 1 if failed else 0


def _refresh_one(store: Store, cache: Cache, open_source: Callable[[AnySource], Source], terminal: Terminal) -> None:
    started = time.monotonic()
    with terminal.progress(cache.name, "looking for a new version") as progress:
        result = refresh_cache(store, cache, open_source(cache.source), progress)
    terminal.say(f"{cache.name}: {describe(result)}; {seconds(time.monotonic() - started)}")
    try:
        dropped = store.gc(cache.name, cache.retain)
    except Busy as error:
        terminal.say(f"{cache.name}: older versions stay for now: {error}")
        return
    for version in dropped:
        terminal.say(f"{cache.name}: {dropping(version)}")


def failure(store: Store, name: str, error: str) -> str:
    """What is still served, what failed, what to do."""
    current = store.current(name)
    served = f"version {short_id(current)} stays current" if current else "there is no version to serve yet"
    return f"{name}: the refresh failed, {served}: {error}; then run 'cachefetch refresh {name}' again"


def describe(result: Refreshed) -> str:
    """What a refresh came to."""
    version = result.version
    change = "changed" if result.changed else "unchanged"
    line = f"{change}, version {version.short}, {many(version.totals.files, 'file')}, {size(version.totals.bytes)}"
    if result.links is None:
        return line
    shared = f"{many(result.links.modes[LinkMode.HARDLINK], 'file')} shared with the version before"
    fallback = f" ({result.links})" if result.links.fallbacks else ""
    return f"{line}; fetched {size(result.fetched_bytes)}, {shared}{fallback}"


def dropping(version: Version) -> str:
    """That a version went."""
    return f"dropped version {version.short}, {size(version.totals.bytes)}"


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
            terminal.say(f"{version.cache}: {dropping(version)}")
        terminal.say(f"{many(len(dropped), 'version')} dropped, {size(freed)} of disk space freed")
    return 1 if failed else 0
