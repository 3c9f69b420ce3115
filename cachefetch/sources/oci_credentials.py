"""Logins for registries, from a docker `config.json` and the credential helpers it names.

Formats: docker's `config.json` ("docker login", "Credential helpers" in its reference), the protocol of
`docker-credential-helpers`, and Kubernetes' `.dockerconfigjson` secrets with their wildcards ("Images", "Interpretation
of config.json"). No login ever gets into a message: not even a file that is not JSON is quoted.
"""

from __future__ import annotations

import base64
import binascii
import re
import subprocess
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from cachefetch.decoding import UNREADABLE
from cachefetch.errors import ConfigError, SourceError
from cachefetch.images import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
_NAMES = (".dockerconfigjson", "config.json")
"""What the file is called in a mounted pull secret, and in docker's own directory."""
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = {"index.docker.io", "registry-1.docker.io"}
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS = 60
_NOT_THERE = "credentials not found in native keychain"
_TOKEN_USER = "<token>"  # noqa: S105  (the word of the protocol for "this is an identity token")


@dataclass(frozen=True, repr=False)
class Login:
    """What a registry is shown. Has no readable form."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    """Stands for a user and is exchanged for tokens; empty: user and password do."""

    @property
    def basic(self) -> str:
        """User and password as an Authorization header has them (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Logins(Protocol):
    """Where logins come from."""

    def find(self, registry: str, repository: str) -> Login | None:
        """The login for a repository of a registry (host and port, as images name it); None: ask without one.

        Raises:
            ConfigError: what should know it is broken.
            SourceError: a helper failed; a later try may succeed.
        """
        ...


class Nobody:
    """No logins."""

    def find(self, registry: str, repository: str) -> Login | None:  # noqa: ARG002  (the Protocol's)
        """None."""
        return None


class _Auth(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""

    def __repr__(self) -> str:
        return "_Auth(***)"


class _Config(msgspec.Struct, frozen=True, rename="camel"):
    auths: dict[str, _Auth] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


class _Answer(msgspec.Struct, frozen=True, rename="pascal"):
    username: str
    secret: str


class DockerConfig:
    """The logins of one `config.json`, or of the one in a directory. Read when the first login is needed."""

    def __init__(self, path: str, run: Callable[[str, str], str] | None = None) -> None:
        """`run` asks a helper (program and server) and returns what it says; None: the real one."""
        self._path = Path(path)
        self._run = run or _ask
        self._config: _Config | None = None

    def find(self, registry: str, repository: str) -> Login | None:
        """See `Logins`. A helper comes before what the file says itself, as with docker."""
        if self._config is None:
            self._config = _read(self._path)
        config = self._config
        helper = _matching(config.cred_helpers, registry, "") or config.creds_store
        if helper and (login := self._from_helper(helper, registry)):
            return login
        auth = _matching(config.auths, registry, repository)
        return self._from_file(auth, registry) if auth else None

    def _from_helper(self, helper: str, registry: str) -> Login | None:
        if not _HELPER.fullmatch(helper):
            raise ConfigError(f"{self._path} names {helper!r} as a credential helper: use a plain name, such as 'gcr'")
        said = self._run(f"docker-credential-{helper}", _HUB_KEY if registry == DOCKER_HUB else registry)
        if not said:
            return None
        try:
            answer = msgspec.json.decode(said, type=_Answer)
        except UNREADABLE:
            raise SourceError(
                f"docker-credential-{helper} does not answer with a login for {registry}: try it by hand"
            ) from None
        if answer.username == _TOKEN_USER:
            return Login(identity_token=answer.secret)
        return Login(answer.username, answer.secret)

    def _from_file(self, auth: _Auth, registry: str) -> Login | None:
        username, password = auth.username, auth.password
        if auth.auth:
            try:
                username, colon, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                colon = ""
            if not colon:
                raise ConfigError(f"{self._path} has a broken `auth` for {registry}: log in again with docker login")
        if not (auth.identitytoken or username):
            return None
        return Login(username, password.rstrip("\0"), auth.identitytoken)


def _read(path: Path) -> _Config:
    try:
        if path.is_dir():
            path = next((path / name for name in _NAMES if (path / name).exists()), path / _NAMES[0])
        return msgspec.json.decode(path.read_bytes(), type=_Config)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; mount the pull secret there, or correct `dockerConfig`"
        ) from error
    except UNREADABLE:
        raise ConfigError(f"{path} is not a docker config.json: write it with docker login") from None


def _ask(program: str, server: str) -> str:
    """What a credential helper says about a server; empty when it knows nothing of it."""
    try:
        done = subprocess.run(  # noqa: S603  (the program's name was checked)
            [program, "get"], input=server, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False
        )
    except OSError as error:
        raise ConfigError(
            f"{program} cannot be run: {error.strerror}; install the helper, or correct the docker configuration"
        ) from error
    except subprocess.TimeoutExpired:
        raise SourceError(f"{program} does not answer within {_HELPER_SECONDS} s: try it by hand") from None
    if done.returncode == 0:
        return done.stdout
    if _NOT_THERE in done.stdout:
        return ""
    # Not what it printed: only the helper knows whether that is secret.
    raise SourceError(f"{program} fails for {server} with exit status {done.returncode}: try it by hand")


def _matching(table: Mapping[str, T], registry: str, repository: str) -> T | None:
    """The entry whose key fits best: by the longest path, and by a host that is written out."""
    fitting = [(len(path), "*" not in host, key) for key in table for host, path in [_split(key)] if (
        _same_host(host, registry) and f"{repository}/".startswith(f"{path}/" if path else "")
    )]  # fmt: skip
    return table[max(fitting)[2]] if fitting else None


def _split(key: str) -> tuple[str, str]:
    """Host and path of a key, which docker once wrote as the URL of an API (`https://index.docker.io/v1/`)."""
    host, _, path = re.sub("^https?://", "", key).partition("/")
    path = path.strip("/")
    return DOCKER_HUB if host in _HUB_NAMES else host, "" if path in {"v1", "v2"} else path


def _same_host(pattern: str, registry: str) -> bool:
    """Whether a host fits a pattern, whose `*` stays within one part of the name."""
    wanted, found = pattern.split("."), registry.split(".")
    return len(wanted) == len(found) and all(map(fnmatchcase, found, wanted))
