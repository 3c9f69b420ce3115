"""Refresh: look at the source, and if it changed build a new version beside the ones in use and switch to it.

Reads like its own specification: resolve, stop when nothing changed, stage, seal, publish. A failure anywhere leaves
`current` as it was and nothing half-made behind, except what was downloaded, which the next try uses.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from cachefetch.errors import OutOfSpace
from cachefetch.limits import Limits
from cachefetch.sources.base import SourceChanged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefetch.config import Cache
    from cachefetch.linktree import LinkReport
    from cachefetch.model import Version
    from cachefetch.progress import Progress
    from cachefetch.sources.base import Snapshot, Source
    from cachefetch.store import Store

_CHANGES_MAX = 2
_SETTLE_SECONDS = 0.5


@dataclass(frozen=True)
class Refreshed:
    """What a refresh came to."""

    version: Version
    """What is current now."""
    changed: bool
    """Whether current moved to another version."""
    fetched_bytes: int = 0
    """Content that came from the source."""
    links: LinkReport | None = None
    """Files that are shared with the version before; None when nothing was staged."""


def refresh(store: Store, cache: Cache, source: Source, progress: Progress) -> Refreshed:
    """One pass over one cache.

    Raises:
        Busy: another process refreshes the cache.
        SourceError: the origin could not be reached, or changed all the time; `current` stays, a later try resumes.
        DataError: what it delivered is wrong; `current` stays.
        OutOfSpace: there is no room for it; `current` stays.
    """
    identity = identify(cache)
    with store.refreshing(cache.name), store.pin(cache.name), _full_disk(cache):
        known = store.origin(cache.name)
        try:
            if known is not None and known.meta.get("source") != identity:
                known.close()
                known = None
            snapshot = source.resolve(known)
        finally:
            unchanged = known.meta["version"] if known else ""
            if known:
                known.close()
        if snapshot is None:
            previous = store.current(cache.name)
            store.set_current(cache.name, unchanged)
            store.clear_staging(cache.name)
            return Refreshed(store.version(cache.name, unchanged), changed=previous != unchanged)
        return _fetch_steady(store, cache, identity, snapshot, progress)


def identify(cache: Cache) -> str:
    """A name for what the cache is fetched from: another source gives another name, other settings do not."""
    return hashlib.sha256(msgspec.json.encode(cache.source, order="sorted")).hexdigest()[:16]


def _fetch_steady(store: Store, cache: Cache, identity: str, snapshot: Snapshot, progress: Progress) -> Refreshed:
    """Fetch, and again when the source changed meanwhile: a version never mixes two states of its source."""
    for _ in range(_CHANGES_MAX):
        try:
            return _fetch(store, cache, identity, snapshot, progress)
        except SourceChanged:
            time.sleep(_SETTLE_SECONDS)
    return _fetch(store, cache, identity, snapshot, progress)


def _fetch(store: Store, cache: Cache, identity: str, snapshot: Snapshot, progress: Progress) -> Refreshed:
    """Stage, seal and publish what the source holds now."""
    fetched = 0

    def on_bytes(count: int) -> None:
        nonlocal fetched
        fetched += count
        progress.advance(count)

    _reserve(store, cache, snapshot.size)
    progress.expect(snapshot.size)
    previous = store.current(cache.name)
    limits = Limits(max_bytes=cache.max_bytes)
    with store.stage(cache.name, identity, limits=limits, on_bytes=on_bytes, on_recalled=progress.recall) as stage:
        snapshot.fill(stage)
        sealed = stage.seal()
        version = store.publish(cache.name, sealed, stage.index, {**snapshot.meta, "source": identity})
    return Refreshed(version, version.id != previous, fetched, stage.linker.report)


def _reserve(store: Store, cache: Cache, size: int | None) -> None:
    """Refuse before the first byte what cannot fit; what the source does not announce is stopped by the stage."""
    if size is None:
        return
    if cache.max_bytes is not None and size > cache.max_bytes:
        raise OutOfSpace(
            f"cache {cache.name!r}: {size} bytes are more than maxBytes {cache.max_bytes}: "
            "raise it or shrink the source"
        )
    free = shutil.disk_usage(store.root).free
    if size > free:
        raise OutOfSpace(
            f"cache {cache.name!r}: {size} bytes do not fit into the {free} that are free below {store.root}"
        )


@contextmanager
def _full_disk(cache: Cache) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise OutOfSpace(
            f"cache {cache.name!r}: the state directory's file system is full ({error.strerror}): "
            "free some or lower `retain`"
        ) from error
