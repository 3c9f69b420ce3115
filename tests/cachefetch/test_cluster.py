"""The API server as a fetcher sees it: what is sent, and what becomes of its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cachefetch.cluster import ApiError, ApiServer
from cachefetch.errors import ConfigError
from tests.servers.tls import make_certificates
from tests.servers.web import Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.web import Request

PATH = "/api/v1/namespaces/team-a/events/x"


class Answers:
    """Notes what is asked, and answers as told."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        self.asked: list[tuple[str, str, str, str, bytes]] = []

    def __call__(self, request: Request) -> None:
        headers = request.headers
        kind, who = headers.get("Content-Type", ""), headers.get("Authorization", "")
        self.asked.append((request.command, request.path, kind, who, b"".join(request.body())))
        request.reply(self.status, self.body)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def server(answers: Answers) -> Iterator[Server]:
    with serving(answers) as running:
        yield running


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """What kubelet mounts into a container."""
    (tmp_path / "ca.crt").write_bytes(make_certificates(tmp_path).authority.read_bytes())
    (tmp_path / "token").write_text("first\n")
    return tmp_path


@pytest.fixture
def api(server: Server, account: Path) -> Iterator[ApiServer]:
    made = ApiServer(server.url, account)
    yield made
    made.close()


def test_apply_sends_the_object_and_takes_it_from_whoever_had_it(api: ApiServer, answers: Answers) -> None:
    """Kubernetes documentation, "Server-Side Apply": the manager is required, and force settles conflicts."""
    api.apply(PATH, {"kind": "Event"})
    [(method, path, kind, who, body)] = answers.asked
    assert (method, kind, who) == ("PATCH", "application/apply-patch+yaml", "Bearer first")
    assert path == f"{PATH}?fieldManager=goldlink&force=true"
    assert json.loads(body) == {"kind": "Event"}


def test_the_token_is_read_anew_for_each_call(api: ApiServer, answers: Answers, account: Path) -> None:
    """Kubelet replaces it within the hour."""
    api.delete(PATH)
    (account / "token").write_text("second")
    api.delete(PATH)
    assert [who for _, _, _, who, _ in answers.asked] == ["Bearer first", "Bearer second"]


def test_names_are_those_with_the_labels(api: ApiServer, answers: Answers) -> None:
    answers.body = b'{"items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}'
    assert api.names("/things", "x=y") == ["a", "b"]
    assert answers.asked[0][1] == "/things?labelSelector=x%3Dy"


@pytest.mark.parametrize(
    ("body", "labels"), [(b'{"metadata": {"labels": {"disk": "ssd"}}}', {"disk": "ssd"}), (b'{"metadata": {}}', {})]
)
def test_labels_are_those_of_the_object(api: ApiServer, answers: Answers, body: bytes, labels: dict[str, str]) -> None:
    answers.body = body
    assert api.labels("/api/v1/nodes/node-1") == labels
    assert answers.asked[0][:2] == ("GET", "/api/v1/nodes/node-1")


def test_what_is_gone_already_is_deleted(api: ApiServer, answers: Answers) -> None:
    answers.status = 404
    api.delete(PATH)


@pytest.mark.parametrize(("status", "final"), [(403, True), (404, True), (422, True), (429, False), (500, False)])
def test_a_refusal_has_the_reason_of_the_server_and_may_be_final(
    api: ApiServer, answers: Answers, status: int, final: bool
) -> None:
    answers.status, answers.body = status, b'{"message": "events \\"x\\" is forbidden"}'
    with pytest.raises(ApiError, match=r'PATCH /api/v1/.*: events "x" is forbidden') as refused:
        api.apply(PATH, {})
    assert (refused.value.status, refused.value.final) == (status, final)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}"])
def test_a_refusal_without_a_reason_has_its_number(api: ApiServer, answers: Answers, body: bytes) -> None:
    answers.status, answers.body = 502, body
    with pytest.raises(ApiError, match="502"):
        api.apply(PATH, {})


def test_a_server_that_is_away_is_asked_again(account: Path) -> None:
    with serving(Answers()) as server:
        url = server.url
    api = ApiServer(url, account)
    with pytest.raises(ApiError, match="does not answer") as away:
        api.apply(PATH, {})
    assert not away.value.final
    api.close()


def test_the_token_goes_to_nobody_whom_the_authority_does_not_vouch_for(account: Path, tmp_path: Path) -> None:
    """A server without TLS that can be mistaken for one with it gets no request at all."""
    with serving(answers := Answers()) as server:
        api = ApiServer(server.url.replace("http:", "https:"), account)
        with pytest.raises(ApiError, match="does not answer"):
            api.apply(PATH, {})
        api.close()
    assert answers.asked == []


def test_without_an_account_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mount the token"):
        ApiServer("https://127.0.0.1:1", tmp_path)


@pytest.mark.parametrize("environment", [{}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}])
def test_outside_of_a_pod_the_remedy_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="this is no pod"):
        ApiServer.of_pod(environment)
