"""The `objectstore` source: all objects below a prefix as a tree of files, or one object that is an archive or a file.

In a tree, the part of a key below the prefix is a path, and an object whose key ends in `/` is a directory. Whether an
object changed is told by its ETag, size and time, all of which are in the list: finding out that nothing changed reads
no object. mtimes are the times of upload, which all nodes see alike.

A store has no snapshots. What comes out is one state of it all the same: that of a moment between two lists that were
equal. An object is only read on the condition that its ETag still is the one in the list; whatever changed too early is
an error (`SourceChanged`), never a mixture.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import closing
from typing import TYPE_CHECKING

from cachefetch.errors import SourceError
from cachefetch.sources.base import SourceChanged
from cachefetch.sources.objectstore_client import Missing, connect
from cachefetch.sources.objectstore_read import RANGE, ObjectDownload
from cachefetch.sources.single import Single, stage_single
from cachefetch.sources.window import ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from cachefetch.buckets import Location
    from cachefetch.content import Readable
    from cachefetch.sourceconfig import ObjectStore
    from cachefetch.sources.base import Known, Snapshot
    from cachefetch.sources.minisign import Proof
    from cachefetch.sources.objectstore_client import Found, Objects
    from cachefetch.stage import Stage

_FILE_MODE = 0o444
_WIDTH = 16
"""Small objects at once; so many, each smaller than a range, may wait in memory."""


class Fingerprint:
    """Sums up a list. The order does not matter: not every store sorts."""

    def __init__(self) -> None:
        self._sum = 0
        self.count = 0

    def watch(self, listing: Iterable[Found]) -> Iterator[Found]:
        """The list as it is, summed up while it is read."""
        for found in listing:
            line = b"%d %b %b" % (len(found.path), found.path, found.state)
            self._sum += int.from_bytes(hashlib.sha256(line).digest(), "big")
            self.count += 1
            yield found

    @property
    def value(self) -> str:
        """Equal for equal lists."""
        return f"{self.count} {self._sum % (1 << 256):064x}"


class ObjectStoreSource:
    """A prefix or an object of a store."""

    def __init__(self, config: ObjectStore, connect: Callable[[ObjectStore, Location], Objects] = connect) -> None:
        self._config = config
        self._connect = connect

    def resolve(self, known: Known | None) -> Snapshot | None:
        """What the store holds now. Reads lists only.

        Raises:
            ConfigError: a file that the configuration names cannot be used.
            SourceError: the store cannot be reached or refuses, or there is nothing.
            UnsafeEntry: a key is no path.
        """
        objects = self._connect(self._config, self._config.location)
        if not self._config.location.tree:
            found = objects.head()
            if known and found.token and known.meta.get("object") == found.state.decode():
                return None
            return ObjectSnapshot(self._config, objects, self._connect, found.size)
        now, fresh = Fingerprint(), 0
        for found in now.watch(objects.list()):
            if known is None or not found.token or known.token(found.path) != found.token:
                fresh += found.size
        if not now.count:
            raise SourceError(f"{objects.url} has no objects: upload some, or correct the prefix")
        if known and known.meta.get("fingerprint") == now.value:
            return None
        return TreeSnapshot(objects, now.value, fresh)


class TreeSnapshot:
    """The objects below a prefix; `size` counts those that are not known from before."""

    def __init__(self, objects: Objects, fingerprint: str, size: int) -> None:
        self._objects = objects
        self._listed: str | None = fingerprint
        self.size = size
        self.meta: dict[str, str] = {}

    def fill(self, stage: Stage) -> None:
        """Stage the tree: keep the objects whose token is known, read the others, several at once.

        Raises:
            SourceChanged: something changed meanwhile.
            SourceError: the store cannot be reached or refuses; parts of large objects are kept.
            UnsafeEntry: two keys exclude each other, or one is no path.
        """
        before, staged = self._listed or self._list(), Fingerprint()
        self._listed = None  # another try compares with a list of its own
        fresh = (
            found
            for found in staged.watch(self._objects.list())
            if not stage.keep(found.path, _FILE_MODE, found.mtime_ns, found.token)
        )
        with closing(ahead(self._fetch, fresh, _WIDTH)) as fetched:
            for found, content in fetched:
                self._stage(found, content, stage)
        if staged.value != before:
            raise SourceChanged(
                f"{self._objects.url} changed while it was read: let writers finish first, or write below a new prefix"
            )
        self.meta = {"fingerprint": staged.value}

    def _list(self) -> str:
        listed = Fingerprint()
        for _ in listed.watch(self._objects.list()):
            pass
        return listed.value

    def _fetch(self, found: Found) -> bytes | None:
        """What a small object holds; None for a large one, and for a directory.

        A list does not tell that the key of a directory ends in `/`, but without it there is no such object.
        """
        if found.size > RANGE:
            return None
        try:
            return self._objects.read(found)
        except Missing as error:
            if not found.size:
                return None
            raise _gone(error) from error

    def _stage(self, found: Found, content: bytes | None, stage: Stage) -> None:
        if content is not None:
            self._stage_file(found, io.BytesIO(content), stage)
        elif found.size:
            with ObjectDownload(self._objects, found, _place(stage.scratch, found)) as download:
                try:
                    self._stage_file(found, stage.resumed(download), stage)
                except Missing as error:
                    raise _gone(error) from error
        else:
            stage.directory(found.path, found.mtime_ns)

    def _stage_file(self, found: Found, content: Readable, stage: Stage) -> None:
        stage.file(found.path, _FILE_MODE, found.mtime_ns, content, size=found.size, token=found.token)


class ObjectSnapshot:
    """One object as it is when it is filled in."""

    def __init__(
        self,
        config: ObjectStore,
        objects: Objects,
        connect: Callable[[ObjectStore, Location], Objects],
        size: int,
    ) -> None:
        self._config = config
        self._objects = objects
        self._connect = connect
        self.size = size
        self.meta: dict[str, str] = {}

    def fill(self, stage: Stage) -> None:
        """Download and unpack at the same time. What was downloaded stays in the stage's scratch when it fails.

        Raises:
            SourceChanged: the object was replaced meanwhile.
            SourceError: the store cannot be reached or refuses.
            DataError: signature or archive are wrong; what was downloaded is thrown away.
            UnsafeEntry: the archive holds an entry that would escape, collide or exhaust.
        """
        found, proof = self._objects.head(), self._obtain()
        with ObjectDownload(self._objects, found, stage.scratch) as download:
            stage_single(download, Single(self._config.kind, found.path, found.mtime_ns), stage, proof)
        self.meta = {"object": found.state.decode()}

    def _obtain(self) -> Proof | None:
        """What the object must match; asked for first, because without a signature nothing need be downloaded."""
        config = self._config
        if config.verify is None:
            return None
        from cachefetch.sources import minisign  # noqa: PLC0415  (late: cryptography takes 0.1 s to import)

        def fetch() -> bytes | None:
            beside = self._connect(config, config.signature)
            try:
                found = beside.head()
                return beside.read(found, 0, min(found.size, minisign.SIGNATURE_MAX))
            except Missing:
                return None

        return minisign.obtain(config.verify, config.url, fetch)


def _place(scratch: Path, found: Found) -> Path:
    """Where the parts of one large object are kept."""
    place = scratch / hashlib.sha256(found.path).hexdigest()[:32]
    place.mkdir(mode=0o700, exist_ok=True)
    return place


def _gone(error: Missing) -> SourceChanged:
    return SourceChanged(
        f"{error}; it was in the list a moment ago, unless its key begins with '/', which no path does"
    )
