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

from cachefetch import units, urls
from cachefetch.errors import ConfigError, InvalidRequest
from cachefetch.model import check_cache_name
from cachefetch.schema import BadValue, decode
from cachefetch.units import Duration, Size
from cachefetch.urls import Format

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PATTERN = re.compile(r"[a-z0-9.*-]+")


class PrivateView(StrEnum):
    """How a writable view of a version is made for one volume."""

    OVERLAY = "overlay"
    REFLINK = "reflink"
    HARDLINK = "hardlink"
    COPY = "copy"


class Prefetch(StrEnum):
    """When a node fetches a cache."""

    ALWAYS = "always"
    """As soon as the cache is declared."""
    ON_DEMAND = "onDemand"
    """When the first volume asks for it."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Base of the schema: immutable, no key beyond the declared ones."""


class Directory(_Strict, frozen=True, tag="directory", tag_field="type"):
    """A directory of the machine that fetches."""

    path: str
    """Absolute."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or "\0" in self.path:
            raise BadValue("path", f"{self.path!r} is not an absolute path: start it with '/'")


class Http(_Strict, frozen=True, tag="http", tag_field="type"):
    """An archive or a single file behind an http or https URL."""

    url: str
    digest: str | None = None
    """`sha256:` and 64 hexadecimal digits, of the bytes as served; None: not checked."""
    sha256sums: str | None = None
    """URL of a file as `sha256sum` writes it, in which the digest stands beside the file's name; None: none."""
    format: Format | None = None
    """What the bytes are; None: what the suffix of the URL says, see `kind`."""

    def __post_init__(self) -> None:
        _checked("url", urls.check, self.url)
        if self.digest is not None and not _DIGEST.fullmatch(self.digest):
            raise BadValue(
                "digest", f"{self.digest!r} is not a digest: write 'sha256:' and 64 lower-case hexadecimal digits"
            )
        if self.sha256sums is not None:
            _checked("sha256sums", urls.check, self.sha256sums)
            _checked("url", urls.file_name, self.url)
        if self.digest is not None and self.sha256sums is not None:
            raise BadValue("sha256sums", "stands beside 'digest': keep one of the two")
        if self.kind is Format.FILE:
            _checked("url", urls.file_name, self.url)

    @property
    def kind(self) -> Format:
        """What the bytes are."""
        return self.format or urls.format_of(self.url)


AnySource = Directory | Http
"""Every source the configuration knows, told apart by `type`."""


class Refresh(_Strict, frozen=True):
    """When a cache looks for a new version: exactly one of the two keys."""

    interval: Duration | None = None
    """Seconds between two looks."""
    manual: bool = False
    """Only when somebody asks, or when there is no version yet."""

    def __post_init__(self) -> None:
        if self.manual == (self.interval is not None):
            raise BadValue("", "needs exactly one of 'interval: 5m' and 'manual: true'")


class Access(_Strict, frozen=True):
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


class Cache(_Strict, frozen=True):
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
    pool: int = 0
    """Most link trees kept ready, per version that is handed out."""
    prefetch: Prefetch = Prefetch.ALWAYS
    node_selector: dict[str, str] = {}
    """In a cluster: labels of the nodes that hold the cache; empty: all."""
    max_bytes: Size | None = None
    """The most that one version may hold; None: as much as there is room for."""

    def __post_init__(self) -> None:
        try:
            check_cache_name(self.name)
        except InvalidRequest as error:
            raise BadValue("name", str(error)) from error
        if self.retain < 1:
            raise BadValue("retain", f"{self.retain} would drop every version: keep at least 1")
        if self.pool < 0:
            raise BadValue("pool", f"{self.pool} is below 0: write 0 to keep no link trees ready")


class Config(_Strict, frozen=True):
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


def _checked(key: str, check: Callable[[str], object], value: str) -> None:
    try:
        check(value)
    except ValueError as error:
        raise BadValue(key, str(error)) from None
