from __future__ import annotations

import email.utils
import logging
import ssl
import subprocess
import threading
import time
import traceback
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import ConfigError, DataError, SourceError
from cachefetch.sources.web import Interrupted, Patience, Refused, get, make_client, read
from tests.cachefetch.httpd import Httpd, running

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """Collects the waits instead of waiting."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def patience(self) -> Patience:
        return Patience(self.waits.append)


def fetch(url: str, clock: Clock | None = None, **headers: str) -> tuple[int, bytes]:
    with make_client() as client, get(client, url, headers, (clock or Clock()).patience()) as answer:
        return answer.status_code, b"".join(answer.iter_raw())


def test_a_refusal_tells_its_status(httpd: Httpd) -> None:
    with make_client() as client, pytest.raises(Refused) as caught, get(client, httpd.url("/none"), {}, Patience()):
        pass
    assert caught.value.status == 404


def fail(url: str, clock: Clock | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        fetch(url, clock)
    return str(caught.value)


def test_the_body_is_as_served(httpd: Httpd) -> None:
    """A Content-Encoding is not undone: digests are of the bytes as served."""
    httpd.serve("/a", b"\x1f\x8b not gzip", headers={"Content-Encoding": "gzip"})
    assert fetch(httpd.url("/a")) == (200, b"\x1f\x8b not gzip")
    assert httpd.requests[0].headers["Accept-Encoding"] == "identity"
    assert httpd.requests[0].headers["User-Agent"].startswith("goldlink/")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "correct the URL"),
        (401, "give credentials"),
        (403, "give credentials that may read it"),
        (404, "correct the URL, or upload the file"),
        (499, "correct the URL"),
    ],
)
def test_a_refusal_is_final_and_says_what_to_do(httpd: Httpd, status: int, remedy: str) -> None:
    httpd.serve("/a", b"", statuses=[status])
    clock = Clock()
    error = fail(httpd.url("/a"), clock)
    assert f"answers {status}" in error
    assert remedy in error
    assert clock.waits == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_busy_server_is_asked_again(httpd: Httpd, status: int) -> None:
    httpd.serve("/a", b"at last", statuses=[status, status])
    clock = Clock()
    assert fetch(httpd.url("/a"), clock) == (200, b"at last")
    assert len(clock.waits) == 2
    assert 0.25 <= clock.waits[0] <= 0.5 <= clock.waits[1] <= 1


@pytest.mark.parametrize("value", ["7", "date"])
def test_retry_after_is_honoured(httpd: Httpd, value: str) -> None:
    header = email.utils.formatdate(time.time() + 30, usegmt=True) if value == "date" else value
    httpd.serve("/a", b"at last", statuses=[503], headers={"Retry-After": header})
    clock = Clock()
    fetch(httpd.url("/a"), clock)
    assert clock.waits == [7.0] if value == "7" else 20 < clock.waits[0] <= 30


@pytest.mark.parametrize("value", ["3600", "-5", "soon", ""])
def test_a_retry_after_out_of_reason_ends_the_try_or_is_ignored(httpd: Httpd, value: str) -> None:
    httpd.serve("/a", b"at last", statuses=[503], headers={"Retry-After": value})
    clock = Clock()
    if value == "3600":
        assert "wants to be left alone for 3600 s" in fail(httpd.url("/a"), clock)
        assert clock.waits == []
    else:
        assert fetch(httpd.url("/a"), clock)[1] == b"at last"
        assert clock.waits[0] <= 0.5


def test_patience_ends_grows_capped_and_starts_anew_with_progress(httpd: Httpd) -> None:
    httpd.serve("/a", b"", statuses=[503] * 100)
    clock = Clock()
    assert "answers 503 Service Unavailable: look at the server" in fail(httpd.url("/a"), clock)
    assert len(clock.waits) == 5
    patience = clock.patience()
    for _ in range(50):
        patience.wait(Interrupted("x"))
        patience.progress()
    assert max(clock.waits[5:]) <= 0.5


def test_a_dead_server_is_named(httpd: Httpd) -> None:
    with running() as other:
        url = other.url("/a")
    clock = Clock()
    assert "/a cannot be fetched ([Errno 111] Connection refused): check" in fail(url, clock)
    assert len(clock.waits) == 5


def test_redirects_are_followed_but_not_for_ever(httpd: Httpd) -> None:
    httpd.serve("/a", b"", redirect="/b")
    httpd.serve("/b", b"here")
    httpd.serve("/loop", b"", redirect="/loop")
    assert fetch(httpd.url("/a")) == (200, b"here")
    assert "redirects more than 5 times" in fail(httpd.url("/loop"))


def test_a_redirect_to_another_protocol_is_refused(httpd: Httpd) -> None:
    httpd.serve("/a", b"", redirect="file:///etc/passwd")
    assert "redirects to what is not http" in fail(httpd.url("/a"))


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate that nobody signed."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def test_an_untrusted_certificate_is_final(certificate: ssl.SSLContext) -> None:
    with running(lambda plain: certificate.wrap_socket(plain, server_side=True)) as server:
        server.serve("/a", b"x")
        clock = Clock()
        error = fail(server.url("/a").replace("http:", "https:"), clock)
    assert "certificate that is not trusted" in error
    assert clock.waits == []


def test_an_authority_that_is_named_is_trusted(certificate: ssl.SSLContext, tmp_path: Path) -> None:
    with running(lambda plain: certificate.wrap_socket(plain, server_side=True)) as server:
        server.serve("/a", b"protected")
        url = server.url("/a").replace("http:", "https:")
        with make_client(ca=str(tmp_path / "cert.pem")) as client, get(client, url, {}, Clock().patience()) as answer:
            assert answer.read() == b"protected"


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_that_has_no_authorities_is_a_mistake_of_the_configuration(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca\.pem cannot be used"):
        make_client(ca=str(tmp_path / "ca.pem"))


@pytest.mark.parametrize("proxy", ["http://user:s3cret/x@proxy:8080", "smtp://user:s3cret@proxy"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_login(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError, match="percent-encoded") as caught:
        make_client()
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_redirect_from_https_to_http_is_refused(
    httpd: Httpd, certificate: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    httpd.serve("/b", b"not protected")
    with running(lambda plain: certificate.wrap_socket(plain, server_side=True)) as server:
        server.serve("/a", b"", redirect=httpd.url("/b"))
        server.serve("/c", b"protected")
        assert fetch(server.url("/c").replace("http:", "https:"))[1] == b"protected"
        assert "redirects to plain http" in fail(server.url("/a").replace("http:", "https:"))


def test_a_password_is_sent_but_never_shown(httpd: Httpd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    httpd.serve("/a", b"x", statuses=[0, 403, 503, 503, 503, 503, 503, 503])
    url = httpd.url("/a?signature=hunter3", user="me:hunter2")
    fetch(url)
    errors = [fail(url), fail(url), fail(httpd.url("/none?x=hunter3", user="me:hunter2"))]
    with running() as other:
        dead = other.url("/a?signature=hunter3", user="me:hunter2")
    errors.append(fail(dead))
    assert httpd.requests[0].headers["Authorization"] == "Basic bWU6aHVudGVyMg=="
    assert "hunter" not in "".join(errors) + caplog.text
    assert all("***@127.0.0.1" in error for error in errors)


def test_credentials_do_not_follow_a_redirect_elsewhere(httpd: Httpd) -> None:
    with running() as other:
        other.serve("/b", b"x")
        httpd.serve("/a", b"", redirect=other.url("/b"))
        fetch(httpd.url("/a", user="me:hunter2"))
        assert "Authorization" not in other.requests[0].headers


def test_a_small_answer_is_read_whole_also_when_it_breaks_off(httpd: Httpd) -> None:
    httpd.serve("/a", bytes(1000), cut_after=[10, 999], headers={"Link": "x"})
    clock = Clock()
    with make_client() as client:
        body, headers = read(client, httpd.url("/a"), {}, clock.patience(), limit=1000)
    assert (body, headers["Link"], len(clock.waits)) == (bytes(1000), "x", 2)


def test_an_answer_without_end_is_not_read_to_it(httpd: Httpd) -> None:
    httpd.serve("/a", bytes(1 << 20), chunked=True)
    with make_client() as client, pytest.raises(DataError, match="is larger than 1000 bytes"):
        read(client, httpd.url("/a"), {}, Clock().patience(), limit=1000)


def test_an_answer_that_always_breaks_off_is_given_up(httpd: Httpd) -> None:
    httpd.serve("/a", bytes(1000), cut_after=[10] * 6)
    with make_client() as client, pytest.raises(SourceError, match="cannot be fetched"):
        read(client, httpd.url("/a"), {}, Clock().patience(), limit=1000)


def test_patience_that_is_ended_waits_no_more() -> None:
    """Neither a pause that is under way goes on, nor does a later one begin."""
    patience, failure = Patience(), Interrupted("busy", retry_after=30)
    other = threading.Timer(0.05, patience.end)
    other.start()
    for _ in range(2):
        with pytest.raises(Interrupted, match="busy"):
            patience.wait(failure)
    other.join()
    with pytest.raises(SourceError, match="was interrupted"):
        patience.check("https://user:secret@h/x")


def test_patience_ends_with_the_process() -> None:
    """Also a pause that is under way: the process is not kept from ending."""
    stopping = threading.Event()
    patience, failure = Patience(stopping=stopping.is_set), Interrupted("busy", retry_after=60)
    other = threading.Timer(0.05, stopping.set)
    other.start()
    for _ in range(2):
        with pytest.raises(Interrupted, match="busy"):
            patience.wait(failure)
    other.join()
    with pytest.raises(SourceError, match="was interrupted"):
        patience.check("https://h/x")
