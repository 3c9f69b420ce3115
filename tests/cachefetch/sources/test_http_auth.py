from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest

from cachefetch.errors import ConfigError
from cachefetch.sourceconfig import HttpAuth
from cachefetch.sources.http_auth import OriginAuth, basic, bearer, make_auth

if TYPE_CHECKING:
    from pathlib import Path


def header(auth: httpx2.Auth, url: str) -> str | None:
    """The Authorization that a request for `url` gets."""
    request = next(auth.sync_auth_flow(httpx2.Request("GET", url)))
    return request.headers.get("Authorization")


@pytest.fixture
def secret(tmp_path: Path) -> str:
    (tmp_path / "secret").write_text("hunter2\n")
    return str(tmp_path / "secret")


def test_a_token_and_a_password_become_their_headers(secret: str) -> None:
    url = "https://h/a"
    assert header(make_auth(HttpAuth(bearer_file=secret), url), url) == "Bearer hunter2"
    expected = "Basic bcO8Omh1bnRlcjI="  # base64 of 'mü:hunter2'
    assert header(make_auth(HttpAuth(username="mü", password_file=secret), url), url) == expected
    assert basic("me", "a:b") == "Basic bWU6YTpi"


@pytest.mark.parametrize("other", ["http://h/a", "https://h:444/a", "https://h2/a", "https://x.h/a", "https://h.x/a"])
def test_a_login_is_for_one_origin_only(other: str) -> None:
    auth = OriginAuth("https://h/a/b?c", "x")
    assert header(auth, other) is None
    assert [header(auth, url) for url in ("https://h", "https://H:443/z")] == ["x", "x"]


def test_netrc_says_who_asks_which_host(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text('machine h login me password hunter2\nmachine g\nlogin you\npassword "x y"\n')
    auth = make_auth(HttpAuth(netrc_file=str(tmp_path / "netrc")), "https://h/a")
    assert header(auth, "https://h/a") == basic("me", "hunter2")
    assert header(auth, "http://g:81/") == basic("you", "x y")
    assert header(auth, "https://other/a") is None


@pytest.mark.parametrize("content", [b"machine h login me passwrd hunter2\n", b"hunter2", b"machine h password \xff\n"])
def test_a_broken_netrc_is_not_quoted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "netrc").write_bytes(content)
    with pytest.raises(ConfigError, match=r"is not in the form of netrc\(5\)") as caught:
        make_auth(HttpAuth(netrc_file=str(tmp_path / "netrc")), "https://h/a")
    assert "hunter2" not in str(caught.value)


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    for auth in (HttpAuth(netrc_file=none), HttpAuth(bearer_file=none), HttpAuth(username="me", password_file=none)):
        with pytest.raises(ConfigError, match=f"{none} cannot be read: No such file"):
            make_auth(auth, "https://h/a")


@pytest.mark.parametrize("token", ["two words", "hüntér"])
def test_what_is_no_token_is_not_sent(tmp_path: Path, token: str) -> None:
    (tmp_path / "t").write_text(token)
    with pytest.raises(ConfigError, match="does not hold a token") as caught:
        bearer("https://h", str(tmp_path / "t"), "tokenFile")
    assert token not in str(caught.value)


def test_a_login_has_no_readable_form(secret: str) -> None:
    made = [make_auth(HttpAuth(bearer_file=secret), "https://h"), OriginAuth("https://h", "hunter2")]
    assert "hunter2" not in repr(made) + str(made)
