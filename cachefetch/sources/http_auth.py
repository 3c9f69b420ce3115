"""Who asks a web server: the Authorization header, and to which servers it goes.

A login belongs to the server that the administrator named it for. It is not sent to another host that a list of
digests or a signature is fetched from, and after a redirect to another origin httpx2 drops the header.
"""

from __future__ import annotations

import base64
import netrc
from typing import TYPE_CHECKING

import httpx2

from cachefetch.errors import ConfigError
from cachefetch.sources.secretfile import read_secret

if TYPE_CHECKING:
    from collections.abc import Generator

    from cachefetch.sourceconfig import HttpAuth


class OriginAuth(httpx2.Auth):
    """One header, for one origin (scheme, host and port) only. Has no readable form."""

    def __init__(self, url: str, header: str) -> None:
        """The origin is that of `url`."""
        self._origin = httpx2.URL(url).origin
        self._header = header

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add the header if the request goes there."""
        if request.url.origin == self._origin:
            request.headers["Authorization"] = self._header
        yield request


class NetrcAuth(httpx2.Auth):
    """The logins of one netrc file, each for the host that it is written for."""

    def __init__(self, path: str) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            self._logins = netrc.netrc(path)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read: {error.strerror}; mount the file there, or correct `netrcFile`"
            ) from None
        except (netrc.NetrcParseError, UnicodeDecodeError):  # quotes what it cannot read, perhaps a password
            raise ConfigError(
                f"{path} is not in the form of netrc(5): write 'machine HOST login NAME password ...'"
            ) from None

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add the login for the request's host, if there is one."""
        if login := self._logins.authenticators(request.url.host):
            request.headers["Authorization"] = basic(login[0], login[2] or "")
        yield request


def make_auth(config: HttpAuth, url: str) -> httpx2.Auth:
    """What `config` says about the server of `url`; its files are read now.

    Raises:
        ConfigError: a file cannot be used.
    """
    if config.netrc_file is not None:
        return NetrcAuth(config.netrc_file)
    if config.bearer_file is not None:
        return bearer(url, config.bearer_file, "bearerFile")
    if config.username is None or config.password_file is None:
        raise ConfigError("`auth` names no login: give 'bearerFile', 'username' with 'passwordFile', or 'netrcFile'")
    return OriginAuth(url, basic(config.username, read_secret(config.password_file, "passwordFile")))


def bearer(url: str, path: str, key: str) -> OriginAuth:
    """The token in the file at `path`, for the server of `url` (RFC 6750, 2.1).

    Raises:
        ConfigError: the file cannot be used.
    """
    token = read_secret(path, key)
    if not token.isascii() or " " in token:
        raise ConfigError(f"{path} does not hold a token: write the bare token of `{key}` into it")
    return OriginAuth(url, f"Bearer {token}")


def basic(username: str, password: str) -> str:
    """User and password as an Authorization header has them (RFC 7617, in UTF-8)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
