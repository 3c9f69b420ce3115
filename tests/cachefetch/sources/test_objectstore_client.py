from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from cachefetch.buckets import parse
from cachefetch.errors import ConfigError, SourceError, UnsafeEntry
from cachefetch.sourceconfig import ObjectCredentials, ObjectStore
from cachefetch.sources.base import SourceChanged
from cachefetch.sources.objectstore_client import Missing, Objects, connect
from tests.cachefetch.sources.bucket import QUICK, Bucket, running_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.web import Request


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with running_bucket() as server:
        yield server


def objects(bucket: Bucket, url: str = "s3://bucket/p/", **more: Any) -> Objects:
    config = ObjectStore(url=url, endpoint=bucket.url, **{"anonymous": True} | more)
    return connect(config, config.location, QUICK)


@pytest.fixture
def memory() -> MemoryStore:
    store = MemoryStore()
    for key in ("p/a", "p/d/b", "p", "q/c"):
        obstore.put(store, key, b"content of " + key.encode())
    return store


def test_a_list_names_what_is_below_the_prefix(memory: MemoryStore) -> None:
    listed = list(Objects(memory, parse("s3://bucket/p/")).list())
    assert [(found.path, found.key, found.size) for found in listed] == [(b"a", "p/a", 14), (b"d/b", "p/d/b", 16)]
    assert len({found.token for found in listed}) == 2
    whole = {found.path for found in Objects(memory, parse("s3://bucket/")).list()}
    assert whole == {b"p", b"p/a", b"p/d/b", b"q/c"}


def test_the_time_of_an_object_is_exact(bucket: Bucket) -> None:
    bucket.objects["p/a"] = b"x"
    (found,) = objects(bucket).list()
    assert found.mtime_ns == 1704067200 * 10**9


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("p/../x", "'p/../x'"),
        ("p/a//b", "'p/a//b'"),
        ("p/./b", "'p/./b'"),
        ("p/a\nb", r"'p/a\nb'"),
        ("!../x", "'../x'"),
    ],
)
def test_a_key_that_is_no_path_is_refused_by_name(bucket: Bucket, key: str, shown: str) -> None:
    bucket.objects[key] = b"x"
    with pytest.raises(UnsafeEntry) as caught:
        list(objects(bucket).list())
    assert f"has the key {shown}, which is no path inside of a tree" in str(caught.value)


def test_a_key_of_another_prefix_is_refused(bucket: Bucket) -> None:
    bucket.objects["!q/x"] = b"x"
    with pytest.raises(UnsafeEntry, match="lists the key 'q/x', which is not below it"):
        list(objects(bucket).list())


def test_pages_are_read_one_after_the_other(bucket: Bucket) -> None:
    bucket.objects = {f"p/{number:05}": b"x" for number in range(2500)}
    listing = objects(bucket).list()
    assert next(listing).path == b"00000"
    assert bucket.traffic is not None
    assert len(bucket.traffic.of()) <= 2
    assert len(list(listing)) == 2499
    assert len(bucket.traffic.of()) == 3


def test_an_object_is_read_whole_or_by_range_as_it_was_found(bucket: Bucket) -> None:
    bucket.objects["p/a b?#%20"] = b"0123456789"
    store = objects(bucket)
    (found,) = store.list()
    assert store.read(found) == b"0123456789"
    assert store.read(found, 3, 7) == b"3456"
    bucket.objects["p/a b?#%20"] = b"abcdefghij"
    for part in ((), (3, 7)):
        with pytest.raises(SourceChanged, match=r"s3://bucket/p/a b\?#%20 changed while it was read"):
            store.read(found, *part)
    del bucket.objects["p/a b?#%20"]
    with pytest.raises(Missing, match="does not exist"):
        store.read(found)


def test_a_store_that_ignores_conditions_is_noticed(bucket: Bucket) -> None:
    bucket.objects["p/a"] = b"0123456789"
    store = objects(bucket)
    (found,) = store.list()
    bucket.objects["p/a"] = b"abcdefghij"

    def unconditional(request: Request) -> bool:
        del request.headers["If-Match"]
        return False

    bucket.before = unconditional
    with pytest.raises(SourceChanged):
        store.read(found)


def test_a_single_object_is_described(bucket: Bucket) -> None:
    bucket.objects["d/a.tar"] = b"0123456789"
    found = objects(bucket, "s3://bucket/d/a.tar").head()
    assert (found.path, found.key, found.size, found.mtime_ns) == (b"a.tar", "d/a.tar", 10, 1704067200 * 10**9)
    with pytest.raises(Missing, match=r"s3://bucket/d/b\.tar does not exist: upload it, or correct the URL"):
        objects(bucket, "s3://bucket/d/b.tar").head()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "AuthorizationHeaderMalformed", "answers 400 Bad Request (AuthorizationHeaderMalformed): correct"),
        (401, "Unauthorized", "answers 401 Unauthorized (Unauthorized): give credentials that may list and read it"),
        (403, "AccessDenied", "answers 403 Forbidden (AccessDenied): give credentials that may list and read it"),
        (404, "NoSuchBucket", "answers 404 Not Found (NoSuchBucket): correct the bucket"),
        (429, "SlowDown", "answers 429 Too Many Requests (SlowDown): look at the service, or wait"),
        (503, "", "answers 503 Service Unavailable: look at the service, or wait"),
    ],
)
def test_a_refusal_says_what_to_do_and_nothing_of_the_answer(
    bucket: Bucket, status: int, code: str, expected: str
) -> None:
    asked = 0

    def refuse(request: Request) -> bool:
        nonlocal asked
        asked += 1
        request.reply(status, f"<Error><Code>{code}</Code><StringToSign>hunter2</StringToSign></Error>".encode())
        return True

    bucket.before = refuse
    with pytest.raises(SourceError) as caught:
        list(objects(bucket).list())
    assert f"s3://bucket/p/ {expected}" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert asked == (3 if status in {429, 503} else 1)  # who may be busy is asked again


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://127.0.0.1:1", "nothing listens there"),
        ("http://nowhere.invalid", "its host name is not known"),
    ],
)
def test_a_service_that_cannot_be_reached_is_named(endpoint: str, expected: str) -> None:
    config = ObjectStore(url="s3://bucket/p/", endpoint=endpoint, anonymous=True)
    with pytest.raises(SourceError, match=f"s3://bucket/p/ cannot be read: {expected}"):
        list(connect(config, config.location, QUICK).list())


def test_a_machine_without_an_identity_is_told_so(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", bucket.url)

    def know_nothing(request: Request) -> bool:
        request.reply(404, b"no")
        return True

    bucket.before = know_nothing
    with pytest.raises(SourceError, match="needs credentials, and neither the environment nor the machine has any"):
        list(objects(bucket, anonymous=False).list())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files of secrets, by name."""
    made = {}
    secret = base64.b64encode(b"hunter2").decode()
    for name, content in {"id": "AKIA", "secret": secret, "token": "tok", "sas": f"sv=1&sig={secret}"}.items():
        (tmp_path / name).write_text(content)
        made[name] = str(tmp_path / name)
    return made


def test_every_provider_gets_what_the_configuration_says(files: dict[str, str]) -> None:
    """Constructed only: Google's and Azure's services are not there to be asked."""
    s3 = ObjectStore(
        url="s3://bucket/p/",
        region="eu-north-1",
        credentials=ObjectCredentials(
            access_key_id_file=files["id"], secret_access_key_file=files["secret"], session_token_file=files["token"]
        ),
    )
    made = connect(s3, s3.location)._store
    assert isinstance(made, S3Store)
    assert (made.config["access_key_id"], made.config["session_token"]) == ("AKIA", "tok")
    assert made.config["region"] == "eu-north-1"
    assert str(made.config["virtual_hosted_style_request"]) == "true"
    gcs = ObjectStore(url="gs://bucket/p/", anonymous=True, endpoint="https://storage.example")
    made = connect(gcs, gcs.location)._store
    assert isinstance(made, GCSStore)
    assert made.config["base_url"] == "https://storage.example"
    assert str(made.config["skip_signature"]) == "true"
    for credentials in (
        ObjectCredentials(account_key_file=files["secret"]),
        ObjectCredentials(sas_token_file=files["sas"]),
    ):
        azure = ObjectStore(url="az://container/p/", account="acme", credentials=credentials)
        made = connect(azure, azure.location)._store
        assert isinstance(made, AzureStore)
        assert made.config["account_name"] == "acme"
        assert "hunter2" not in repr(made) + repr(azure)


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({}, "https://s3.eu.example:9000"),
        ({"path_style": False}, "https://bucket.s3.eu.example:9000"),
    ],
)
def test_the_bucket_is_in_the_path_or_in_the_host(more: dict[str, Any], url: str) -> None:
    config = ObjectStore(url="s3://bucket/p/", endpoint="https://s3.eu.example:9000", anonymous=True, **more)
    made = connect(config, config.location)._store
    assert isinstance(made, S3Store)
    assert made.config["endpoint"] == url


def test_what_cannot_be_set_up_is_a_mistake_of_the_configuration(tmp_path: Path, files: dict[str, str]) -> None:
    none = str(tmp_path / "none")
    (tmp_path / "no.pem").write_text("no certificate")
    (tmp_path / "bad").write_text("hunter2!")
    (tmp_path / "bad.json").write_text('{"hunter2')
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("s3://bucket/", {"ca": none}, "none cannot be used as `ca`"),
        ("s3://bucket/", {"ca": str(tmp_path / "no.pem")}, "No certificates found"),
        (
            "s3://bucket/",
            {"credentials": ObjectCredentials(access_key_id_file=none, secret_access_key_file=files["secret"])},
            "none cannot be read: No such file .* correct `accessKeyIdFile`",
        ),
        ("gs://bucket/", {"credentials": ObjectCredentials(service_account_file=none)}, "No such file"),
        ("gs://bucket/", {"credentials": ObjectCredentials(service_account_file=str(tmp_path / "bad.json"))}, "decode"),
        ("az://container/", {}, "Account must be specified"),
        (
            "az://container/",
            {"account": "acme", "credentials": ObjectCredentials(account_key_file=str(tmp_path / "bad"))},
            "Invalid Access Key",
        ),
    ]
    for url, more, reason in cases:
        config = ObjectStore(url=url, **more)
        with pytest.raises(ConfigError, match=reason) as caught:
            connect(config, config.location)
        assert "hunter2" not in str(caught.value)
