"""The store: golden versions of caches in one directory of one mount, published by rename, never modified after.

    <root>/caches/<cache>/versions/<id>/{manifest, tree/…}
                         /current -> versions/<id>
                         /origin.db                      what the source said at the last refresh (`index`)
          /staging/<cache>/                              a fetch under way
          /pool/  /volumes/  /locks/  /trash/  /run/

Everything that is linked lives below this one directory, because link(2) and rename(2) fail with EXDEV even between two
mounts of one device. Whoever reads a version holds the cache's lock shared; garbage collection takes it alone, for as
long as a decision and some renames take. A version's name is its content's digest, so publishing the same twice is one.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from cachefetch import durable, manifest, retention
from cachefetch.errors import Busy, DataError, UnknownVersion
from cachefetch.fitness import check_fitness
from cachefetch.index import Index
from cachefetch.model import Totals, Version, check_cache_name, check_version_id, short_id
from cachefetch.records import Records
from cachefetch.stage import Previous, Sealed, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cachefetch.limits import Limits

_LAYOUT = ("caches", "staging", "pool", "volumes", "locks", "trash", "run")
_ORIGIN = "origin.db"
_CURRENT = "current"


class Store:
    """The versions of all caches of one node (or one laptop)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records = Records(root / "volumes")
        self.trash = root / "trash"

    @classmethod
    def open(cls, root: Path) -> Store:
        """The store at `root`, made when it is not there.

        Raises:
            StoreUnfit: the directory cannot hold a store; says what to mount instead.
        """
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _LAYOUT:
            (root / name).mkdir(mode=0o700, exist_ok=True)
        check_fitness(root)
        return cls(root)

    # What there is

    def caches(self) -> list[str]:
        """The caches that have something here, whether or not they are still declared."""
        return sorted({place.name for name in ("caches", "staging") for place in (self.root / name).iterdir()})

    def current(self, cache: str) -> str | None:
        """The id of the version that new volumes get; None while there is none. Reads one symlink."""
        try:
            return (self._cache(cache) / _CURRENT).readlink().name
        except FileNotFoundError:
            return None

    def has(self, cache: str, version_id: str) -> bool:
        """Whether the version is on this node."""
        return self.tree(cache, version_id).is_dir()

    def tree(self, cache: str, version_id: str) -> Path:
        """Where the golden tree of the version is, or would be."""
        return self._version(cache, version_id) / "tree"

    def manifest(self, cache: str, version_id: str) -> Path:
        """Where the manifest of the version is, or would be."""
        return self._version(cache, version_id) / "manifest"

    def version(self, cache: str, version_id: str) -> Version:
        """The published version.

        Raises:
            UnknownVersion: it is not on this node.
        """
        path = self.manifest(cache, version_id)
        try:
            return Version(cache, version_id, manifest.read_totals(path), path.parent.stat().st_mtime)
        except FileNotFoundError as error:
            raise UnknownVersion(
                f"cache {cache!r} has no version {version_id} on this node: 'cachefetch list' shows the ones there are"
            ) from error

    def versions(self, cache: str) -> list[Version]:
        """The published versions, oldest first.

        One whose manifest is damaged amounts to nothing here, so that the others stay usable; `verify` names it.
        """
        found = []
        for place in self._versions(cache):
            with suppress(FileNotFoundError):  # collected while we look
                found.append(Version(cache, place.name, _totals(place), place.stat().st_mtime))
        return sorted(found, key=lambda version: (version.published, version.id))

    def find(self, cache: str, prefix: str) -> Version:
        """The one version whose id starts with `prefix`, as people write it.

        Raises:
            UnknownVersion: there is none, or more than one.
        """
        found = [version for version in self.versions(cache) if version.id.startswith(prefix)]
        if len(found) != 1:
            names = "none" if not found else f"{len(found)} versions"
            raise UnknownVersion(f"{cache}@{prefix} names {names}: 'cachefetch list -o json' shows the whole ids")
        return found[0]

    def users(self, cache: str) -> dict[str, int]:
        """How many volumes use each version of the cache."""
        users: dict[str, int] = {}
        for record in self.records.all():
            if record.cache == cache:
                users[record.version] = users.get(record.version, 0) + 1
        return users

    def origin(self, cache: str) -> Index | None:
        """What the source said at the last refresh; None when that is not known, or its version is gone."""
        index = Index.open(self._cache(cache) / _ORIGIN)
        if index is None:
            return None
        version_id = index.meta.get("version", "")
        if not version_id or not self.has(cache, version_id):
            index.close()
            return None
        return index

    # Using it

    @contextmanager
    def pin(self, cache: str) -> Iterator[None]:
        """Hold every version of the cache while reading it, or until a volume record names the one in use."""
        with durable.shared(self._lock(cache)):
            yield

    @contextmanager
    def refreshing(self, cache: str) -> Iterator[None]:
        """Be the one who refreshes the cache.

        Raises:
            Busy: another process does.
        """
        check_cache_name(cache)
        busy = f"cache {cache!r} is being refreshed by another process: wait for it to finish"
        with durable.exclusive(self.root / "locks" / f"{cache}@refresh", busy):
            yield

    @contextmanager
    def stage(
        self,
        cache: str,
        source: str,
        *,
        limits: Limits | None = None,
        on_bytes: Callable[[int], None] = lambda _count: None,
        on_recalled: Callable[[int], None] = lambda _count: None,
    ) -> Iterator[Stage]:
        """A stage for a new version of the cache; the caller is `refreshing` it.

        `source` identifies where it comes from: partial downloads in `scratch` are found again by the same source
        only. What was staged is gone at the end unless it was published; `scratch` stays when an exception ends the
        stage.
        """
        home = self._staging(cache)
        place, scratch = home / "new", home / source
        with self.pin(cache), ExitStack() as at_end:
            at_end.callback(self._clear, home, scratch)
            self._clear(home, scratch)
            for directory in (home, scratch, place):
                directory.mkdir(mode=0o700, exist_ok=True)
            index = Index.create(home / _ORIGIN)
            at_end.callback(index.abandon)
            previous = self._previous(cache)
            if previous and previous.index:
                at_end.callback(previous.index.close)
            heard = {"on_bytes": on_bytes, "on_recalled": on_recalled}
            stage = Stage(place, scratch, index, previous=previous, limits=limits, **heard)
            at_end.callback(stage.close)
            yield stage
            self.discard(scratch)

    def clear_staging(self, cache: str) -> None:
        """Give up what earlier refreshes downloaded or left when they were killed; the caller is `refreshing` it."""
        self._clear(self._staging(cache), None)

    def publish(self, cache: str, sealed: Sealed, origin: Index, meta: dict[str, str]) -> Version:
        """Make a sealed version visible and current; remember what the source said.

        The commit point is one rename. A version that is there already is only made current again.
        """
        place = self._version(cache, sealed.id)
        origin.remember({**meta, "version": sealed.id})
        origin.close()
        durable.sync_file(origin.path)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not place.exists():
            os.utime(sealed.directory)
            sealed.directory.rename(place)
            durable.sync_directory(place.parent)
        self.set_current(cache, sealed.id)
        origin.path.rename(self._cache(cache) / _ORIGIN)
        return self.version(cache, sealed.id)

    def set_current(self, cache: str, version_id: str) -> None:
        """Let new volumes get this version, by one rename; the caller pins the cache.

        Raises:
            UnknownVersion: it is not on this node.
        """
        self.version(cache, version_id)
        if self.current(cache) != version_id:
            durable.point(self._cache(cache) / _CURRENT, f"versions/{version_id}")

    # Getting rid of it

    def gc(self, cache: str, retain: int | None) -> list[Version]:
        """Drop the versions that nobody needs (`retention.superfluous`); returns them.

        With `retain` None the cache is not declared any more: only what volumes use stays.

        Raises:
            Busy: a version of the cache is being read; the next collection will do.
        """
        busy = f"cache {cache!r} is in use by a refresh, a verification or a publish: collect again later"
        with durable.exclusive(self._lock(cache), busy):
            used = self.users(cache)
            current = None if retain is None else self.current(cache)
            dropped = retention.superfluous(self.versions(cache), current=current, used=used, retain=retain or 0)
            if retain is None and self.current(cache) not in used:
                (self._cache(cache) / _CURRENT).unlink(missing_ok=True)
            for version in dropped:
                self.discard(self._version(cache, version.id))
            for leftover in self._cache(cache).glob(f".{_CURRENT}.*"):  # of a process that was killed
                self.discard(leftover)
            if retain is None and not self._versions(cache):
                for place in (self._staging(cache), self._cache(cache)):
                    if place.exists():
                        self.discard(place)
        return dropped

    def drop(self, cache: str, version_id: str) -> None:
        """Withdraw a damaged version, even the current one: absent is better than wrong.

        Raises:
            Busy: the cache is being read, or volumes show the golden tree itself; new volumes do not get it any more.
        """
        with durable.exclusive(self._lock(cache), f"cache {cache!r} is in use: verify again later"):
            if self.current(cache) == version_id:
                (self._cache(cache) / _CURRENT).unlink(missing_ok=True)
            if bound := self._bound(cache, version_id):
                raise Busy(
                    f"volumes {', '.join(bound)} show version {short_id(version_id)} of cache {cache!r}: "
                    "delete their pods"
                )
            self.discard(self._version(cache, version_id))

    def discard(self, path: Path) -> None:
        """Rename a file or directory of the store away; `trash.empty` deletes it later."""
        path.rename(self.trash / f"{secrets.token_hex(8)}-{path.name[:100]}")

    # Where things are

    def _bound(self, cache: str, version_id: str) -> list[str]:
        """The volumes that show the golden tree itself, not a link tree of their own."""
        users = (record for record in self.records.all() if (record.cache, record.version) == (cache, version_id))
        return [record.id for record in users if not record.slot]

    def _previous(self, cache: str) -> Previous | None:
        current = self.current(cache)
        if current is None or not self.has(cache, current):
            return None
        origin = self.origin(cache)
        if origin is not None and origin.meta["version"] != current:
            origin.close()
            origin = None
        return Previous(self.tree(cache, current), self.manifest(cache, current), origin)

    def _clear(self, home: Path, keep: Path | None) -> None:
        for leftover in home.iterdir() if home.is_dir() else ():
            if leftover != keep:
                self.discard(leftover)

    def _versions(self, cache: str) -> list[Path]:
        try:
            return list((self._cache(cache) / "versions").iterdir())
        except FileNotFoundError:
            return []

    def _cache(self, cache: str) -> Path:
        return self.root / "caches" / check_cache_name(cache)

    def _version(self, cache: str, version_id: str) -> Path:
        return self._cache(cache) / "versions" / check_version_id(version_id)

    def _staging(self, cache: str) -> Path:
        return self.root / "staging" / check_cache_name(cache)

    def _lock(self, cache: str) -> Path:
        return self.root / "locks" / f"{check_cache_name(cache)}@versions"


def _totals(place: Path) -> Totals:
    try:
        return manifest.read_totals(place / "manifest")
    except (FileNotFoundError, DataError):
        return Totals(0, 0, 0)
