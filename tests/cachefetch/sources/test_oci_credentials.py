from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import ConfigError, SourceError
from cachefetch.sources.oci_credentials import DockerConfig, Login, Nobody

if TYPE_CHECKING:
    from pathlib import Path


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def write(path: Path, **config: Any) -> str:
    path.write_text(json.dumps(config))
    return str(path)


def named(*keys: str) -> dict[str, Any]:
    """Logins whose users are the numbers of their keys."""
    return {key: {"auth": encoded(str(number), "pw")} for number, key in enumerate(keys)}


def test_nobody_has_no_login() -> None:
    assert Nobody().find("registry.example", "a") is None


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": encoded("me", "pass:word")},
        {"username": "me", "password": "pass:word"},
        {"username": "me", "password": "pass:word", "email": "x", "auth": encoded("me", "pass:word")},
        {"auth": encoded("me", "pass:word\0\0")},
    ],
)
def test_a_login_is_read_in_every_form(tmp_path: Path, entry: dict[str, Any]) -> None:
    logins = DockerConfig(write(tmp_path / "c", auths={"registry.example": entry}))
    login = logins.find("registry.example", "team/app")
    assert login == Login("me", "pass:word")
    assert login.basic == f"Basic {encoded('me', 'pass:word')}"
    assert logins.find("other.example", "team/app") is None


def test_an_identity_token_is_read(tmp_path: Path) -> None:
    entry = {"auth": encoded("00000000-0000", ""), "identitytoken": "token"}
    login = DockerConfig(write(tmp_path / "c", auths={"registry.example": entry})).find("registry.example", "a")
    assert login is not None
    assert login.identity_token == "token"


def test_an_entry_without_a_login_is_none(tmp_path: Path) -> None:
    logins = DockerConfig(write(tmp_path / "c", auths={"registry.example": {}}, HttpHeaders={"x": "y"}))
    assert logins.find("registry.example", "a") is None


@pytest.mark.parametrize(
    ("keys", "registry", "repository", "number"),
    [
        (["registry.example"], "registry.example", "a", 0),
        (["https://registry.example"], "registry.example", "a", 0),
        (["https://registry.example/v2/"], "registry.example", "a", 0),
        (["http://registry.example/"], "registry.example", "a", 0),
        (["registry.example:5000"], "registry.example", "a", None),
        (["registry.example"], "registry.example:5000", "a", None),
        (["https://index.docker.io/v1/"], "docker.io", "library/nginx", 0),
        (["docker.io"], "docker.io", "library/nginx", 0),
        (["registry.example", "registry.example/team"], "registry.example", "team/app", 1),
        (["registry.example/team/app", "registry.example"], "registry.example", "team/app", 0),
        (["registry.example/team", "registry.example"], "registry.example", "teams/app", 1),
        (["registry.example/team"], "registry.example", "other/app", None),
        (["*.example"], "registry.example", "a", 0),
        (["*.example"], "a.registry.example", "a", None),
        (["*.*.example"], "a.registry.example", "a", 0),
        (["*.example:5000"], "registry.example:5000", "a", 0),
        (["*.example", "registry.example"], "registry.example", "a", 1),
        (["*"], "registry.example", "a", None),
        (["example"], "registry.example", "a", None),
    ],
)
def test_the_entry_that_fits_best_is_taken(
    tmp_path: Path, keys: list[str], registry: str, repository: str, number: int | None
) -> None:
    login = DockerConfig(write(tmp_path / "c", auths=named(*keys))).find(registry, repository)
    assert (login.username if login else None) == (None if number is None else str(number))


@pytest.mark.parametrize("name", [".dockerconfigjson", "config.json"])
def test_a_mounted_secret_may_be_named_by_its_directory(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, auths=named("registry.example"))
    login = DockerConfig(str(tmp_path)).find("registry.example", "a")
    assert login is not None


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            DockerConfig(str(path)).find("registry.example", "a")


@pytest.mark.parametrize(
    "content",
    [
        "hunter2",
        '{"auths": {"registry.example": {"auth": "hunter2"}}}',
        '{"auths": {"registry.example": {"auth": "aHVudGVyMg=="}}}',
        '{"auths": {"registry.example": {"auth": 5, "password": "hunter2"}}}',
        '{"auths": {"registry.example": "hunter2"}}',
        '{"auths": "hunter2"}',
        '["hunter2"]',
    ],
)
def test_a_broken_file_is_refused_and_not_quoted(tmp_path: Path, content: str) -> None:
    (tmp_path / "c").write_text(content)
    with pytest.raises(ConfigError) as caught:
        DockerConfig(str(tmp_path / "c")).find("registry.example", "a")
    assert str(tmp_path / "c") in str(caught.value)
    cause = caught.value.__cause__
    assert "hunter2" not in f"{caught.value} {cause}"


def test_a_login_has_no_readable_form() -> None:
    login = Login("me", "hunter2", "hunter3")
    assert "hunter" not in f"{login!r} {login!s}"


@given(st.text(), st.text())
def test_any_password_survives(user: str, password: str) -> None:
    scheme, _, coded = Login(user, password).basic.partition(" ")
    assert (scheme, base64.b64decode(coded).decode()) == ("Basic", f"{user}:{password}")


HELPER = """#!/bin/sh
read server
echo "$@ $server" >> {log}
test "$1" = get || exit 3
case "$server" in
    registry.example|https://index.docker.io/v1/)
        echo '{{"ServerURL": "x", "Username": "helped", "Secret": "hunter2"}}';;
    token.example) echo '{{"Username": "<token>", "Secret": "hunter2"}}';;
    broken.example) echo 'hunter2';;
    failing.example) echo 'hunter2'; echo hunter2 >&2; exit 1;;
    *) echo 'credentials not found in native keychain'; exit 1;;
esac
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real helper called `docker-credential-test`, and the file in which it notes what it was asked."""
    program, log = tmp_path / "bin" / "docker-credential-test", tmp_path / "asked"
    program.parent.mkdir()
    program.write_text(HELPER.format(log=log))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


def test_a_helper_is_asked_over_its_standard_input(tmp_path: Path, asked: Path) -> None:
    logins = DockerConfig(write(tmp_path / "c", credsStore="test"))
    assert logins.find("registry.example", "a") == Login("helped", "hunter2")
    assert logins.find("docker.io", "library/nginx") == Login("helped", "hunter2")
    assert logins.find("token.example", "a") == Login(identity_token="hunter2")
    assert asked.read_text().splitlines() == [
        "get registry.example",
        "get https://index.docker.io/v1/",
        "get token.example",
    ]


def test_a_registry_may_have_its_own_helper(tmp_path: Path, asked: Path) -> None:
    logins = DockerConfig(write(tmp_path / "c", credHelpers={"registry.example": "test"}, auths=named("other.example")))
    assert logins.find("registry.example", "a") == Login("helped", "hunter2")
    assert logins.find("other.example", "a") == Login("0", "pw")
    assert len(asked.read_text().splitlines()) == 1


def test_what_a_helper_does_not_know_may_stand_in_the_file(tmp_path: Path, asked: Path) -> None:
    logins = DockerConfig(write(tmp_path / "c", credsStore="test", auths=named("other.example")))
    assert logins.find("other.example", "a") == Login("0", "pw")
    assert logins.find("unknown.example", "a") is None


@pytest.mark.parametrize("registry", ["broken.example", "failing.example"])
def test_a_helper_that_fails_is_named_and_not_quoted(tmp_path: Path, asked: Path, registry: str) -> None:
    with pytest.raises(SourceError, match=f"docker-credential-test .*{registry}") as caught:
        DockerConfig(write(tmp_path / "c", credsStore="test")).find(registry, "a")
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize("helper", ["none-such", "../bin/sh", "a b", "-x/y"])
def test_a_helper_that_is_not_there_or_no_name_is_a_mistake_of_the_configuration(tmp_path: Path, helper: str) -> None:
    with pytest.raises(ConfigError):
        DockerConfig(write(tmp_path / "c", credsStore=helper)).find("registry.example", "a")
