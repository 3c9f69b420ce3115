from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.urls import Format, check, check_base, file_name, format_of, redact

WORD = st.from_regex(r"[a-zA-Z0-9]{8,12}", fullmatch=True)


@given(WORD, WORD, WORD)
def test_redact_shows_neither_user_nor_password_nor_query(user: str, password: str, signature: str) -> None:
    shown = redact(f"https://{user}_u:{password}_p@host.example:8443/a/b.tar?sig={signature}_s#{password}_p")
    assert shown == "https://***@host.example:8443/a/b.tar?***"


@given(st.text(max_size=60))
def test_redact_and_check_take_any_text(text: str) -> None:
    redact(text)
    try:
        assert check(text) == text
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://h/x",
        "file:///etc/passwd",
        "http://",
        "https:///x",
        "http://h:99999/x",
        "http://h:x/",
        "http://[::1/x",
        "http://h/a b",
        "http://h/\n",
    ],
)
def test_check_refuses(url: str) -> None:
    with pytest.raises(ValueError, match=r".+: .+"):
        check(url)


def test_check_never_shows_the_password() -> None:
    with pytest.raises(ValueError, match="check its host") as caught:
        check("http://me:hunter2@h:99999/x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/a.tar", Format.TAR),
        ("http://h/a.tar.gz", Format.TAR_GZ),
        ("http://h/a.TGZ?x=.zip", Format.TAR_GZ),
        ("http://h/a.tar.zst#x", Format.TAR_ZST),
        ("http://h/a.tar.xz", Format.TAR_XZ),
        ("http://h/a.tar.bz2", Format.TAR_BZ2),
        ("http://h/a.zip", Format.ZIP),
        ("http://h/a.zst", Format.FILE),
        ("http://h/tar", Format.FILE),
        ("http://h.zip/", Format.FILE),
    ],
)
def test_format_follows_the_suffix_of_the_path(url: str, expected: Format) -> None:
    assert format_of(url) is expected


def test_file_name_is_the_decoded_last_segment() -> None:
    assert file_name("http://h/a/model%20v1%FF.bin?x=/y") == b"model v1\xff.bin"


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "http://h/",
        "http://h/a/",
        "http://h/..",
        "http://h/%2e%2e",
        "http://h/a%2Fb",
        "http://h/%00",
        "http://h/" + "a" * 256,
    ],
)
def test_file_name_refuses_what_cannot_name_a_file(url: str) -> None:
    with pytest.raises(ValueError, match="does not end in a file name"):
        file_name(url)


@pytest.mark.parametrize("url", ["https://h", "https://h:1/", "http://h/v2/x"])
def test_a_base_is_where_a_path_can_be_added(url: str) -> None:
    assert check_base(url) == url


@pytest.mark.parametrize("url", ["h", "ftp://h", "https://me:hunter2@h", "https://h?hunter2", "https://h/#hunter2"])
def test_what_cannot_be_a_base_is_refused_and_no_secret_shown(url: str) -> None:
    with pytest.raises(ValueError, match="write") as caught:
        check_base(url)
    assert "hunter2" not in str(caught.value)
