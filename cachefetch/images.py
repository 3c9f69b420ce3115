"""What an image's name tells by itself, and which platform is meant. No side effects.

Used by the configuration, so that a bad name is refused before a registry is asked. Rules: the distribution project's
grammar of references (`distribution/reference`), and Docker's short names, which Kubernetes takes as well.
"""

from __future__ import annotations

import ipaddress
import platform as machine
import re
from typing import NamedTuple

DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = {DOCKER_HUB, "index.docker.io"}
_DOCKER_HUB_HOST = "registry-1.docker.io"
"""Docker Hub is named by one host and served by another."""
_NAME_MAX = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PLATFORM = re.compile(r"[a-z0-9_.-]+")
_PORT_MAX = 65535

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}
"""Go's names, which images use, of what uname(2) calls otherwise."""
_IMPLIED = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
"""Variants that are meant when none is written (containerd's `platforms` package)."""


class Reference(NamedTuple):
    """Where an image is, and which one of those there."""

    registry: str
    """As it is written: `registry.example:5000`, `docker.io`."""
    repository: str
    tag: str
    """Empty when there is a digest only."""
    digest: str
    """`sha256:…`, which decides; empty when the tag does."""

    @property
    def host(self) -> str:
        """Who serves the registry: host and port."""
        return _DOCKER_HUB_HOST if self.registry == DOCKER_HUB else self.registry

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine, where Docker takes plain http for granted."""
        name = re.sub(r":[0-9]+$", "", self.registry).strip("[]")
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"

    def __str__(self) -> str:
        """The whole name."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


class Platform(NamedTuple):
    """What an image is made for."""

    os: str
    architecture: str
    variant: str = ""
    """`v7`; empty when the architecture has one that is meant anyway."""

    def __str__(self) -> str:
        """As people write it."""
        return "/".join(part for part in self if part)


def parse(text: str) -> Reference:
    """The image that `text` names: `[REGISTRY/]NAME[:TAG][@DIGEST]`.

    Without a registry it is one of Docker Hub; without tag and digest it is `latest`.

    Raises:
        ValueError: it is not the name of an image.
    """
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        # What stands before may be a password, which some write into names as if they were URLs.
        raise _bad(f"…@{text.rpartition('@')[2]}", "after '@' stands 'sha256:' and 64 lower-case hexadecimal digits")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _bad(text, "after ':' stands a tag of at most 128 letters, digits, '_', '.' and '-'")
    registry, repository = _split(head + slash + last)
    if not _REGISTRY.fullmatch(registry) or int(_port(registry)) > _PORT_MAX:
        raise _bad(text, f"{registry!r} is not a host with or without a port")
    if not _REPOSITORY.fullmatch(repository) or len(registry) + 1 + len(repository) > _NAME_MAX:
        raise _bad(text, f"{repository!r} is not a path of lower-case letters and digits with '.', '_' and '-' between")
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)


def parse_platform(text: str) -> Platform:
    """The platform that `text` names: `linux/amd64`, `linux/arm/v7`.

    Raises:
        ValueError: it does not name one.
    """
    parts = text.split("/")
    if len(parts) not in {2, 3} or not all(_PLATFORM.fullmatch(part) for part in parts):
        raise ValueError(f"{text!r} is not a platform: write 'linux/amd64' or 'linux/arm/v7'")
    return normal(Platform(*parts))


def this_machine() -> Platform:
    """The platform of this machine."""
    found = machine.machine()
    architecture, variant = _ARCHITECTURES.get(found, (found, ""))
    return normal(Platform("linux", architecture, variant))


def normal(platform: Platform) -> Platform:
    """The one form of those that mean the same: without a variant that is meant anyway."""
    return platform._replace(variant="") if _IMPLIED.get(platform.architecture) == platform.variant else platform


def _split(name: str) -> tuple[str, str]:
    """Registry and repository. The first part is a registry when it cannot be a name of Docker Hub."""
    first, slash, rest = name.partition("/")
    if not slash or not (set(".:") & set(first) or first == "localhost" or first != first.lower()):
        first, rest = DOCKER_HUB, name
    if first in _DOCKER_HUB_NAMES:
        return DOCKER_HUB, rest if "/" in rest else f"library/{rest}"
    return first, rest


def _port(registry: str) -> str:
    match = re.search(r":([0-9]+)$", registry)
    return match[1] if match else "0"


def _bad(text: str, reason: str) -> ValueError:
    return ValueError(f"{text!r} is not the name of an image ({reason}): write 'registry.example/team/app:tag'")
