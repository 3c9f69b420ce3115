"""Logging in, with a registry that can be programmed; the real one is in test_oci.py."""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachefetch.errors import SourceError
from cachefetch.sources import web
from cachefetch.sources.oci_credentials import Login
from cachefetch.sources.oci_login import Challenge, RegistryLogin, challenges
from tests.servers.web import Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.web import Request


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="x"'], [("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"'],
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        (["bearer Realm=x , service = y"], [("bearer", {"realm": "x", "service": "y"})]),
        (['Basic realm="a", Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (["Negotiate, Basic realm=a"], [("negotiate", {}), ("basic", {"realm": "a"})]),
        (["Negotiate", "Basic realm=a"], [("negotiate", {}), ("basic", {"realm": "a"})]),
        ([r'Basic realm="a \"b\" \\ c"'], [("basic", {"realm": r'a "b" \ c'})]),
    ],
)
def test_challenges_are_read(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert challenges(headers) == [Challenge(*each) for each in expected]


@given(st.text() | st.text(alphabet='Basic ="\\,x'))
@example("a" * 100_000)
@example("Basic " + "a=b," * 20_000)
@example('Basic realm="' + "\\" * 50_000)
def test_any_header_is_read(header: str) -> None:
    for challenge in challenges([header]):
        assert challenge.scheme == challenge.scheme.lower()


class Table:
    """Logins by registry."""

    def __init__(self, **logins: Login) -> None:
        self.logins = logins
        self.asked: list[tuple[str, str]] = []

    def find(self, registry: str, repository: str) -> Login | None:
        self.asked.append((registry, repository))
        return self.logins.get(registry)


@dataclass
class Places:
    """A registry `one`, a token server and the place of blobs, all of which note what they are shown."""

    registry: Server
    tokens: Server
    blobs: Server
    shown: dict[str, list[str | None]] = field(default_factory=lambda: {"registry": [], "tokens": [], "blobs": []})
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    challenge: str = ""
    token_answer: tuple[int, bytes] = (200, b'{"token": "t1"}')
    good: str = "Bearer t1"
    refusal: bytes = b"log in"

    def at_registry(self, request: Request) -> None:
        self.shown["registry"].append(request.headers.get("Authorization"))
        if request.path == "/moved":
            request.reply(302, headers={"Location": f"{self.blobs.url}/blob"})
        elif request.headers.get("Authorization") == self.good:
            request.reply(200, b"content")
        else:
            request.reply(401, self.refusal, {"WWW-Authenticate": self.challenge})

    def at_tokens(self, request: Request) -> None:
        self.shown["tokens"].append(request.headers.get("Authorization"))
        query = urlsplit(request.path).query if request.command == "GET" else b"".join(request.body()).decode()
        self.queries.append(parse_qs(query))
        request.reply(*self.token_answer)

    def at_blobs(self, request: Request) -> None:
        self.shown["blobs"].append(request.headers.get("Authorization"))
        request.reply(401 if request.path.endswith("?locked") else 200, b"blob", {"WWW-Authenticate": "Basic"})

    def get(self, logins: Table, *paths: str) -> list[bytes]:
        """The contents at these paths of the registry, asked one after the other by the same client."""
        auth = RegistryLogin(logins, "team/app", {self.registry.url: "one"})
        found = []
        with web.make_client(auth=auth) as client:
            for path in paths:
                patience = web.Patience(lambda _: None)
                with web.get(client, self.registry.url + path, {}, patience) as answer:
                    found.append(answer.read())
        return found


@pytest.fixture
def places() -> Iterator[Places]:
    with ExitStack() as stack:
        made: list[Places] = []
        registry = stack.enter_context(serving(lambda request: made[0].at_registry(request)))
        tokens = stack.enter_context(serving(lambda request: made[0].at_tokens(request)))
        blobs = stack.enter_context(serving(lambda request: made[0].at_blobs(request)))
        made.append(Places(registry, tokens, blobs))
        made[0].challenge = f'Bearer realm="{made[0].tokens.url}/token?x=y",service="s"'
        yield made[0]


ME = Login("me", "hunter2")
BASIC = "Basic " + base64.b64encode(b"me:hunter2").decode()


def test_a_token_is_fetched_once_and_shown_from_then_on(places: Places) -> None:
    assert places.get(Table(one=ME), "/a", "/b") == [b"content"] * 2
    assert places.shown["registry"] == [None, "Bearer t1", "Bearer t1"]
    assert places.shown["tokens"] == [BASIC]
    assert places.queries == [{"x": ["y"], "service": ["s"], "scope": ["repository:team/app:pull"]}]


def test_the_scope_that_the_registry_wants_is_asked_for(places: Places) -> None:
    places.challenge += ',scope="repository:other:pull"'
    places.get(Table(one=ME), "/a")
    assert places.queries[0]["scope"] == ["repository:other:pull"]


def test_without_a_login_a_token_for_everyone_is_asked_for(places: Places) -> None:
    assert places.get(Table(), "/a") == [b"content"]
    assert places.shown["tokens"] == [None]


def test_an_identity_token_is_exchanged(places: Places) -> None:
    places.token_answer = (200, b'{"access_token": "t1"}')
    assert places.get(Table(one=Login(identity_token="hunter3")), "/a") == [b"content"]
    (form,) = places.queries
    assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["hunter3"])
    assert places.shown["tokens"] == [None]


def test_a_token_that_has_expired_is_renewed_once(places: Places) -> None:
    auth = RegistryLogin(Table(one=ME), "team/app", {places.registry.url: "one"})
    with web.make_client(auth=auth) as client:
        for number in (1, 2):
            places.good, places.token_answer = f"Bearer t{number}", (200, b'{"token": "t%d"}' % number)
            with web.get(client, f"{places.registry.url}/a", {}, web.Patience(lambda _: None)) as answer:
                assert answer.read() == b"content"
    assert places.shown["registry"] == [None, "Bearer t1", "Bearer t1", "Bearer t2"]


def test_a_password_is_shown_when_it_is_asked_for_and_then_at_once(places: Places) -> None:
    places.challenge, places.good = 'Basic realm="x"', BASIC
    assert places.get(Table(one=ME), "/a", "/b") == [b"content"] * 2
    assert places.shown["registry"] == [None, BASIC, BASIC]


def refused(places: Places, logins: Table, path: str = "/a") -> str:
    with pytest.raises(SourceError) as caught:
        places.get(logins, path)
    assert "hunter" not in f"{caught.value} {caught.value.__cause__}"
    return str(caught.value)


def test_who_is_refused_is_told_what_to_do(places: Places) -> None:
    places.good = "nothing"
    assert "does not let the login read team/app" in refused(places, Table(one=ME))
    assert "does not let anybody without a login" in refused(places, Table())
    places.challenge = "Basic"
    assert "does not let the login" in refused(places, Table(one=ME))
    assert "does not let anybody" in refused(places, Table())
    assert "does not let the login" in refused(places, Table(one=Login(identity_token="hunter2")))
    places.challenge = "Negotiate"
    assert "does not let the login" in refused(places, Table(one=ME))


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_token_server_that_refuses_is_final(places: Places, status: int) -> None:
    places.token_answer = (status, b"hunter2")
    assert "does not let the login read team/app" in refused(places, Table(one=ME))
    assert len(places.shown["tokens"]) == 1


def test_a_token_server_that_is_busy_is_asked_again(places: Places) -> None:
    places.token_answer = (503, b"busy")
    assert "answers 503" in refused(places, Table(one=ME))
    assert len(places.shown["tokens"]) > 2


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[]", b'{"token": ""}', b'{"token": "a\\nb"}', b'{"token": "\xc3\xa4"}']
)
def test_an_answer_without_a_token_is_named(places: Places, answer: bytes) -> None:
    places.token_answer = (200, answer)
    assert f"{places.tokens.url}/token?*** gives no token" in refused(places, Table(one=ME))


def test_nobody_fills_the_memory(places: Places) -> None:
    places.refusal = bytes(2 << 20)
    assert "refuses with more than" in refused(places, Table(one=ME))
    places.refusal, places.token_answer = b"", (200, json.dumps({"token": "x" * (2 << 20)}).encode())
    assert "more than" in refused(places, Table(one=ME))


def test_a_redirect_to_another_host_carries_no_login_and_cannot_ask_for_one(places: Places) -> None:
    assert places.get(Table(one=ME), "/a", "/moved") == [b"content", b"blob"]
    assert places.shown["registry"][-1] == "Bearer t1"
    assert places.shown["blobs"] == [None]


def test_what_a_redirect_leads_to_cannot_ask_for_the_login(places: Places) -> None:
    places.at_registry = lambda request: request.reply(302, headers={"Location": f"{places.blobs.url}/x?locked"})  # type: ignore[method-assign]
    assert "answers 401" in refused(places, Table(one=ME))
    assert places.shown["blobs"] == [None]


@pytest.mark.parametrize("realm", ["", "x", "ftp://h/t", "http://[", "http://127.0.0.1:1/token"])
def test_a_password_is_not_sent_to_where_it_is_less_safe(realm: str) -> None:
    """A registry that is asked over TLS cannot have it sent without, nor to nowhere."""
    login = RegistryLogin(Table(one=ME), "team/app", {"https://registry.example": "one"})
    request = httpx2.Request("GET", "https://registry.example/v2/")
    flow = login.sync_auth_flow(request)
    next(flow)
    headers = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
    with pytest.raises(SourceError, match="which is no https URL"):
        flow.send(httpx2.Response(401, headers=headers, request=request))
