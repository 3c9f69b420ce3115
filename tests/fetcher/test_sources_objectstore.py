"""The objectstore source against a real S3 service that checks signatures, as a process; a proxy counts the bytes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.store import S3Store

from tests.cachefetch.sources.bucket import running_bucket
from tests.csi.driver import until
from tests.fetcher.process import ROOT
from tests.fetcher.secrets import leaks, said
from tests.fetcher.test_sources_http import forward_proxy
from tests.servers.faulty import Answer, Slow

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fetcher.process import FetcherProcess
    from tests.servers.nginx import Nginx
    from tests.servers.s3 import S3

OBJECTS, CHANGED, SIZE = 3000, 30, 128 << 10
"""Fewer than the 100,000 that the promise is about: every figure is a share. Two lists take 600 bytes for an object."""
BIG = 256 << 20


@pytest.fixture
def credentials(s3: S3, tmp_path: Path) -> dict[str, str]:
    """Files with the keys of the service, as the configuration names them."""
    return key_files(s3, tmp_path)


def key_files(s3: S3, tmp_path: Path) -> dict[str, str]:
    files = {"accessKeyIdFile": s3.access_key, "secretAccessKeyFile": s3.secret_key}
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
    return {name: str(tmp_path / name) for name in files}


def bucket(s3: S3) -> S3Store:
    """The bucket, to fill it."""
    return S3Store(
        s3.bucket,
        endpoint=s3.url,
        region=s3.region,
        access_key_id=s3.access_key,
        secret_access_key=s3.secret_key,
        client_options={"allow_http": True},
    )


def declare(fetcher: FetcherProcess, s3: S3, prefix: str = "p/", **more: Any) -> None:
    source = {"type": "objectstore", "url": f"s3://{s3.bucket}/{prefix}", "endpoint": s3.url, "region": s3.region}
    fetcher.declare(objects={**source, **more})


def refresh(fetcher: FetcherProcess) -> str:
    done = fetcher.run("refresh")
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree(fetcher: FetcherProcess) -> Path:
    return fetcher.store.tree("objects", fetcher.store.current("objects") or "")


def inodes(fetcher: FetcherProcess) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in tree(fetcher).rglob("f*")}


@pytest.mark.slow
def test_one_percent_of_changes_costs_at_most_two_percent_of_the_bytes(
    fetcher: FetcherProcess, s3: S3, credentials: dict[str, str]
) -> None:
    store, block = bucket(s3), os.urandom(SIZE)

    def key(number: int) -> str:
        return f"p/d{number % 40}/f{number}"

    for number in range(OBJECTS):
        obstore.put(store, key(number), number.to_bytes(8) + block[8:])
    declare(fetcher, s3, credentials=credentials)
    assert "objects: changed" in refresh(fetcher)
    before = inodes(fetcher)
    s3.proxy.traffic.clear()
    assert "objects: unchanged" in refresh(fetcher)
    assert {exchange.path.partition("?")[0] for exchange in s3.proxy.traffic.of()} == {f"/{s3.bucket}"}
    changed = set(range(0, OBJECTS, OBJECTS // CHANGED))
    for number in changed:
        obstore.put(store, key(number), b"new" + block)
    s3.proxy.traffic.clear()
    assert "objects: changed" in refresh(fetcher)
    sent = s3.proxy.traffic.sent()
    assert sent <= 0.02 * OBJECTS * SIZE
    after = inodes(fetcher)
    assert {int(name[1:]) for name in before if before[name] != after[name]} == changed
    assert (tree(fetcher) / f"d0/f{min(changed)}").read_bytes() == b"new" + block


@pytest.mark.slow
@pytest.mark.parametrize(("key", "number"), [("p/big.bin", signal.SIGKILL), ("big.bin", signal.SIGTERM)])
def test_a_fetcher_ended_at_half_of_a_large_object_transfers_only_the_rest(
    fetcher: FetcherProcess, s3: S3, tmp_path: Path, key: str, number: int
) -> None:
    credentials = key_files(s3, tmp_path)
    digest = hashlib.sha256()
    with (tmp_path / "big").open("wb") as file:
        for block in range(BIG >> 20):
            piece = block.to_bytes(8) * (1 << 17)
            digest.update(piece)
            file.write(piece)
    s3.put(key, tmp_path / "big")
    (tmp_path / "big").unlink()
    s3.proxy.inject(Slow(0.005, 1 << 18), path=f"/{s3.bucket}/{key}")
    declare(fetcher, s3, "p/" if key.startswith("p/") else key, credentials=credentials)
    fetcher.start()
    until(lambda: fetcher.status("objects").done > BIG // 2, 90)
    fetcher.end(number)
    [partial] = (fetcher.state / "staging" / "objects").rglob("object")
    missing = BIG - partial.stat().st_size
    assert 0 < missing <= BIG // 2
    s3.proxy.heal()
    s3.proxy.traffic.clear()
    fetcher.start()
    fetcher.bring("objects")
    assert s3.proxy.traffic.sent(f"/{s3.bucket}/{key}") <= missing
    with (tree(fetcher) / "big.bin").open("rb") as golden:
        assert hashlib.file_digest(golden, "sha256").digest() == digest.digest()


@pytest.mark.parametrize("way", ["files", "environment"])
def test_keys_open_the_bucket_and_are_found_nowhere(
    fetcher: FetcherProcess, s3: S3, credentials: dict[str, str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    store = bucket(s3)
    for number in range(10):
        obstore.put(store, f"p/f{number}", b"x" * number)
    s3.curl("p/empty/", "--request", "PUT")
    if way == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    more: dict[str, Any] = {"credentials": credentials} if way == "files" else {}
    declare(fetcher, s3, **more)
    refresh(fetcher)
    assert {path.name for path in tree(fetcher).iterdir()} == {f"f{number}" for number in range(10)} | {"empty"}
    assert (tree(fetcher) / "empty").is_dir()
    done = [fetcher.run("refresh"), fetcher.run("list", "-o", "json"), fetcher.run("verify")]
    assert [one.returncode for one in done] == [0, 0, 0]
    s3.proxy.inject(Answer(403, body=f"<Error><Code>AccessDenied</Code>{s3.secret_key}</Error>".encode()))
    done.append(fetcher.run("refresh"))
    assert "answers 403 Forbidden (AccessDenied): give credentials that may list and read it" in done[-1].stderr
    fetcher.start()
    done.append(fetcher.run("refresh"))
    fetcher.end()
    assert "AccessDenied" in fetcher.log_file.read_text()
    assert leaks(fetcher, s3.secret_key, *done) == []


def test_wrong_keys_and_wrong_places_are_named(
    fetcher: FetcherProcess, s3: S3, credentials: dict[str, str], tmp_path: Path
) -> None:
    obstore.put(bucket(s3), "p/a", b"x")
    declare(fetcher, s3, anonymous=True)
    assert "answers 403" in said(fetcher.run("refresh"))
    declare(fetcher, s3, endpoint=s3.url.replace("http:", "https:"), credentials=credentials)
    assert "it does not speak TLS: check `endpoint`" in said(fetcher.run("refresh"))
    declare(fetcher, s3, "none/", credentials=credentials)
    assert f"s3://{s3.bucket}/none/ has no objects: upload some" in said(fetcher.run("refresh"))
    declare(fetcher, s3, "none.tar", credentials=credentials)
    assert f"s3://{s3.bucket}/none.tar does not exist: upload it" in said(fetcher.run("refresh"))
    (tmp_path / "wrong").write_text("hunter2")
    declare(fetcher, s3, credentials={**credentials, "secretAccessKeyFile": str(tmp_path / "wrong")})
    done = fetcher.run("refresh")
    assert "(SignatureDoesNotMatch): give credentials" in done.stderr
    assert leaks(fetcher, "hunter2", done) == []
    assert "AWS4-HMAC" not in said(done)


def test_an_archive_is_unpacked_and_shares_what_is_equal(
    fetcher: FetcherProcess, s3: S3, credentials: dict[str, str], tmp_path: Path
) -> None:
    for name in ("fa", "fb"):
        (tmp_path / name).write_bytes(os.urandom(100_000))

    def upload() -> None:
        command: list[str | Path] = ["tar", "cf", tmp_path / "a.tar.zst", "--zstd", "-C", tmp_path, "fa", "fb"]
        subprocess.run(command, check=True)
        s3.put("d/a.tar.zst", tmp_path / "a.tar.zst")

    upload()
    declare(fetcher, s3, "d/a.tar.zst", credentials=credentials)
    refresh(fetcher)
    before = inodes(fetcher)
    s3.proxy.traffic.clear()
    assert "objects: unchanged" in refresh(fetcher)
    assert s3.proxy.traffic.sent() == 0
    (tmp_path / "fb").write_bytes(b"changed")
    upload()
    assert "objects: changed" in refresh(fetcher)
    after = inodes(fetcher)
    assert {name for name in before if before[name] != after[name]} == {"fb"}


MEASURE = r"""
import re, sys
from pathlib import Path
from cachefetch.config import ObjectStore
from cachefetch.sources.objectstore import ObjectStoreSource
config = ObjectStore(url="s3://bucket/", endpoint=sys.argv[1], anonymous=True)
assert ObjectStoreSource(config).resolve(None).size == int(sys.argv[2])
print(re.search("VmHWM:[ \t]+([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_a_list_of_a_hundred_thousand_objects_needs_no_more_memory_than_a_short_one() -> None:
    """In pages of a thousand; the whole list would be some fifty MiB of Python objects."""

    def peak(count: int) -> int:
        with running_bucket() as server:
            server.objects = {f"some/longer/directory/name/{number:060}": b"x" for number in range(count)}
            command = [sys.executable, "-c", MEASURE, server.url, str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            return int(done.stdout)

    long, short = peak(100_000), peak(2000)
    assert long - short <= 10 << 10


@pytest.fixture(autouse=True)
def _no_keys_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)


def test_the_proxy_of_the_environment_is_used(
    fetcher: FetcherProcess, s3: S3, credentials: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstore.put(bucket(s3), "p/fa", b"x")
    declare(fetcher, s3, credentials=credentials)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with forward_proxy(tmp_path / "proxy") as (proxy, log):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        refresh(fetcher)
        passed = log.read_text()
        assert f"GET {s3.url}/{s3.bucket}" in passed
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        refresh(fetcher)
        assert log.read_text() == passed
    monkeypatch.delenv("NO_PROXY")
    done = fetcher.run("refresh")
    assert "cannot be read: nothing listens there" in done.stderr
    assert leaks(fetcher, "hunter3", done) == []


def test_a_service_with_an_authority_of_its_own_is_trusted_by_its_file(fetcher: FetcherProcess, nginx: Nginx) -> None:
    """A list and an object from files: what matters here is TLS."""
    item = "<Key>p/fa</Key><LastModified>2024-01-01T00:00:00Z</LastModified><Size>0</Size>"
    (nginx.root / "caches").write_text(
        f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>{item}</Contents></ListBucketResult>"
    )
    source = {"type": "objectstore", "url": "s3://caches/p/", "endpoint": nginx.tls_url, "anonymous": True}
    fetcher.declare(objects=source)
    done = fetcher.run("refresh")
    assert "its certificate is not trusted: have its CA installed, or name it in `ca`" in done.stderr
    fetcher.declare(objects={**source, "ca": str(nginx.authority)})
    refresh(fetcher)
    assert [path.name for path in tree(fetcher).iterdir()] == ["fa"]
