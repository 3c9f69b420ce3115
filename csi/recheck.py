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
from cachefetch.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachefetch.model import Version
    from cachefetch.store import Store

_log = logging.getLogger(__name__)
_NAMED = 10


def boot_file(store: Store) -> Path:
    """Where the boot is noted in which the versions were checked last."""
    return store.root / "run" / "boot-id"


def needs_recheck(store: Store, boot_id: str) -> bool:
    """Whether this boot of the machine has not checked the versions yet."""
    try:
        return boot_file(store).read_text() != boot_id
    except FileNotFoundError:
        return True


def recheck(store: Store, boot_id: str, stopping: Callable[[], bool]) -> list[Version]:
    """Check every version once in this boot; returns those that were withdrawn. Stops early when `stopping` says so."""
    withdrawn: list[Version] = []
    for cache in store.caches():
        for version in store.versions(cache):
            if stopping():
                return withdrawn
            with store.pin(cache):
                damages = [str(damage) for damage in islice(verify(store, cache, version.id, content=False), _NAMED)]
            if damages and _withdraw(store, version, damages):
                withdrawn.append(version)
    durable.replace(boot_file(store), boot_id.encode())
    return withdrawn


def _withdraw(store: Store, version: Version, damages: list[str]) -> bool:
    try:
        store.drop(version.cache, version.id)
    except Busy as error:
        _log.error(
            "damaged", extra=fields(cache=version.cache, version=version.short, damage=damages, error=str(error))
        )
        return False
    _log.error("withdrawn", extra=fields(cache=version.cache, version=version.short, damage=damages))
    return True
