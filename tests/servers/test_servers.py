"""Each server alone, seen by a client that is not ours: it serves, checks, counts, and ends."""

from __future__ import annotations

import dataclasses
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.processes import free_port, listens, running
from tests.servers.faulty import Answer, CutOff, Flip, Longer, Slow
from tests.servers.traffic import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers.faulty import FaultyProxy
    from tests.servers.nginx import Nginx
    from tests.servers.s3 import S3

DATA = bytes(range(256)) * 1000


def get(url: str, *, user: str = "", trust: Path | None = None, **headers: str) -> bytes:
    """The body at that URL, by curl; redirects are followed, and an error or a short body raises."""
    options = ["--user", user] if user else []
    options += ["--cacert", str(trust)] if trust else []
    for name, value in headers.items():
        options += ["--header", f"{name.replace('_', '-')}: {value}"]
    command = ["curl", "--silent", "--show-error", "--fail", "--location", "--max-redirs", "5", *options, url]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def failure(url: str, *, user: str = "") -> str:
    """Curl's complaint about that URL."""
    with pytest.raises(subprocess.CalledProcessError) as raised:
        get(url, user=user)
    return str(raised.value.stderr.decode())


@pytest.fixture
def site(nginx: Nginx) -> Nginx:
    (nginx.root / "data").write_bytes(DATA)
    return nginx


def test_nginx_serves_ranges_and_counts_the_bytes_of_each(site: Nginx) -> None:
    assert get(f"{site.url}/data") == DATA
    assert get(f"{site.url}/data", Range="bytes=1000-1999") == DATA[1000:2000]
    assert "404" in failure(f"{site.url}/nothing")
    whole, part, nothing = site.traffic().of()
    assert whole == Exchange("GET", "/data", "", 200, len(DATA))
    assert part == Exchange("GET", "/data", "bytes=1000-1999", 206, 1000)
    assert nothing.status == 404
    assert site.traffic().sent("/data") == len(DATA) + 1000


def test_nginx_asks_for_the_password(site: Nginx) -> None:
    assert "401" in failure(f"{site.url}/private/data")
    assert "401" in failure(f"{site.url}/private/data", user=f"{site.user}:wrong")
    assert get(f"{site.url}/private/data", user=f"{site.user}:{site.password}") == DATA


def test_nginx_over_tls_is_trusted_by_its_authority_only(site: Nginx) -> None:
    """Also by Python's own check, which asks more of certificates than curl does (from 3.13 VERIFY_X509_STRICT)."""
    assert get(f"{site.tls_url}/data", trust=site.authority) == DATA
    assert "certificate" in failure(f"{site.tls_url}/data")
    context = ssl.create_default_context(cafile=site.authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with urllib.request.urlopen(f"{site.tls_url}/data", context=context, timeout=10) as answer:
        assert answer.read() == DATA


def test_nginx_redirects_and_limits_its_rate(site: Nginx) -> None:
    assert get(f"{site.url}/moved/data") == DATA
    assert get(f"{site.url}/slow/data") == DATA
    assert [exchange.status for exchange in site.traffic().of()] == [302, 200, 200]


def test_a_proxy_without_faults_changes_nothing_and_counts(site: Nginx, faulty: Callable[[str], FaultyProxy]) -> None:
    proxy = faulty(site.url)
    assert get(f"{proxy.url}/data") == DATA
    assert get(f"{proxy.url}/data", Range="bytes=-10") == DATA[-10:]
    assert "401" in failure(f"{proxy.url}/private/data")
    assert get(f"{proxy.url}/moved/data") == DATA
    assert proxy.traffic.sent("/data") == site.traffic().sent("/data") == 2 * len(DATA) + 10
    assert [exchange.status for exchange in proxy.traffic.of()] == [200, 206, 401, 302, 200]


def test_a_connection_is_cut_off_as_often_as_told(site: Nginx, faulty: Callable[[str], FaultyProxy]) -> None:
    proxy = faulty(site.url)
    proxy.inject(CutOff(after=70_000), path="/data", skip=1, times=2)
    assert get(f"{proxy.url}/data") == DATA
    for _ in range(2):
        assert "bytes remaining" in failure(f"{proxy.url}/data")
    assert get(f"{proxy.url}/data") == DATA
    assert [exchange.sent for exchange in proxy.traffic.of()] == [len(DATA), 70_000, 70_000, len(DATA)]


def test_a_server_is_busy_until_healed(site: Nginx, faulty: Callable[[str], FaultyProxy]) -> None:
    proxy = faulty(site.url)
    proxy.inject(Answer(503, {"Retry-After": "7"}))
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(f"{proxy.url}/data", timeout=10)
    with raised.value as answer:
        assert (answer.code, answer.headers["Retry-After"]) == (503, "7")
    proxy.heal()
    assert get(f"{proxy.url}/data") == DATA
    assert site.traffic().sent() == len(DATA)


def test_a_redirect_leads_to_itself(site: Nginx, faulty: Callable[[str], FaultyProxy]) -> None:
    proxy = faulty(site.url)
    proxy.inject(Answer(302, {"Location": "/data"}), path="/data")
    assert "Maximum (5) redirects" in failure(f"{proxy.url}/data")


@pytest.mark.parametrize(("by", "seen"), [(1, "remaining"), (-1, "")])
def test_a_length_is_wrong(by: int, seen: str, site: Nginx, faulty: Callable[[str], FaultyProxy]) -> None:
    """A client believes a length that is too short: only a digest finds out."""
    proxy = faulty(site.url)
    proxy.inject(Longer(by=by))
    if seen:
        assert seen in failure(f"{proxy.url}/data")
    else:
        assert get(f"{proxy.url}/data") == DATA[:by]


def test_one_bit_is_wrong(site: Nginx, faulty: Callable[[str], FaultyProxy]) -> None:
    proxy = faulty(site.url)
    proxy.inject(Flip(at=100_000))
    wrong = get(f"{proxy.url}/data")
    assert [at for at in range(len(DATA)) if wrong[at] != DATA[at]] == [100_000]


def test_a_slow_body_is_complete(site: Nginx, faulty: Callable[[str], FaultyProxy]) -> None:
    proxy = faulty(site.url)
    proxy.inject(Slow(pause=0.01, piece=50_000))
    assert get(f"{proxy.url}/data") == DATA


def test_a_login_expires(site: Nginx, faulty: Callable[[str], FaultyProxy]) -> None:
    proxy = faulty(site.url)
    proxy.inject(Answer(401, {"WWW-Authenticate": "Basic"}), path="/private/", skip=1)
    assert get(f"{proxy.url}/private/data", user=f"{site.user}:{site.password}") == DATA
    assert "401" in failure(f"{proxy.url}/private/data", user=f"{site.user}:{site.password}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_s3_stores_serves_ranges_and_counts(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    s3.put("deep/data", tmp_path / "data")
    s3.proxy.traffic.clear()
    assert s3.curl("deep/data") == DATA
    assert s3.curl("deep/data", "--range", "10-19") == DATA[10:20]
    assert s3.proxy.traffic.sent(f"/{s3.bucket}/deep/data") == len(DATA) + 10
    assert b"<Key>deep/data</Key>" in s3.curl("")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_s3_refuses_who_does_not_sign_or_signs_wrongly(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    s3.put("data", tmp_path / "data")
    assert "403" in failure(f"{s3.url}/{s3.bucket}/data")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        dataclasses.replace(s3, secret_key="wrong").curl("data")
    assert b"SignatureDoesNotMatch" in raised.value.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_s3_joins_the_parts_of_an_upload(s3: S3, tmp_path: Path) -> None:
    parts = [os.urandom(5 << 20), b"the last part may be small"]
    started = s3.curl("big?uploads=", "--request", "POST").decode()
    upload = started.partition("<UploadId>")[2].partition("</UploadId>")[0]
    tags = []
    for number, part in enumerate(parts, 1):
        (tmp_path / "part").write_bytes(part)
        headers = tmp_path / "headers"
        s3.curl(
            f"big?partNumber={number}&uploadId={upload}", "--upload-file", tmp_path / "part", "--dump-header", headers
        )
        (tag,) = [line.split()[1] for line in headers.read_text().splitlines() if line.lower().startswith("etag:")]
        tags.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
    complete = f"<CompleteMultipartUpload>{''.join(tags)}</CompleteMultipartUpload>"
    s3.curl(f"big?uploadId={upload}", "--request", "POST", "--data-binary", complete)
    assert s3.curl("big") == b"".join(parts)


def test_a_process_is_stopped_with_its_block(tmp_path: Path) -> None:
    port = free_port()
    command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", str(port), "--directory", str(tmp_path)]
    with running(command, log=tmp_path / "log", ready=lambda: listens(port)) as process:
        assert process.poll() is None
    assert process.poll() is not None
    assert not listens(port)


def test_a_process_that_fails_to_start_tells_why(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no such thing >&2; exit 3"]
    with (
        pytest.raises(AssertionError, match=r"ended with 3:\nno such thing"),
        running(command, log=tmp_path / "log", ready=lambda: False),
    ):
        pass
