"""The configuration: which caches there are, where each comes from, and who may use it.

A YAML file with one key, `caches`. The classes below are its schema; keys are written in camelCase. Whatever the schema
does not know is refused, and the error starts with the path of the offending key: `caches[2].source.url: …`. Importing
this module costs msgspec and yaml only, and nothing here knows how a source is fetched.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from cachefetch import images, units, urls
from cachefetch.errors import ConfigError, InvalidRequest
from cachefetch.model import check_cache_name
from cachefetch.schema import BadValue, Strict, absolute, checked, decode
from cachefetch.sourceconfig import Http as Http  # noqa: PLC0414  (exported: all sources can be had from here)
from cachefetch.sourceconfig import HuggingFace as HuggingFace  # noqa: PLC0414  (as above)
from cachefetch.sourceconfig import ObjectStore as ObjectStore  # noqa: PLC0414  (as above)
from cachefetch.units import Duration, Size

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_LEAST = 16 << 20
"""Bytes: a smaller private view would be all inode tables."""
_PATTERN = re.compile(r"[a-z0-9.*-]+")


class PrivateView(StrEnum):
    """How a writable view of a version is made for one volume."""

    OVERLAY = "overlay"
    """What is written goes to a layer above the golden tree, made in constant time."""


class Prefetch(StrEnum):
    """When a node fetches a cache."""

    ALWAYS = "always"
    """As soon as the cache is declared."""
    ON_DEMAND = "onDemand"
    """When the first volume asks for it."""


class Directory(Strict, frozen=True, tag="directory", tag_field="type"):
    """A directory of the machine that fetches."""

    path: str
    """Absolute."""

    def __post_init__(self) -> None:
        absolute("path", self.path)


class ImageLayout(StrEnum):
    """What an image is made into."""

    AUTO = "auto"
    """What its manifest says: a root filesystem if it has the configuration of a container, an artifact otherwise."""
    ROOTFS = "rootfs"
    """The layers on top of each other, as a container would see them."""
    ARTIFACT = "artifact"
    """Each layer is one file, named by its title, or an unpacked directory."""


class ImageAuth(Strict, frozen=True):
    """Who asks a registry."""

    docker_config: str
    """Absolute path of a docker `config.json`, or of a directory that has one, such as a mounted pull secret.

    Logins are taken from `auths`, `credHelpers` and `credsStore`; it is read at each refresh.
    """

    def __post_init__(self) -> None:
        absolute("dockerConfig", self.docker_config)


class Cosign(Strict, frozen=True):
    """Signatures that were made with `cosign sign --key`."""

    keys: tuple[str, ...]
    """Public keys, each as PEM or as absolute path of a PEM file; a signature of any of them is good."""

    def __post_init__(self) -> None:
        if not self.keys:
            raise BadValue("keys", "is empty: name at least one public key")
        for index, key in enumerate(self.keys):
            if not key.lstrip().startswith("-----BEGIN PUBLIC KEY-----"):
                absolute(f"keys[{index}]", key)


class ImageVerify(Strict, frozen=True):
    """What an image must prove."""

    cosign: Cosign
    require: bool = True
    """Refuse what is not properly signed; false: only log it."""


class Oci(Strict, frozen=True, tag="oci", tag_field="type"):
    """An image or an artifact in an OCI registry."""

    image: str
    """`registry.example/team/app:tag`, or with `@sha256:…`, which then decides."""
    platform: str | None = None
    """Of an image for several: `linux/arm64`; None: that of the machine that fetches."""
    layout: ImageLayout = ImageLayout.AUTO
    auth: ImageAuth | None = None
    """None: the registry is asked without a login."""
    mirrors: tuple[str, ...] = ()
    """URLs of registries that are asked first, in this order; what they do not have comes from the image's own."""
    ca: str | None = None
    """Absolute path of a PEM file with authorities that are trusted besides the system's."""
    plain_http: bool | None = None
    """Whether the registry is asked without TLS; None: only one on a loopback address, and without `ca`."""
    verify: ImageVerify | None = None
    """None: the digests are all that is checked."""

    def __post_init__(self) -> None:
        checked("image", images.parse, self.image)
        if self.platform is not None:
            checked("platform", images.parse_platform, self.platform)
        for index, mirror in enumerate(self.mirrors):
            checked(f"mirrors[{index}]", urls.check_base, mirror)
        if self.ca is not None:
            absolute("ca", self.ca)
            if self.plain_http:
                raise BadValue("ca", "stands beside 'plainHttp: true', where there is no TLS: keep one of the two")

    @property
    def reference(self) -> images.Reference:
        """The image."""
        return images.parse(self.image)

    @property
    def base(self) -> str:
        """URL of the image's own registry."""
        plain = self.reference.loopback and not self.ca if self.plain_http is None else self.plain_http
        return f"{'http' if plain else 'https'}://{self.reference.host}"


AnySource = Directory | Http | ObjectStore | Oci | HuggingFace
"""Every source the configuration knows, told apart by `type`."""


class Refresh(Strict, frozen=True):
    """When a cache looks for a new version: exactly one of the two keys."""

    interval: Duration | None = None
    """Seconds between two looks."""
    manual: bool = False
    """Only when somebody asks, or when there is no version yet."""

    def __post_init__(self) -> None:
        if self.manual == (self.interval is not None):
            raise BadValue("", "needs exactly one of 'interval: 5m' and 'manual: true'")


class Access(Strict, frozen=True):
    """Who may use a cache: a namespace or a service account that matches is enough. `*` stands for any characters."""

    namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    """`namespace/name`, patterns on both sides of the slash."""

    def __post_init__(self) -> None:
        if not self.namespaces and not self.service_accounts:
            raise BadValue("", "admits nobody: name namespaces or serviceAccounts, or remove the key to admit everyone")
        for index, pattern in enumerate(self.namespaces):
            if not _PATTERN.fullmatch(pattern):
                raise BadValue(
                    f"namespaces[{index}]",
                    f"{pattern!r} matches no namespace: use lower-case letters, digits, '-' and '*'",
                )
        for index, pattern in enumerate(self.service_accounts):
            if [bool(_PATTERN.fullmatch(part)) for part in pattern.split("/")] != [True, True]:
                raise BadValue(
                    f"serviceAccounts[{index}]",
                    f"{pattern!r} matches no service account: write 'namespace/name', as in 'ci/*'",
                )


class Cache(Strict, frozen=True):
    """One named dataset."""

    name: str
    source: AnySource
    refresh: Refresh = Refresh(interval=Duration(300))
    retain: int = 2
    """Published versions kept besides those in use, at least 1."""
    access: Access = Access(namespaces=("*",))
    """Absent: everyone."""
    private: PrivateView | None = None
    """How private views are made; None: none are allowed."""
    private_max_bytes: Size | None = None
    """The most that one private view may hold of its own; None: as much as there is room for."""
    pool: int = 2
    """Most link trees of the version that new volumes get, ready and in volumes; other volumes show the golden tree."""
    prefetch: Prefetch = Prefetch.ALWAYS
    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    """In a cluster (`cachefetch run --node-id`): labels of the nodes that hold the cache, see `nodes`; empty: all."""
    max_bytes: Size | None = None
    """The most that one version may hold; None: as much as there is room for."""

    def __post_init__(self) -> None:
        try:
            check_cache_name(self.name)
        except InvalidRequest as error:
            raise BadValue("name", str(error)) from error
        if self.retain < 1:
            raise BadValue("retain", f"{self.retain} would drop every version: keep at least 1")
        if self.private_max_bytes is not None:
            self._check_private_limit(self.private_max_bytes)
        if self.pool < 0:
            raise BadValue("pool", f"{self.pool} is below 0: write 0 to have no link trees made")

    def _check_private_limit(self, limit: Size) -> None:
        if self.private is None:
            raise BadValue("privateMaxBytes", "bounds private views, and none are allowed: add 'private: overlay'")
        if limit < PRIVATE_LEAST:
            raise BadValue("privateMaxBytes", f"{limit} is less than a file system needs: write at least '16Mi'")


class Config(Strict, frozen=True):
    """The whole file."""

    caches: tuple[Cache, ...]

    def __post_init__(self) -> None:
        seen: dict[str, int] = {}
        for index, cache in enumerate(self.caches):
            if (first := seen.setdefault(cache.name, index)) != index:
                raise BadValue(
                    f"caches[{index}].name", f"{cache.name!r} is already the name of caches[{first}]: choose another"
                )


def load(path: Path) -> Config:
    """The configuration in the file at `path`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or does not follow the schema.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; pass the configuration with --config") from error
    return parse(text)


def parse(text: str | bytes) -> Config:
    """The configuration in `text`.

    Raises:
        ConfigError: the text is not YAML, or does not follow the schema.
    """
    return decode(text, Config, _from_text)


def _from_text(type_: type, value: Any) -> Any:
    """Make the types that msgspec does not know."""
    return units.duration(value) if type_ is Duration else units.size(value)
