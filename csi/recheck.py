"""After a reboot: are the golden versions still what they were? A power cut may have taken what was not written yet.

Cheap, because no file is read: names, types, sizes, modes and times are compared with the manifest, in the
background, while volumes are published already. A version that lost something is withdrawn, so that it is fetched
anew: absent is better than wrong.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING

from cachefetch import durable
from cachefetch.errors import Busy
from cachefetch.logs import fields
from cachefetch.model import short_id
from cachefetch.verify import verify

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

    from cachefetch.store import Store

_log = logging.getLogger(__name__)
_NAMED = 10
_AGAIN = 5.0
"""Seconds until a damaged version that was in use is looked at again."""


def boot_file(store: Store) -> Path:
    """Where the boot is noted in which the versions were checked last."""
    return store.root / "run" / "boot-id"


def needs_recheck(store: Store, boot_id: str) -> bool:
    """Whether this boot of the machine has not checked the versions yet."""
    try:
        return boot_file(store).read_text() != boot_id
    except FileNotFoundError:
        return True


def recheck(store: Store, boot_id: str, stop: Event, again: float = _AGAIN) -> list[str]:
    """Check every version once in this boot; returns the ids of those that were withdrawn. Ends early with `stop`.

    A damaged version that is in use is tried again every `again` seconds. The boot counts as checked when nothing
    damaged is left.
    """
    withdrawn: list[str] = []
    pending = [(cache, version_id) for cache in store.caches() for version_id in _version_ids(store, cache)]
    while pending:
        in_use = []
        for cache, version_id in pending:
            if stop.is_set():
                return withdrawn
            damages = _damages(store, cache, version_id)
            if damages and _withdraw(store, cache, version_id, damages):
                withdrawn.append(version_id)
            elif damages:
                in_use.append((cache, version_id))
        pending = in_use
        if pending and stop.wait(again):
            return withdrawn
    durable.replace(boot_file(store), boot_id.encode())
    return withdrawn


def _version_ids(store: Store, cache: str) -> list[str]:
    """Not `Store.versions`, which reads the manifests: these may be what was damaged."""
    try:
        return sorted(place.name for place in (store.root / "caches" / cache / "versions").iterdir())
    except FileNotFoundError:
        return []


def _damages(store: Store, cache: str, version_id: str) -> list[str]:
    """The first damages of the version; none also when it was collected meanwhile."""
    with store.pin(cache):
        if not store.manifest(cache, version_id).parent.exists():
            return []
        try:
            return [str(damage) for damage in islice(verify(store, cache, version_id, content=False), _NAMED)]
        except OSError as error:  # the disk does not answer: whatever this file is, it cannot be handed out
            return [str(error)]


def _withdraw(store: Store, cache: str, version_id: str, damages: list[str]) -> bool:
    about: dict[str, object] = {"cache": cache, "version": short_id(version_id), "damage": damages}
    try:
        store.drop(cache, version_id)
    except Busy as error:
        _log.error("damaged", extra=fields(**about, error=str(error)))
        return False
    _log.error("withdrawn", extra=fields(**about))
    return True
