from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import yaml

from cachefetch.config import AnySource, parse
from cachefetch.errors import ConfigError
from cachefetch.sourceconfig import Http, HuggingFace, ObjectStore, RepoType
from cachefetch.urls import Format
from tests.cachefetch.test_minisign import KEY


def read(**source: object) -> AnySource:
    (cache,) = parse(yaml.safe_dump({"caches": [{"name": "a", "source": source}]})).caches
    return cache.source


def http(**more: object) -> AnySource:
    return read(**{"type": "http", "url": "https://h/a.tar"} | more)


def objects(url: str = "s3://bucket/p/", **more: object) -> AnySource:
    return read(type="objectstore", url=url, **more)


def hub(**more: object) -> AnySource:
    return read(**{"type": "huggingface", "repo": "owner/name"} | more)


def test_every_key_of_http_arrives() -> None:
    source = http(
        auth={"username": "me", "passwordFile": "/p"},
        ca="/ca.pem",
        verify={"minisign": {"keys": [KEY, "/keys/a.pub"], "signature": "https://h/a.sig"}, "require": False},
    )
    assert isinstance(source, Http)
    assert source.auth is not None
    assert (source.auth.username, source.auth.password_file, source.ca) == ("me", "/p", "/ca.pem")
    assert source.verify is not None
    assert source.verify.minisign.keys == (KEY, "/keys/a.pub")
    assert (source.verify.require, source.signature) == (False, "https://h/a.sig")


def test_the_signature_is_beside_the_file_whatever_query_its_url_has() -> None:
    source = http(url="https://h/d/a.tar?token=x", verify={"minisign": {"keys": [KEY]}})
    assert isinstance(source, Http)
    assert source.signature == "https://h/d/a.tar.minisig?token=x"
    assert source.verify is not None
    assert source.verify.require


def test_every_key_of_an_object_store_arrives() -> None:
    source = objects(
        endpoint="https://minio.example:9000",
        region="eu-north-1",
        pathStyle=False,
        ca="/ca.pem",
        credentials={"accessKeyIdFile": "/id", "secretAccessKeyFile": "/key", "sessionTokenFile": "/token"},
    )
    assert isinstance(source, ObjectStore)
    assert (source.endpoint, source.region, source.path_style) == ("https://minio.example:9000", "eu-north-1", False)
    assert source.credentials is not None
    assert source.credentials.given() == {
        "accessKeyIdFile": "/id",
        "secretAccessKeyFile": "/key",
        "sessionTokenFile": "/token",
    }
    assert source.location.tree
    single = objects("az://ckt/a.tar.zst", account="acme", anonymous=True, verify={"minisign": {"keys": [KEY]}})
    assert isinstance(single, ObjectStore)
    assert (single.account, single.anonymous, single.kind) == ("acme", True, Format.TAR_ZST)
    assert single.signature.url == "az://ckt/a.tar.zst.minisig"
    with_format = objects("gs://bkt/download", format="zip", credentials={"serviceAccountFile": "/sa.json"})
    assert isinstance(with_format, ObjectStore)
    assert with_format.kind is Format.ZIP


def test_every_key_of_the_hub_arrives() -> None:
    source = hub(
        repoType="dataset",
        revision="refs/pr/1",
        allow=["*.json", "data/"],
        ignore=["*.bin"],
        tokenFile="/token",
        endpoint="https://hub.example",
        ca="/ca.pem",
    )
    assert isinstance(source, HuggingFace)
    assert (source.repo_type, source.revision, source.token_file) == (RepoType.DATASET, "refs/pr/1", "/token")
    assert (source.allow, source.ignore) == (("*.json", "data/"), ("*.bin",))
    assert (source.endpoint, source.ca) == ("https://hub.example", "/ca.pem")
    default = hub(repo="gpt2")
    assert isinstance(default, HuggingFace)
    assert (default.repo_type, default.revision, default.allow) == (RepoType.MODEL, "main", ())


@pytest.mark.parametrize(
    ("more", "key", "reason"),
    [
        ({"auth": {}}, "auth", "needs exactly one of"),
        ({"auth": {"bearerFile": "/a", "netrcFile": "/b"}}, "auth", "needs exactly one of"),
        ({"auth": {"username": "me"}}, "auth", "has only one of"),
        ({"auth": {"passwordFile": "/a"}}, "auth", "has only one of"),
        ({"auth": {"bearerFile": "token"}}, "auth.bearerFile", "is not an absolute path"),
        ({"auth": {"username": "a:b", "passwordFile": "/a"}}, "auth.username", "has a colon"),
        ({"auth": {"token": "hunter2"}}, "auth.token", "unknown key"),
        ({"url": "https://me:hunter2@h/a", "auth": {"netrcFile": "/a"}}, "auth", "stands beside a login in 'url'"),
        ({"ca": "ca.pem"}, "ca", "is not an absolute path"),
        ({"verify": {}}, "verify.minisign", "is missing"),
        ({"verify": {"minisign": {"keys": []}}}, "verify.minisign.keys", "is empty"),
        ({"verify": {"minisign": {"keys": ["k.pub"]}}}, "verify.minisign.keys[0]", "is not a public key"),
        ({"verify": {"minisign": {"keys": [KEY], "signature": "a.sig"}}}, "verify.minisign.signature", "cannot be"),
    ],
)
def test_what_is_wrong_with_http_is_named(more: dict[str, object], key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        http(**more)
    assert str(caught.value).startswith(f"caches[0].source.{key}: ")
    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)


S3 = {"accessKeyIdFile": "/id", "secretAccessKeyFile": "/key"}
SIGNED = {"minisign": {"keys": [KEY]}}


@pytest.mark.parametrize(
    ("url", "more", "key", "reason"),
    [
        ("https://h/b", {}, "url", "is not a place in an object store"),
        ("s3://bkt/../x", {}, "url", "has a key that is no path"),
        ("s3://bkt/", {"endpoint": "https://me:hunter2@h"}, "endpoint", "without a login"),
        ("s3://bkt/", {"format": "tar"}, "format", "is for a single object"),
        ("s3://bkt/", {"verify": SIGNED}, "verify", "is for a single object"),
        ("s3://bkt/a", {"verify": {"minisign": {"keys": [KEY], "signature": "s3://ckt/a"}}},
         "verify.minisign.signature", "is not in the bucket"),
        ("s3://bkt/a", {"verify": {"minisign": {"keys": [KEY], "signature": "https://h/a"}}},
         "verify.minisign.signature", "is not a place"),
        ("gs://bkt/", {"region": "eu"}, "region", "is for s3:// only"),
        ("az://bkt/", {"pathStyle": False}, "pathStyle", "is for s3:// only"),
        ("s3://bkt/", {"account": "a"}, "account", "is for az:// only"),
        ("s3://bkt/", {"anonymous": True, "credentials": S3}, "credentials", "stands beside 'anonymous: true'"),
        ("s3://bkt/", {"credentials": {"accessKeyIdFile": "/id"}}, "credentials", "is not a login for s3://"),
        ("gs://bkt/", {"credentials": S3}, "credentials", "is not a login for gs://: give {serviceAccountFile}"),
        ("az://bkt/", {"credentials": {}}, "credentials", "{accountKeyFile} or {sasTokenFile}"),
        ("s3://bkt/", {"credentials": {**S3, "accessKeyIdFile": "id"}}, "credentials.accessKeyIdFile", "absolute path"),
        ("s3://bkt/", {"ca": "ca.pem"}, "ca", "is not an absolute path"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_object_store_is_named(url: str, more: dict[str, object], key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        objects(url, **more)
    assert str(caught.value).startswith(f"caches[0].source.{key}: ")
    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "key", "reason"),
    [
        ({"repo": "a/b/c"}, "repo", "is not a repository"),
        ({"repo": "../b"}, "repo", "is not a repository"),
        ({"repo": "a/.."}, "repo", "is not a repository"),
        ({"repoType": "modle"}, "repoType", "allowed are model, dataset, space"),
        ({"revision": ""}, "revision", "is not a revision"),
        ({"allow": [""]}, "allow[0]", "matches no path"),
        ({"ignore": ["/a"]}, "ignore[0]", "matches no path"),
        ({"tokenFile": "token"}, "tokenFile", "is not an absolute path"),
        ({"endpoint": "hub"}, "endpoint", "cannot be fetched"),
        ({"ca": "ca.pem"}, "ca", "is not an absolute path"),
    ],
)
def test_what_is_wrong_with_a_hub_is_named(more: dict[str, object], key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hub(**more)
    assert str(caught.value).startswith(f"caches[0].source.{key}: ")
    assert reason in str(caught.value)


def test_a_printed_source_shows_no_login_of_a_url() -> None:
    source = http(url="https://me:hunter2@h/a?signature=hunter3", sha256sums="https://me:hunter4@h/sums")
    assert "hunter" not in repr(source)
    assert "https://***@h/a?***" in repr(source)


def test_the_examples_of_the_documentation_are_configurations_of_every_kind() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    kinds = {type(cache.source) for example in examples for cache in parse(example).caches}
    assert kinds == set(get_args(AnySource))


def test_the_documentation_names_every_key() -> None:
    """Those of nested mappings as well."""
    text = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    missing = [key for kind in get_args(AnySource) for key in keys(kind) if not re.search(rf"\b{key}\b", text)]
    assert missing == []


def keys(kind: type) -> list[str]:
    found = []
    for field in msgspec.structs.fields(kind):
        found.append(field.encode_name)
        for part in (field.type, *get_args(field.type)):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                found += keys(part)
    return found
