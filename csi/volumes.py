"""The life of a cache volume on this node: publish, unpublish, statistics.

    <state-dir>/volumes/<volume-id>/volume.json     what was asked and what it got, written before the mount
                                   /tree/           its link tree from the pool, where one was ready
                                   /upper/ …        what was written to a private view (`csi.private`)
    <target path>                                   read-only bind mount of that tree, or of the golden one, or the view

Nothing here takes longer for a larger version: no file is linked, deleted or listed within a call. A volume without a
link tree of its own pins its version: the record names it, and garbage collection keeps what a record names.

A volume exists when its tree is mounted at its target. Whatever a crash leaves of one that is not mounted is garbage,
and the next publish of the same id starts anew. A published volume is plain kernel state: it needs this process no
more.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cachefetch.errors import Conflict, InvalidRequest, NotReady, Precondition, UnknownVersion, UnknownVolume
from cachefetch.model import Totals, short_id
from cachefetch.records import VolumeRecord
from csi import private
from csi.inflight import InFlight
from csi.pool import Slot
from csi.requests import Access

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefetch.store import Store
    from csi.private import Space, Views
    from csi.requests import PublishRequest
    from csi.targets import Identity, Shown, Targets


class Trees(Protocol):
    """Ready link trees, as `csi.pool.Pool` keeps them."""

    def take(self, cache: str, version: str, dest: Path) -> Slot | None:
        """Rename a ready tree of the version to `dest`; None when none is ready."""
        ...

    def give(self, cache: str, version: str, tree: Path, slot: Slot) -> bool:
        """Take back a tree that was only ever mounted read-only; False: it is not wanted."""
        ...

    def lost(self, cache: str, version: str) -> None:
        """A tree that was taken will not come back."""
        ...


@dataclass(frozen=True)
class Usage:
    """What a volume shows and what it costs."""

    shared_bytes: int
    shared_inodes: int
    own_bytes: int
    own_inodes: int
    space: Space | None = None
    """What a private view may write to; None: nobody can write."""
    abnormal: str = ""
    """What is wrong with the volume and what to do; empty: nothing."""


class Volumes:
    """All cache volumes of this node. Safe to use from many threads."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        trees: Trees,
        views: Views,
        *,
        boot_id: str,
        on_discard: Callable[[], None],
    ) -> None:
        """Keep volumes in `store`; `on_discard` hears of anything that went to the trash."""
        self._store = store
        self._targets = targets
        self._trees = trees
        self._views = views
        self._boot_id = boot_id
        self._on_discard = on_discard
        self._inflight = InFlight()

    def publish(
        self, request: PublishRequest, choose: Callable[[], str], *, limit: int = 0
    ) -> tuple[VolumeRecord, bool]:
        """Show the version at the target; returns the volume's record and whether it was there already.

        `choose` tells the version that a new volume gets, and may wait for it. `limit` is the most bytes that a new
        private view may hold of its own, 0 means no limit.

        Raises:
            Busy: another call works on the volume.
            Conflict: the volume exists with other parameters.
            Precondition: something is in the way at the target.
            InvalidRequest: the version has no such subtree.
            NotReady: from `choose`.
            OutOfSpace: there is no room for a private view.
        """
        with self._inflight.claim(request.volume_id):
            record = self._store.records.read(request.volume_id)
            if record is not None and self._lives(record):
                _check_same(record, request)
                if self._targets.shows(request.target, self._shown(record)):
                    return record, True
                self._targets.check_parent(request.target)
            self._targets.check_free(request.target)
            self._discard(request.volume_id)
            if record is not None and record.slot:
                self._trees.lost(record.cache, record.version)
            return self._create(request, choose(), limit), False

    def unpublish(self, volume_id: str, target: Path) -> None:
        """Take the volume away from the target; unknown volumes and missing targets are fine.

        Raises:
            Busy: another call works on the volume.
            Precondition: something foreign is at the target, or the mount is in use.
        """
        with self._inflight.claim(volume_id):
            record = self._store.records.read(volume_id)
            place = self._store.records.place(volume_id)
            self._targets.hide(target, place, self._shown(record) if record else None)
            if record is None:
                self._discard(volume_id)
            elif Path(record.target) == target or not self._lives(record):
                self._release(record)

    def usage(self, volume_id: str, path: Path) -> Usage:
        """What the volume at `path` shows and costs. Constant time: nothing is walked.

        Raises:
            UnknownVolume: there is no such volume, or not at that path.
        """
        record = self._store.records.read(volume_id)
        if record is None or Path(record.target) != path:
            raise UnknownVolume(f"volume {volume_id!r} is not published at {path}: it was unpublished, or never was")
        totals, space, abnormal = Totals(0, 0, 0), None, ""
        try:
            totals = self._store.version(record.cache, record.version).totals
        except UnknownVersion:
            abnormal = f"version {short_id(record.version)} was withdrawn because it was damaged: delete the pod"
        try:
            if not self._targets.shows(path, self._shown(record)):
                abnormal = f"the volume is not mounted at {path} any more: delete the pod"
            elif record.access == Access.PRIVATE:
                space = private.space(path)
        except Precondition as error:
            abnormal = str(error)
        slot = Slot.parse(record.slot)
        own_bytes, own_inodes = (slot.own_bytes, slot.own_inodes) if slot else (0, 0)
        return Usage(totals.bytes, totals.entries, own_bytes, own_inodes, space, abnormal)

    def count(self, *accesses: Access) -> dict[tuple[str, str], int]:
        """How many volumes use each version of each cache; only those with one of the `accesses`, if any are named."""
        records = self._store.records.all()
        return Counter((one.cache, one.version) for one in records if not accesses or one.access in accesses)

    def linked(self) -> dict[tuple[str, str], int]:
        """How many volumes of each version of each cache have a link tree of their own."""
        return Counter((record.cache, record.version) for record in self._store.records.all() if record.slot)

    def recover(self) -> int:
        """Drop what an earlier process or boot left half-made; returns how many volumes stay. Before the first call.

        Raises:
            OSError: the store cannot be read or written.
        """
        kept = 0
        self._views.clear(self._store.records.directory)
        for volume_id in self._store.records.ids():
            if not self._store.records.place(volume_id).is_dir():
                continue  # another process probes whether the store can link there
            record = self._store.records.read(volume_id)
            if record is not None and self._lives(record):
                kept += 1
            else:
                self._discard(volume_id)
        return kept

    def _lives(self, record: VolumeRecord) -> bool:
        if record.boot_id != self._boot_id:
            return False  # every mount ended with the old boot
        target = Path(record.target)
        # Where this process sees no directory, or another mount on top, the volume may still be mounted below.
        return not target.parent.is_dir() or self._targets.mounted(target)

    def _create(self, request: PublishRequest, version: str, limit: int) -> VolumeRecord:
        """Take a tree, record, mount, in this order; undone when a step fails, because nobody may call again."""
        place = self._store.records.place(request.volume_id)
        slot = None
        try:
            if request.access is Access.PRIVATE:
                return self._create_view(request, version, limit)
            with self._store.pin(request.cache):
                check_subtree(self._tree(request.cache, version), request.path)
                place.mkdir(mode=0o700)
                slot = self._trees.take(request.cache, version, place / "tree")
                record = self._record(request, version, slot=slot.name if slot else "")
                self._store.records.write(record)
            self._targets.show(self._source(record), request.target)
        except BaseException:
            self._discard(request.volume_id)
            if slot is not None:
                self._trees.lost(request.cache, version)
            raise
        return record

    def _create_view(self, request: PublishRequest, version: str, limit: int) -> VolumeRecord:
        """Make a view that nobody sees, record, mount; undone by the caller."""
        place = self._store.records.place(request.volume_id)
        with ExitStack() as made:
            with self._store.pin(request.cache):
                golden = self._tree(request.cache, version)
                check_subtree(golden, request.path)
                place.mkdir(mode=0o700)
                view = made.enter_context(self._views.make(golden / request.path, place, limit))
                record = self._record(request, version, identity=view.identity, limit=limit)
                self._store.records.write(record)
            self._targets.put(request.target, view.attach)
        return record

    def _tree(self, cache: str, version: str) -> Path:
        if not self._store.has(cache, version):
            raise NotReady(f"version {short_id(version)} of cache {cache!r} was dropped meanwhile: it is tried again")
        return self._store.tree(cache, version)

    def _record(
        self,
        request: PublishRequest,
        version: str,
        *,
        slot: str = "",
        identity: Identity | None = None,
        limit: int = 0,
    ) -> VolumeRecord:
        return VolumeRecord(
            id=request.volume_id,
            cache=request.cache,
            version=version,
            target=str(request.target),
            path=request.path,
            access=request.access.value,
            asked_version=request.version,
            namespace=request.pod.namespace,
            pod=request.pod.name,
            pod_uid=request.pod.uid,
            boot_id=self._boot_id,
            slot=slot,
            identity=identity,
            limit=limit,
            created=time.time(),
        )

    def _shown(self, record: VolumeRecord) -> Shown | None:
        """What is mounted at the target."""
        return record.identity if record.access == Access.PRIVATE else self._source(record)

    def _source(self, record: VolumeRecord) -> Path:
        """The directory that a shared volume shows."""
        if record.slot:
            return self._store.records.place(record.id) / "tree" / record.path
        return self._store.tree(record.cache, record.version) / record.path

    def _release(self, record: VolumeRecord) -> None:
        """Forget an unmounted volume. A tree was only ever mounted read-only, so the pool may have it back."""
        slot = Slot.parse(record.slot)
        tree = self._store.records.place(record.id) / "tree"
        if record.access == Access.PRIVATE:
            self._discard(record.id)
        elif slot is None or self._trees.give(record.cache, record.version, tree, slot):
            self._store.records.remove(record.id)
        else:
            self._discard(record.id)

    def _discard(self, volume_id: str) -> None:
        try:
            self._store.discard(self._store.records.place(volume_id))
        except FileNotFoundError:
            return
        self._on_discard()


def check_subtree(tree: Path, path: str) -> None:
    """Return if `path` is a directory of the tree that is reached without a symlink, which could lead out of it.

    Raises:
        InvalidRequest: it is not.
    """
    place = tree
    for name in path.split("/") if path else ():
        place /= name
        if place.is_symlink() or not place.is_dir():
            raise InvalidRequest(
                f"attribute path {path!r} is not allowed: {place.relative_to(tree)} is no directory of this version"
            )


def _check_same(record: VolumeRecord, request: PublishRequest) -> None:
    """A repeat must ask for the same (CSI spec 1.12, NodePublishVolume: the table of second calls).

    Another target is FAILED_PRECONDITION there: inline volumes are for one node and one place.
    """
    if Path(record.target) != request.target:
        raise Precondition(
            f"volume {record.id!r} is published at {record.target}: "
            f"unpublish it there before it goes to {request.target}"
        )
    asked = {
        "namespace": (record.namespace, request.pod.namespace),
        "cache": (record.cache, request.cache),
        "version": (record.asked_version, request.version),
        "access": (record.access, request.access.value),
        "path": (record.path, request.path),
    }
    for key, (before, now) in asked.items():
        if before != now:
            raise Conflict(
                f"volume {record.id!r} is published with {key} {before!r}, now {now!r} is asked for: unpublish it first"
            )
