"""Which caches and versions a command line means: what people write, against what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefetch.errors import InvalidRequest, UnknownVersion

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cachefetch.config import Cache, Config
    from cachefetch.store import Store


def declared(config: Config, names: Sequence[str]) -> list[Cache]:
    """The caches of these names in the order of the configuration; all of them when no name is given.

    Raises:
        InvalidRequest: a name is not declared; tells the ones that are.
    """
    known = [cache.name for cache in config.caches]
    for name in names:
        _check(name, known)
    return [cache for cache in config.caches if not names or cache.name in names]


def present(store: Store) -> list[str]:
    """The caches that the store has; none when there is no store yet, which reading must not make."""
    return store.caches() if (store.root / "caches").is_dir() else []


def version_ids(store: Store, cache: str) -> list[str]:
    """The ids of the versions of a cache, also of those whose manifest cannot be read; sorted."""
    place = store.root / "caches" / cache / "versions"
    return sorted(version.name for version in place.iterdir()) if place.is_dir() else []


def split(text: str) -> tuple[str, str]:
    """`CACHE[@VERSION]` as the name and the version prefix, which is empty when there is none.

    Raises:
        InvalidRequest: the version is missing behind the `@`.
    """
    name, at, prefix = text.partition("@")
    if at and not prefix:
        raise InvalidRequest(f"{text!r} names no version: write a version id behind the '@', or leave it out")
    return name, prefix


def check_known(store: Store, config: Config, name: str) -> str:
    """Return `name` if a cache of that name is declared or in the store.

    Raises:
        InvalidRequest: neither; tells the ones there are.
    """
    return _check(name, sorted({*present(store), *(cache.name for cache in config.caches)}))


def one_version(store: Store, cache: str, prefix: str) -> str:
    """The id of the version whose id starts with `prefix`; of the current one when that is empty.

    Raises:
        UnknownVersion: there is none, or the prefix fits more than one.
    """
    if not prefix:
        current = store.current(cache)
        if current is None:
            raise no_version(cache)
        return current
    found = [version_id for version_id in version_ids(store, cache) if version_id.startswith(prefix)]
    if len(found) != 1:
        count = "no version" if not found else f"{len(found)} versions"
        raise UnknownVersion(f"{cache}@{prefix} names {count}: 'cachefetch list -o json' shows the whole ids")
    return found[0]


def no_version(cache: str) -> UnknownVersion:
    """The error for a cache that was never fetched."""
    return UnknownVersion(f"cache {cache!r} has no version here yet: run 'cachefetch refresh {cache}' first")


def _check(name: str, known: Collection[str]) -> str:
    if name not in known:
        there_are = f"there are {', '.join(known)}" if known else "none is declared"
        raise InvalidRequest(f"there is no cache {name!r}: {there_are}")
    return name
