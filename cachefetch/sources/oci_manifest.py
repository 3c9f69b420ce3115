"""What manifests and indexes say, and what is to be made of an image's layers. No side effects.

Sources of the rules: OCI image-spec 1.1 (descriptor.md, image-index.md, manifest.md), Docker's "Image Manifest
Version 2, Schema 2", and the annotations of the ORAS project for artifacts.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from cachefetch.config import ImageLayout
from cachefetch.decoding import UNREADABLE
from cachefetch.errors import DataError
from cachefetch.images import Platform, normal
from cachefetch.paths import show

MANIFEST_MAX = 4 << 20
"""Bytes of a manifest or index: what registries take (distribution-spec, "Pushing Manifests")."""
_DOCKER = "application/vnd.docker"
ACCEPT = ", ".join((
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    f"{_DOCKER}.distribution.manifest.list.v2+json",
    f"{_DOCKER}.distribution.manifest.v2+json",
))  # fmt: skip
"""Everything that is understood here, for the Accept header."""

_CONTAINERS = {"application/vnd.oci.image.config.v1+json", f"{_DOCKER}.container.image.v1+json"}
_TAR_ENDINGS = (".tar", ".tar+gzip", ".tar.gzip", ".tar+zstd", ".tar.zstd")
_TITLE = "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"


class _Json(msgspec.Struct, frozen=True, rename="camel"):
    """Base of what registries send: keys that are not known are passed over, as the specification demands."""


class PlatformSpec(_Json, frozen=True):
    """The `platform` of a descriptor."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(_Json, frozen=True):
    """A blob or manifest: what it is, and its name."""

    digest: Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(ge=0)]
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: PlatformSpec | None = None


class _Document(_Json, frozen=True):
    """A manifest or an index, before it is known which."""

    schema_version: int
    manifests: tuple[Descriptor, ...] | None = None
    layers: tuple[Descriptor, ...] | None = None
    config: Descriptor | None = None


class Index(NamedTuple):
    """One image for several platforms."""

    manifests: tuple[Descriptor, ...]


class Manifest(NamedTuple):
    """One image or artifact."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    """The lowest first."""

    @property
    def container(self) -> bool:
        """Whether it says of itself that it is a container's root filesystem."""
        return self.config.media_type in _CONTAINERS


class Made(StrEnum):
    """What is made of a layer."""

    CHANGES = "changes"
    """A tar archive whose entries and whiteouts change what is below."""
    TREE = "tree"
    """A tar archive of plain entries."""
    FILE = "file"
    """One file."""


class Layer(NamedTuple):
    """A layer, and what is made of it."""

    digest: str
    size: int
    made: Made
    name: bytes = b""
    """Path of the file; of a tree, the directory that holds all of it, or nothing."""

    @property
    def token(self) -> bytes:
        """What decides the files that come of it."""
        return f"{self.digest} {self.made} ".encode() + self.name


def decode(data: bytes, name: str) -> Index | Manifest:
    """The manifest or index in `data`; `name` is what it is called in an error.

    Raises:
        DataError: it is neither, or of a form that is not understood.
    """
    try:
        document = msgspec.json.decode(data, type=_Document)
    except UNREADABLE as error:
        raise DataError(f"{name} has no proper manifest ({error}): push it again with a current tool") from error
    if document.schema_version != 2:  # noqa: PLR2004  (the number of the schema)
        raise DataError(
            f"{name} has a manifest of schema {document.schema_version}, of which only 2 is read: "
            "push it again with a current tool"
        )
    is_index, is_manifest = document.manifests is not None, document.layers is not None
    if is_index == is_manifest:  # both: two readers would see two images (CVE-2021-41190)
        raise DataError(f"{name} has a manifest that is neither an image nor an index: push it again")
    if document.manifests is not None:
        return Index(document.manifests)
    if document.config is None:
        raise DataError(f"{name} has a manifest without `config`: push it again")
    return Manifest(document.config, document.layers or ())


def choose(index: Index, wanted: Platform, name: str) -> Descriptor:
    """The manifest for a platform.

    Raises:
        DataError: there is none; the text lists those there are.
    """
    anything = None
    for descriptor in index.manifests:
        found = descriptor.platform and _platform(descriptor.platform)
        if found == wanted:
            return descriptor
        anything = anything or (descriptor if not found else None)
    if anything is not None:  # an entry that names no platform is for all of them
        return anything
    there_are = sorted({str(_platform(each.platform)) for each in index.manifests if each.platform})
    shown = ", ".join(platform for platform in there_are if "unknown" not in platform)  # attestations
    raise DataError(
        f"{name} is not made for {wanted} but for {shown or 'nothing'}: set `platform`, or build it for that"
    )


def check_config(data: bytes, wanted: Platform, name: str) -> None:
    """Return if an image's configuration is that of the wanted platform.

    Raises:
        DataError: it is of another one, or not a configuration.
    """
    try:
        found = _platform(msgspec.json.decode(data, type=PlatformSpec))
    except UNREADABLE as error:
        raise DataError(f"{name} has no proper configuration ({error}): push it again") from error
    if found != wanted:
        raise _other(wanted, str(found), name)


def plan(manifest: Manifest, layout: ImageLayout, name: str) -> list[Layer]:
    """What is made of each layer, the lowest first.

    Raises:
        DataError: a layer is of a kind that nothing can be made of.
    """
    if layout is ImageLayout.AUTO:
        layout = ImageLayout.ROOTFS if manifest.container else ImageLayout.ARTIFACT
    if layout is ImageLayout.ROOTFS:
        return [_changes(layer, name) for layer in manifest.layers]
    made = [_part(layer, name) for layer in manifest.layers]
    titles = [part.name for part in made if part.name]
    if len(titles) != len(set(titles)):
        twice = next(title for title in titles if titles.count(title) > 1)
        raise DataError(f"{name} has two files titled {show(twice)}: push it with different titles")
    return made


def _changes(layer: Descriptor, name: str) -> Layer:
    if not layer.media_type.endswith(_TAR_ENDINGS):
        raise DataError(
            f"{name} has a layer of type {layer.media_type!r}, which is no root filesystem: use `layout: artifact`"
        )
    return Layer(layer.digest, layer.size, Made.CHANGES)


def _part(layer: Descriptor, name: str) -> Layer:
    """A layer of an artifact: unpacked when its annotation says so, or when it is an archive without a title."""
    notes = layer.annotations or {}
    title = notes.get(_TITLE, "").encode()
    if notes.get(_UNPACK, "").lower() == "true":
        return Layer(layer.digest, layer.size, Made.TREE, title.rstrip(b"/"))
    if title:
        return Layer(layer.digest, layer.size, Made.FILE, title)
    if layer.media_type.endswith(_TAR_ENDINGS):
        return Layer(layer.digest, layer.size, Made.TREE)
    raise DataError(
        f"{name} has a layer {layer.digest} of type {layer.media_type!r} without a name: "
        f"push it with the annotation {_TITLE}"
    )


def _other(wanted: Platform, there_is: str, name: str) -> DataError:
    return DataError(f"{name} is not made for {wanted} but for {there_is}: set `platform`, or build it for that")


def _platform(spec: PlatformSpec) -> Platform:
    return normal(Platform(spec.os, spec.architecture, spec.variant))
