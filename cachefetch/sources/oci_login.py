"""Answering a registry that wants to know who asks: user and password, or a token that another server gives.

Protocols: RFC 7235 (challenges), RFC 7617 (Basic), RFC 6750 (Bearer), and the distribution project's "Token
Authentication Specification" and "Oauth2 Token Authentication".

A login is shown to the registry it belongs to and to the token server that this registry names, to nobody else: a
redirect to another host carries none, because httpx2 drops the Authorization header there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import msgspec

from cachefetch.decoding import UNREADABLE
from cachefetch.errors import SourceError
from cachefetch.sources import web
from cachefetch.urls import redact

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from cachefetch.sources.oci_credentials import Login, Logins

_ANSWER_MAX = 1 << 20
"""Bytes of a refusal or of a token; bounded, because they are read into memory."""
_CLIENT = "goldlink"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  (RFC 9110, 5.6.2: a word)
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=\s|,|$)(?!\s*=)")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')


class Challenge(NamedTuple):
    """One way in that a server offers."""

    scheme: str
    """In lower case."""
    parameters: dict[str, str]
    """Names in lower case."""


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""

    def __repr__(self) -> str:
        return "_Token(***)"


@dataclass
class _Door:
    """One registry as it is asked."""

    registry: str
    """As images and configurations name it."""
    authorization: str = ""
    """What was accepted last; empty: nothing is shown until it is asked for."""
    login: Login | None = None
    """What was found for it when it asked last."""

    def __repr__(self) -> str:
        return f"_Door({self.registry!r})"


class RegistryLogin(httpx2.Auth):
    """Shows the login of each registry when that asks for it, for pulling one repository.

    A token that has expired is renewed once in every request.
    """

    def __init__(self, logins: Logins, repository: str, registries: Mapping[str, str]) -> None:
        """`registries` has the name of each registry by the URL at which it is asked."""
        self._logins = logins
        self._repository = repository
        self._doors = {_origin(httpx2.URL(url)): _Door(name) for url, name in registries.items()}

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """One request, and what it takes to have it answered (`httpx2.Auth`).

        Raises:
            SourceError: the registry or its token server refuses.
        """
        door = self._doors[_origin(request.url)]
        if door.authorization:
            request.headers["Authorization"] = door.authorization
        response = yield request
        if not _refused(response, request):
            return
        _bound(response)
        authorization = yield from self._authorize(door, challenges(response.headers.get_list("WWW-Authenticate")))
        if not authorization or authorization == door.authorization:
            raise self._refusal(door)
        request.headers["Authorization"] = authorization
        response = yield request
        if _refused(response, request):
            raise self._refusal(door)
        door.authorization = authorization

    def _authorize(self, door: _Door, offered: Sequence[Challenge]) -> Generator[httpx2.Request, httpx2.Response, str]:
        """What to show to a registry that offers these ways; empty when there is nothing to show."""
        login = door.login = self._logins.find(door.registry, self._repository)
        for challenge in offered:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                request = self._token_request(door, challenge.parameters, login)
                response = yield request
                return self._token(door, request, response)
        if login is not None and login.username and any(challenge.scheme == "basic" for challenge in offered):
            return login.basic
        return ""

    def _token_request(self, door: _Door, offer: Mapping[str, str], login: Login | None) -> httpx2.Request:
        realm = self._realm(door, offer["realm"])
        asked = {"scope": offer.get("scope") or f"repository:{self._repository}:pull"}
        if service := offer.get("service"):
            asked["service"] = service
        if login is not None and login.identity_token:
            asked |= {"grant_type": "refresh_token", "refresh_token": login.identity_token, "client_id": _CLIENT}
            return httpx2.Request("POST", realm, data=asked)
        headers = {"Authorization": login.basic} if login is not None else {}
        return httpx2.Request("GET", realm.copy_merge_params(asked), headers=headers)

    def _realm(self, door: _Door, text: str) -> httpx2.URL:
        """The URL of the token server, which must not be less protected than the registry."""
        try:
            realm = httpx2.URL(text)
        except httpx2.InvalidURL:
            realm = httpx2.URL("")
        plain = any(scheme == "http" for scheme, *_ in (origin for origin, at in self._doors.items() if at is door))
        if realm.host and (realm.scheme == "https" or (plain and realm.scheme == "http")):
            return realm
        raise SourceError(
            f"registry {door.registry} names {redact(text)} as its token server, which is no https URL: look at it"
        )

    def _token(self, door: _Door, request: httpx2.Request, response: httpx2.Response) -> str:
        _bound(response)
        if response.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise self._refusal(door)
        url = str(request.url)
        web.check(url, response)
        try:
            said = msgspec.json.decode(response.read(), type=_Token)
        except UNREADABLE:
            said = _Token()
        token = said.token or said.access_token
        if not token or not token.isascii() or not token.isprintable():
            raise SourceError(f"{redact(url)} gives no token: look at the token server of registry {door.registry}")
        return f"Bearer {token}"

    def _refusal(self, door: _Door) -> SourceError:
        who, what = ("the login", "correct the login") if door.login else ("anybody without a login", "add a login")
        return SourceError(
            f"registry {door.registry} does not let {who} read {self._repository}: "
            f"correct the name of the image, or {what} in the docker config.json that `auth.dockerConfig` names"
        )


def challenges(headers: Sequence[str]) -> list[Challenge]:
    """The challenges in WWW-Authenticate headers, each of which may hold several (RFC 9110, 11.6.1)."""
    return [challenge for header in headers for challenge in _challenges(header)]


def _challenges(header: str) -> Iterator[Challenge]:
    at = 0
    while match := _SCHEME.match(header, at):
        at = match.end()
        found: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, at):
            at = parameter.end()
            quoted, plain = parameter[2], parameter[3]
            found[parameter[1].lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        yield Challenge(match[1].lower(), found)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _refused(response: httpx2.Response, request: httpx2.Request) -> bool:
    """Whether the registry itself, not where it redirected to, wants to know who asks."""
    return response.status_code == HTTPStatus.UNAUTHORIZED and _origin(response.request.url) == _origin(request.url)


def _bound(response: httpx2.Response) -> None:
    """Let nobody fill the memory with an answer that is read whole, as httpx2 does between two requests."""
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Bounded(response.stream)


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        left = _ANSWER_MAX
        for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise SourceError(f"a registry refuses with more than {_ANSWER_MAX} bytes: look at the registry")
            yield chunk

    def close(self) -> None:
        self._stream.close()
