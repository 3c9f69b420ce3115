from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.config import Config, Directory, Http, ImageLayout, Oci, Prefetch, PrivateView, Refresh, load, parse
from cachefetch.errors import ConfigError
from cachefetch.units import Duration
from cachefetch.urls import Format

if TYPE_CHECKING:
    from pathlib import Path

FULL = """
caches:
  - name: node-modules
    source: {type: http, url: "https://h/node_modules.tar.zst", digest: "sha256:%s"}
    refresh: {interval: 5m}
    retain: 2
    access: {namespaces: ["team-*"], serviceAccounts: ["ci/builder"]}
    private: overlay
    privateMaxBytes: 16Mi
    pool: 4
    prefetch: onDemand
    nodeSelector: {disk: ssd}
    maxBytes: 50Gi
  - name: tools
    source: {type: directory, path: /srv/tools}
    refresh: {manual: true}
    maxBytes: 1000
  - name: plain
    source: {type: http, url: "https://h/x?y=1", format: tar.gz, sha256sums: "https://h/SHA256SUMS"}
""" % ("0a" * 32)


def one(**changes: object) -> str:
    """A file with one cache of the minimal form, with `changes`."""
    cache: dict[str, object] = {"name": "a", "source": {"type": "directory", "path": "/x"}} | changes
    return yaml.safe_dump({"caches": [cache]})


def fail(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def test_every_key_arrives() -> None:
    first, second, third = parse(FULL).caches
    assert first.name == "node-modules"
    assert first.source == Http(url="https://h/node_modules.tar.zst", digest="sha256:" + "0a" * 32)
    assert first.source.kind is Format.TAR_ZST
    assert first.refresh == Refresh(interval=Duration(300))
    assert (first.retain, first.pool, first.max_bytes) == (2, 4, 50 * 2**30)
    assert first.access.namespaces == ("team-*",)
    assert first.access.service_accounts == ("ci/builder",)
    assert (first.private, first.private_max_bytes) == (PrivateView.OVERLAY, 16 * 2**20)
    assert first.prefetch is Prefetch.ON_DEMAND
    assert first.node_selector == {"disk": "ssd"}
    assert second.source == Directory(path="/srv/tools")
    assert (second.refresh.manual, second.refresh.interval, second.max_bytes) == (True, None, 1000)
    assert isinstance(third.source, Http)
    assert (third.source.kind, third.source.sha256sums) == (Format.TAR_GZ, "https://h/SHA256SUMS")


def test_defaults() -> None:
    (cache,) = parse(one()).caches
    assert (cache.refresh, cache.retain, cache.pool) == (Refresh(interval=Duration(300)), 2, 2)
    assert (cache.access.namespaces, cache.private, cache.private_max_bytes) == (("*",), None, None)
    assert cache.max_bytes is None
    assert (cache.prefetch, cache.node_selector) == (Prefetch.ALWAYS, {})


def test_no_caches_is_a_configuration() -> None:
    assert parse("caches: []") == Config(caches=())


HTTP = {"type": "http", "url": "https://h/a.tar"}
OCI = {"type": "oci", "image": "registry.example/a:b"}

IMAGE = """
caches:
  - name: tools
    source:
      type: oci
      image: registry.example/team/app:tag
      platform: linux/arm/v6
      layout: rootfs
      auth: {dockerConfig: /var/run/secrets/pull}
      mirrors: ["https://mirror.example/", "http://127.0.0.1:30020"]
      ca: /etc/ca.pem
      plainHttp: false
      verify:
        cosign:
          keys:
            - /etc/cosign.pub
            - |
              -----BEGIN PUBLIC KEY-----
              x
              -----END PUBLIC KEY-----
        require: false
"""


def test_every_key_of_an_image_arrives() -> None:
    (cache,) = parse(IMAGE).caches
    source = cache.source
    assert isinstance(source, Oci)
    assert (source.image, source.platform) == ("registry.example/team/app:tag", "linux/arm/v6")
    assert source.layout is ImageLayout.ROOTFS
    assert source.auth is not None
    assert source.auth.docker_config == "/var/run/secrets/pull"
    assert source.mirrors == ("https://mirror.example/", "http://127.0.0.1:30020")
    assert (source.ca, source.plain_http, source.base) == ("/etc/ca.pem", False, "https://registry.example")
    assert source.verify is not None
    assert (len(source.verify.cosign.keys), source.verify.require) == (2, False)


def test_an_image_needs_its_name_only() -> None:
    (cache,) = parse(one(source=OCI)).caches
    source = cache.source
    assert isinstance(source, Oci)
    assert (source.platform, source.layout, source.auth, source.mirrors) == (None, ImageLayout.AUTO, None, ())
    assert (source.ca, source.plain_http, source.verify) == (None, None, None)


@pytest.mark.parametrize(
    ("image", "more", "base"),
    [
        ("nginx", {}, "https://registry-1.docker.io"),
        ("localhost:5000/a", {}, "http://localhost:5000"),
        ("localhost:5000/a", {"ca": "/ca.pem"}, "https://localhost:5000"),
        ("localhost:5000/a", {"plainHttp": False}, "https://localhost:5000"),
        ("registry.example/a", {"plainHttp": True}, "http://registry.example"),
    ],
)
def test_only_loopback_is_asked_without_tls_by_itself(image: str, more: dict[str, object], base: str) -> None:
    (cache,) = parse(one(source={"type": "oci", "image": image, **more})).caches
    assert isinstance(cache.source, Oci)
    assert cache.source.base == base


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "A"}, "caches[0].name: cache name 'A' is not allowed"),
        ({"name": "../x"}, "caches[0].name: cache name"),
        (
            {"sourc": 1},
            "caches[0].sourc: unknown key, allowed are access, maxBytes, name, nodeSelector, pool, prefetch, private,",
        ),
        ({"node_selector": {}}, "caches[0].node_selector: unknown key"),
        (
            {"source": {"type": "ftp"}},
            "caches[0].source.type: Invalid value 'ftp', allowed are directory, http, objectstore, oci, huggingface",
        ),
        ({"source": {"path": "/x"}}, "caches[0].source.type: is missing"),
        ({"source": {"type": "directory"}}, "caches[0].source.path: is missing"),
        ({"source": {"type": "directory", "path": "x"}}, "caches[0].source.path: 'x' is not an absolute path"),
        (
            {"source": {"type": "directory", "path": "/x", "url": ""}},
            "caches[0].source.url: unknown key, allowed are path, type",
        ),
        ({"source": HTTP | {"url": "ftp://h/x.tar"}}, "caches[0].source.url: ftp://h/x.tar cannot be fetched"),
        ({"source": HTTP | {"url": "https://h/"}}, "caches[0].source.url: https://h/ does not end in a file name"),
        ({"source": HTTP | {"digest": "sha256:00"}}, "caches[0].source.digest: 'sha256:00' is not a digest"),
        ({"source": HTTP | {"digest": ""}}, "caches[0].source.digest: '' is not a digest"),
        ({"source": HTTP | {"digest": "sha256:" + "A" * 64}}, "caches[0].source.digest: "),
        ({"source": HTTP | {"sha256sums": "x"}}, "caches[0].source.sha256sums: "),
        (
            {"source": HTTP | {"sha256sums": "http://h/s", "digest": "sha256:" + "a" * 64}},
            "caches[0].source.sha256sums: stands beside",
        ),
        (
            {"source": HTTP | {"format": "rar"}},
            "caches[0].source.format: Invalid enum value 'rar', allowed are tar, tar.gz, tar.zst,",
        ),
        ({"source": OCI | {"image": "A:b:c"}}, "caches[0].source.image: 'A:b:c' is not the name of an image"),
        ({"source": OCI | {"platform": "amd64"}}, "caches[0].source.platform: 'amd64' is not a platform"),
        ({"source": OCI | {"layout": "flat"}}, "caches[0].source.layout: Invalid enum value 'flat', allowed are auto,"),
        ({"source": OCI | {"auth": {}}}, "caches[0].source.auth.dockerConfig: is missing"),
        ({"source": OCI | {"auth": {"dockerConfig": "x"}}}, "caches[0].source.auth.dockerConfig: 'x' is not an abs"),
        ({"source": OCI | {"mirrors": ["https://m", "m"]}}, "caches[0].source.mirrors[1]: "),
        ({"source": OCI | {"mirrors": ["https://m?x"]}}, "caches[0].source.mirrors[0]: https://m?*** has more than"),
        ({"source": OCI | {"ca": "ca.pem"}}, "caches[0].source.ca: 'ca.pem' is not an absolute path"),
        ({"source": OCI | {"ca": "/ca", "plainHttp": True}}, "caches[0].source.ca: stands beside 'plainHttp: true'"),
        ({"source": OCI | {"verify": {"cosign": {"keys": []}}}}, "caches[0].source.verify.cosign.keys: is empty"),
        (
            {"source": OCI | {"verify": {"cosign": {"keys": ["/k", "k"]}}}},
            "caches[0].source.verify.cosign.keys[1]: 'k' is not an absolute path",
        ),
        ({"refresh": {}}, "caches[0].refresh: needs exactly one of"),
        ({"refresh": {"manual": False}}, "caches[0].refresh: needs exactly one of"),
        ({"refresh": {"manual": True, "interval": "5m"}}, "caches[0].refresh: needs exactly one of"),
        ({"refresh": {"interval": "5x"}}, "caches[0].refresh.interval: '5x' is not a duration"),
        ({"refresh": {"interval": 300}}, "caches[0].refresh.interval: 300 is not a duration"),
        ({"retain": 0}, "caches[0].retain: 0 would drop every version"),
        ({"retain": "2"}, "caches[0].retain: Expected a whole number, got text"),
        ({"retain": True}, "caches[0].retain: Expected a whole number, got true or false"),
        ({"pool": -1}, "caches[0].pool: -1 is below 0"),
        (
            {"private": "fast"},
            "caches[0].private: Invalid enum value 'fast', allowed are overlay",
        ),
        ({"privateMaxBytes": "1Gi"}, "caches[0].privateMaxBytes: bounds private views, and none are allowed"),
        (
            {"private": "overlay", "privateMaxBytes": "15Mi"},
            "caches[0].privateMaxBytes: 15728640 is less than a file system needs: write at least '16Mi'",
        ),
        ({"prefetch": "never"}, "caches[0].prefetch: Invalid enum value 'never', allowed are always, onDemand"),
        ({"nodeSelector": {"gpu": True}}, "caches[0].nodeSelector[...]: Expected text, got true or false"),
        ({"maxBytes": "50GiB"}, "caches[0].maxBytes: '50GiB' is not a size"),
        ({"maxBytes": 0}, "caches[0].maxBytes: 0 is not a size"),
        ({"maxBytes": None}, "caches[0].maxBytes: has no value"),
        ({"access": None}, "caches[0].access: has no value"),
        ({"access": {}}, "caches[0].access: admits nobody"),
        ({"access": {"namespaces": []}}, "caches[0].access: admits nobody"),
        ({"access": {"namespaces": "x"}}, "caches[0].access.namespaces: Expected a list, got text"),
        (
            {"access": {"namespaces": ["a", "team-[ab]"]}},
            "caches[0].access.namespaces[1]: 'team-[ab]' matches no namespace",
        ),
        (
            {"access": {"serviceAccounts": ["ci"]}},
            "caches[0].access.serviceAccounts[0]: 'ci' matches no service account",
        ),
        ({"access": {"serviceAccounts": ["a/b/c"]}}, "caches[0].access.serviceAccounts[0]: "),
        ({"access": {"serviceAccounts": ["/b"]}}, "caches[0].access.serviceAccounts[0]: "),
    ],
)
def test_a_mistake_is_refused_with_the_path_of_its_key(changes: dict[str, object], expected: str) -> None:
    assert fail(one(**changes)).startswith(expected)


def test_a_name_twice_is_refused() -> None:
    cache = {"name": "a", "source": {"type": "directory", "path": "/x"}}
    text = yaml.safe_dump({"caches": [cache, cache | {"name": "b"}, cache]})
    assert fail(text).startswith("caches[2].name: 'a' is already the name of caches[0]")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://me:hunter2@h/x",
        "http://me:hunter2@h:99999/x",
        "http://me:hunter2@h/ /x",
        "http://me:hunter2@h/",
        "me:hunter2@h",
    ],
)
def test_a_password_in_a_url_is_never_shown(url: str) -> None:
    error = fail(one(source={"type": "http", "url": url}))
    assert error.startswith("caches[0].source.url: ")
    assert "hunter2" not in error


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.sampled_from(["directory", "http", "/x", "http://h/x"]),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["name", "source", "type", "path", "url", "access", "namespaces", "refresh", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    )
)
def test_any_data_is_a_configuration_or_a_configuration_error(data: object) -> None:
    try:
        assert isinstance(parse(yaml.safe_dump({"caches": [data]})), Config)
    except ConfigError as error:
        assert str(error).startswith("caches[0]")


def test_load_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(FULL)
    assert load(path) == parse(FULL)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file or directory"):
        load(tmp_path / "none.yaml")


def test_importing_the_configuration_imports_no_network() -> None:
    unwanted = ("httpx2", "grpc", "cachefetch.sources")
    code = f"import sys, cachefetch.config; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
