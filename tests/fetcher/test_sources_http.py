"""The http source against a real web server, with logins, TLS and a proxy, as a process that an administrator runs."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.fetcher.secrets import leaks, said
from tests.processes import free_port, listens, running
from tests.servers.faulty import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fetcher.process import FetcherProcess
    from tests.servers.faulty import FaultyProxy
    from tests.servers.nginx import Nginx


@pytest.fixture(autouse=True)
def _no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def archive(nginx: Nginx) -> Path:
    """`/a.tar` of the web server, of two files."""
    for name in ("one", "two"):
        (nginx.root / name).write_bytes(os.urandom(100_000))
    pack(nginx)
    return nginx.root / "a.tar"


def pack(nginx: Nginx) -> None:
    subprocess.run(["tar", "cf", nginx.root / "a.tar", "-C", nginx.root, "one", "two"], check=True)


def refresh(fetcher: FetcherProcess, url: str, **more: Any) -> str:
    """What a refresh says that works."""
    fetcher.declare(deps={"type": "http", "url": url, **more})
    done = fetcher.run("refresh")
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail(fetcher: FetcherProcess, url: str, **more: Any) -> str:
    """What a refresh complains about; nothing is published."""
    fetcher.declare(deps={"type": "http", "url": url, **more})
    done = fetcher.run("refresh")
    assert done.returncode == 1, said(done)
    assert fetcher.store.caches() == [] or fetcher.store.current("deps") is None
    return done.stderr


def test_an_unchanged_file_costs_a_304_and_a_change_is_noticed(
    fetcher: FetcherProcess, nginx: Nginx, archive: Path
) -> None:
    assert "deps: changed" in refresh(fetcher, f"{nginx.url}/a.tar")
    before = nginx.traffic()
    assert "deps: unchanged" in refresh(fetcher, f"{nginx.url}/a.tar")
    after = nginx.traffic()
    assert after.sent() == before.sent()
    assert [exchange.status for exchange in after.of()[len(before.of()) :]] == [304]
    tree = fetcher.store.tree("deps", fetcher.store.current("deps") or "")
    inode = (tree / "one").stat().st_ino
    (nginx.root / "two").write_bytes(b"changed")
    pack(nginx)
    os.utime(archive, (0, 0))
    assert "deps: changed" in refresh(fetcher, f"{nginx.url}/a.tar")
    tree = fetcher.store.tree("deps", fetcher.store.current("deps") or "")
    assert ((tree / "two").read_bytes(), (tree / "one").stat().st_ino) == (b"changed", inode)


@pytest.mark.parametrize("way", ["password", "netrc", "url"])
def test_a_login_opens_what_is_private_and_is_found_nowhere(
    fetcher: FetcherProcess, nginx: Nginx, archive: Path, tmp_path: Path, way: str
) -> None:
    (tmp_path / "password").write_text(f"{nginx.password}\n")
    (tmp_path / "netrc").write_text(f'machine 127.0.0.1 login {nginx.user} password "{nginx.password}"\n')
    auth = {
        "password": {"username": nginx.user, "passwordFile": str(tmp_path / "password")},
        "netrc": {"netrcFile": str(tmp_path / "netrc")},
    }
    secret = nginx.password
    url = f"{nginx.url}/private/a.tar"
    if way == "url":
        secret = "s3cret%3Awith%20colon"
        url = url.replace("://", f"://{nginx.user}:{secret}@")
    refresh(fetcher, url, **({"auth": auth[way]} if way in auth else {}))
    done = [fetcher.run("refresh"), fetcher.run("list", "-o", "json"), fetcher.run("list"), fetcher.run("verify")]
    assert all(one.returncode == 0 for one in done)
    archive.unlink()
    done.append(fetcher.run("refresh"))
    assert "answers 404" in done[-1].stderr
    fetcher.start()
    done.append(fetcher.run("refresh"))  # asks the daemon, which logs why it fails
    assert "answers 404" in said(done[-1])
    fetcher.end()
    assert "answers 404" in fetcher.log_file.read_text()
    assert leaks(fetcher, secret, *done) == []


def test_the_wrong_password_is_refused_and_named_by_its_file(
    fetcher: FetcherProcess, nginx: Nginx, archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("hunter2")
    url = f"{nginx.url}/private/a.tar"
    error = fail(fetcher, url, auth={"username": nginx.user, "passwordFile": str(tmp_path / "password")})
    assert "answers 401 Unauthorized: give credentials that it accepts" in error
    assert "hunter2" not in error
    assert "answers 401" in fail(fetcher, url)


def test_a_token_is_read_from_its_file(
    fetcher: FetcherProcess, nginx: Nginx, archive: Path, faulty: Callable[[str], FaultyProxy], tmp_path: Path
) -> None:
    """What the server is told is tested beside the source; here it must not be lost on the way, nor shown."""
    (tmp_path / "token").write_text("hunter2\n")
    proxy = faulty(nginx.url)
    auth = {"bearerFile": str(tmp_path / "token")}
    refresh(fetcher, f"{proxy.url}/a.tar", auth=auth)
    proxy.inject(Answer(403))
    fetcher.declare(deps={"type": "http", "url": f"{proxy.url}/a.tar", "auth": auth})
    done = fetcher.run("refresh")
    assert "answers 403 Forbidden: give credentials that may read it" in done.stderr
    assert leaks(fetcher, "hunter2", done) == []


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (404, "correct the URL, or upload the file"),
        (429, "look at the server, or wait"),
        (503, "look at the server, or wait"),
    ],
)
@pytest.mark.usefixtures("archive")
def test_a_refusal_names_status_and_remedy(
    fetcher: FetcherProcess, nginx: Nginx, faulty: Callable[[str], FaultyProxy], status: int, remedy: str
) -> None:
    """A server that says how long it wants to be left alone is not asked again before: no wait of minutes here."""
    proxy = faulty(nginx.url)
    proxy.inject(Answer(status, {"Retry-After": "3600"}))
    error = fail(fetcher, f"{proxy.url}/a.tar")
    assert f"answers {status}" in error
    assert remedy in error
    assert len(proxy.traffic.of()) == 1


def test_a_server_with_an_authority_of_its_own_is_trusted_by_its_file(
    fetcher: FetcherProcess, nginx: Nginx, archive: Path
) -> None:
    url = f"{nginx.tls_url}/a.tar"
    error = fail(fetcher, url)
    assert "has a certificate that is not trusted" in error
    assert "have its CA installed, or correct the URL" in error
    assert "deps: changed" in refresh(fetcher, url, ca=str(nginx.authority))


@pytest.mark.slow
def test_what_is_no_tls_is_named(fetcher: FetcherProcess, nginx: Nginx, archive: Path) -> None:
    """Plain http where TLS is expected may be an accident that passes, so it is tried again for some seconds."""
    error = fail(fetcher, f"{nginx.url.replace('http:', 'https:')}/a.tar")
    assert "cannot be fetched" in error
    assert "check the host name, the server and the network" in error


@contextmanager
def forward_proxy(directory: Path) -> Iterator[tuple[str, Path]]:
    """A real forward proxy, and its log."""
    directory.mkdir()
    port, log = free_port(), directory / "tinyproxy.log"
    configuration = directory / "tinyproxy.conf"
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", f'LogFile "{log}"', "LogLevel Connect"]
    lines.append("BasicAuth proxyuser hunter3")
    configuration.write_text("\n".join([*lines, ""]))
    command = ["/usr/bin/tinyproxy", "-d", "-c", str(configuration)]
    with running(command, log=directory / "out", ready=lambda: listens(port)):
        yield f"http://proxyuser:hunter3@127.0.0.1:{port}", log


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.usefixtures("archive")
def test_the_proxy_of_the_environment_is_used_unless_it_says_not_to(
    fetcher: FetcherProcess, nginx: Nginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    url = f"{nginx.tls_url if tls else nginx.url}/a.tar"
    more = {"ca": str(nginx.authority)} if tls else {}
    with forward_proxy(tmp_path / "proxy") as (proxy, log):
        monkeypatch.setenv("HTTPS_PROXY" if tls else "HTTP_PROXY", proxy)
        refresh(fetcher, url, **more)
        passed = log.read_text()
        assert ("CONNECT 127.0.0.1" if tls else "GET http://127.0.0.1") in passed
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        refresh(fetcher, url, **more)
        assert log.read_text() == passed
    monkeypatch.delenv("NO_PROXY")
    done = fetcher.run("refresh")
    assert done.returncode == 1, "the proxy is gone, and nothing goes around it"
    assert leaks(fetcher, "hunter3", done) == []


def test_a_proxy_that_refuses_is_named(
    fetcher: FetcherProcess, nginx: Nginx, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forward_proxy(tmp_path / "proxy") as (proxy, _):
        monkeypatch.setenv("HTTPS_PROXY", proxy.replace("hunter3", "hunter4"))
        error = fail(fetcher, f"{nginx.tls_url}/a.tar", ca=str(nginx.authority))
    assert "the proxy refuses" in error
    assert "check HTTPS_PROXY and NO_PROXY" in error
    assert "hunter" not in error


def test_a_mistake_of_the_configuration_is_the_second_exit_status(fetcher: FetcherProcess) -> None:
    fetcher.declare(deps={"type": "http", "url": "https://h/a.tar", "auth": {"bearerFile": "token"}})
    done = fetcher.run("refresh")
    assert done.returncode == 2
    assert "caches[0].source.auth.bearerFile: 'token' is not an absolute path" in done.stderr


def test_what_is_listed_holds_no_url(fetcher: FetcherProcess, nginx: Nginx, archive: Path) -> None:
    refresh(fetcher, f"{nginx.url}/a.tar?signature=hunter5")
    listed = fetcher.run("list", "-o", "json")
    assert json.loads(listed.stdout)
    assert "hunter5" not in said(listed)
