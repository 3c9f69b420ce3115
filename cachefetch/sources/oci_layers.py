"""Layers into a stage: the highest first, so that whatever is staged stays, and nothing ever has to be deleted.

A layer that the version before had as well is not read: the ledger knows what it holds, and its files are linked. Only
when one of them was hidden until now is the layer downloaded after all. Rules: OCI image-spec 1.1, layer.md.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from cachefetch.errors import DataError, UnsafeEntry
from cachefetch.paths import check_entry_path, show
from cachefetch.sources import tar
from cachefetch.sources.archive import entry_path, open_tar
from cachefetch.sources.oci_ledger import OPAQUE, WHITEOUT, Ledger, Part, PartType
from cachefetch.sources.oci_manifest import Layer, Made
from cachefetch.urls import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cachefetch.content import Readable
    from cachefetch.stage import Stage

_FILE_MODE = 0o444
_FILE_MTIME = 0
"""A blob has no time of its own."""
_UNKNOWN_MTIME = 0
"""Of directories that no layer lists: the same on every node."""
_CHUNK = 1 << 20
_MAGIC = {b"\x1f\x8b": Format.TAR_GZ, b"\x28\xb5\x2f\xfd": Format.TAR_ZST}
"""First bytes of what layers are compressed with (RFC 1952, RFC 8878)."""
_ABOUT_AUFS = WHITEOUT + WHITEOUT
"""First bytes of the names of AUFS' own files and directory, which old layers have: not part of the image."""
_TYPES = {
    tar.REGULAR: PartType.FILE,
    tar.HARDLINK: PartType.FILE,
    tar.SYMLINK: PartType.SYMLINK,
    tar.DIRECTORY: PartType.DIRECTORY,
}


class _Member(NamedTuple):
    """An entry of a layer's archive."""

    part: Part
    size: int
    link: bool
    """Whether it is a hardlink, which has no content of its own."""


class Layers:
    """Fills a stage with the layers of an image or artifact."""

    def __init__(self, stage: Stage, fetch: Callable[[Layer], Path]) -> None:
        """`fetch` gives a file with the bytes of a layer, and is asked for those that are needed only."""
        self._stage = stage
        self._fetch = fetch
        self._known = Ledger.known(stage.before)
        self._ledger = Ledger.create(stage.index)

    def fill(self, layers: Sequence[Layer]) -> None:
        """Stage all layers; the lowest is the first.

        Raises:
            DataError: a layer is damaged, or has what a cache cannot hold.
            UnsafeEntry: an entry would escape, collide or exhaust.
        """
        for position in reversed(range(len(layers))):
            layer = layers[position]
            self._ledger.begin(position, layer.token)
            known = self._known.position(layer.token) if self._known else None
            if self._known is None or known is None:
                self._unpack(layer)
            else:
                for part in self._known.parts(known):
                    self._enter(part, layer)
            if self._ledger.wanting():
                self._catch_up(layer)

    def _unpack(self, layer: Layer) -> None:
        """Read a layer and stage what no higher one hides."""
        with _members(self._fetch(layer), layer) as (members, content):
            for part, size, link in members:
                self._enter(self._resolve(part, layer) if link else part, layer, None if link else (content, size))
                self._pass_over(content)

    def _resolve(self, link: Part, layer: Layer) -> Part:
        """A hardlink as what it links to, which is something that its layer had before it."""
        original = self._ledger.find(link.target)
        if original is None or original.type not in {PartType.FILE, PartType.SYMLINK}:
            raise UnsafeEntry(
                f"entry {show(link.path)} is refused: it links to {show(link.target)}, "
                f"no earlier file of its layer {layer.digest}"
            )
        target = original.source if original.type is PartType.FILE else original.target
        return link._replace(type=original.type, target=target)

    def _enter(self, part: Part, layer: Layer, content: tuple[Readable, int] | None = None) -> None:
        """Enter what the layer has, and stage it if it is seen; a file without content is taken from elsewhere."""
        for parent in self._ledger.unlisted(part.path):
            self._enter(Part(parent, PartType.IMPLIED, 0, _UNKNOWN_MTIME), layer)
        self._ledger.add(part)
        if part.type is PartType.MARKER or self._ledger.hidden(part.path):
            return
        if part.type in {PartType.DIRECTORY, PartType.IMPLIED}:
            self._stage.directory(part.path, part.mtime_ns, layer.token)
        elif part.type is PartType.SYMLINK:
            self._stage.symlink(part.path, part.target, part.mtime_ns, layer.token)
        elif content:
            body, size = content
            self._stage.file(part.path, part.mode, part.mtime_ns, body, size=size, token=layer.token)
        elif part.target and self._stage.index.token(part.target) == layer.token:
            self._stage.copy(part.path, part.target, part.mode, part.mtime_ns, layer.token)
        elif not self._stage.keep(part.path, part.mode, part.mtime_ns, layer.token):
            self._ledger.want(part)

    def _pass_over(self, content: Readable) -> None:
        """Skip what was not staged of an entry's content, however long it is: whoever listens may end the fetch."""
        while content.read(_CHUNK):
            self._stage.arrived(0)

    def _catch_up(self, layer: Layer) -> None:
        """Stage the wanted files of a layer: what was hidden until now, is damaged here, or has its content hidden."""
        with _members(self._fetch(layer), layer) as (members, content):
            for part, size, link in members:
                paths = [] if link else self._ledger.take(part.path)
                for number, path in enumerate(paths):
                    wanted = self._ledger.find(path)
                    assert wanted is not None
                    if number:
                        self._stage.copy(path, paths[0], wanted.mode, wanted.mtime_ns, layer.token)
                    else:
                        self._stage.file(path, wanted.mode, wanted.mtime_ns, content, size=size, token=layer.token)
                self._pass_over(content)
        if self._ledger.wanting():
            raise DataError(f"layer {layer.digest} has less than was remembered of it: refresh again")


@contextmanager
def _members(path: Path, layer: Layer) -> Iterator[tuple[Iterator[_Member], Readable]]:
    """What a layer has, and the content of the one that was read last."""
    with path.open("rb") as file:
        if layer.made is Made.FILE:
            check_entry_path(layer.name)
            part = Part(layer.name, PartType.FILE, _FILE_MODE, _FILE_MTIME)
            yield iter([_Member(part, layer.size, link=False)]), file
            return
        # As all engines do: what the media type says of the compression is not always true.
        head = file.peek(4)
        format_ = next((format_ for magic, format_ in _MAGIC.items() if head.startswith(magic)), Format.TAR)
        with open_tar(file, format_) as (members, body):
            convert = _changes if layer.made is Made.CHANGES else _entries
            yield convert(members, layer), body


def _changes(members: Iterator[tar.Member], _layer: Layer) -> Iterator[_Member]:
    """The entries of a layer of a root filesystem, with the markers."""
    for member in members:
        path = _path(member)
        head, slash, name = path.rpartition(b"/")
        if head.startswith(_ABOUT_AUFS):
            continue
        if head.startswith(WHITEOUT) or b"/" + WHITEOUT in head:
            raise UnsafeEntry(f"entry {show(path)} is refused: no directory may be called {WHITEOUT.decode()}…")
        if not name.startswith(WHITEOUT):
            if path:
                yield _member(member, path)
        elif name == OPAQUE:
            yield _Member(Part(path, PartType.MARKER, 0, 0), 0, link=False)
        elif not name.startswith(_ABOUT_AUFS):
            check_entry_path(head + slash + name[len(WHITEOUT) :])
            yield _Member(Part(path, PartType.MARKER, 0, 0), 0, link=False)


def _entries(members: Iterator[tar.Member], layer: Layer) -> Iterator[_Member]:
    """The entries of an archive, all of which are in the directory that is named, if one is."""
    for member in members:
        path = _path(member)
        if layer.name and path != layer.name and not path.startswith(layer.name + b"/"):
            raise UnsafeEntry(f"entry {show(path)} is refused: it is not in {show(layer.name)}, as the artifact says")
        if path:
            yield _member(member, path)


def _path(member: tar.Member) -> bytes:
    """The path of an entry, checked also when it will be hidden; empty for the root, which some write as `/`."""
    path = entry_path(member.name) if member.name.strip(b"/") else b""
    return check_entry_path(path) if path else path


def _member(member: tar.Member, path: bytes) -> _Member:
    link = member.type == tar.HARDLINK
    # Some builders write the targets of hardlinks absolute; they are compared with paths of the layer only.
    target = entry_path(member.target.lstrip(b"/")) if link else member.target
    if link and not target:
        raise DataError(f"entry {show(path)} is a hardlink to nothing: build the image anew")
    return _Member(Part(path, _TYPES[member.type], member.mode, member.mtime_ns, target), member.size, link)
