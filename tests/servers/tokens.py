"""A token server for the registry: who knows the password gets a token for what is allowed, for a short time.

Protocol: the distribution project's "Token Authentication Specification" and its "JWT" form (RS256, key by `x5c`).
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.servers.web import Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.web import Request

ISSUER, SERVICE = "goldlink-tests", "registry"


class TokenServer:
    """Gives tokens for pulling and pushing to one user, and for pulling repositories below `public/` to everyone."""

    def __init__(self, directory: Path, user: str, password: str) -> None:
        self.lifetime = 300
        """Seconds for which the next tokens are good; the registry grants a minute more."""
        self.certificate = directory / "token.pem"
        self._key = directory / "token.key"
        self._login = (user, password)
        new: list[str | Path] = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=tokens",
            "-days",
            "1",
        ]
        new += ["-keyout", self._key, "-out", self.certificate]
        subprocess.run(new, check=True, capture_output=True)

    def respond(self, request: Request) -> None:
        """Answer one request for a token."""
        query = parse_qs(urlsplit(request.path).query)
        login = request.credentials()
        if query.get("service") != [SERVICE] or (login is not None and login != self._login):
            request.reply(401, b'{"errors": [{"code": "UNAUTHORIZED"}]}')
            return
        # Several scopes come as several parameters, or in one with spaces.
        scopes = [scope for value in query.get("scope", []) for scope in value.split()]
        access = [_access(scope, known=login is not None) for scope in scopes]
        token = self._sign([granted for granted in access if granted["actions"]])
        body = {"token": token, "access_token": token, "expires_in": self.lifetime}
        request.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _sign(self, access: list[dict[str, object]]) -> str:
        pem = self.certificate.read_text().splitlines()
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(pem[1:-1])]}
        now = int(time.time())
        times = {"iat": now, "nbf": now - 10, "exp": now + self.lifetime}
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": "", "jti": str(time.time_ns()), "access": access, **times}
        signed = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(claims).encode())}"
        command: list[str | Path] = ["openssl", "dgst", "-sha256", "-sign", self._key]
        signature = subprocess.run(command, input=signed.encode(), check=True, capture_output=True).stdout
        return f"{signed}.{_encode(signature)}"


@contextmanager
def running_token_server(directory: Path, user: str, password: str) -> Iterator[tuple[TokenServer, Server]]:
    """A token server until the end of the block, and where it is served."""
    tokens = TokenServer(directory, user, password)
    with serving(tokens.respond) as server:
        yield tokens, server


def _access(scope: str, *, known: bool) -> dict[str, object]:
    """What of a scope `repository:NAME:ACTION,…` is allowed."""
    kind, name, actions = scope.split(":", 2)
    allowed = {"pull", "push"} if known else {"pull"} if name.startswith("public/") else set()
    return {"type": kind, "name": name, "actions": sorted(allowed & set(actions.split(",")))}


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
