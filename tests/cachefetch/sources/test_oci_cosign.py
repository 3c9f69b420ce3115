"""Signatures as cosign makes them, made here with real keys, in a real registry."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.config import Cosign, ImageAuth, ImageVerify, Oci
from cachefetch.errors import ConfigError, DataError
from cachefetch.logs import fields_of
from cachefetch.sources.oci import OciSource
from cachefetch.sources.oci_cosign import check, fingerprint, is_signed_by, load_keys
from cachefetch.sources.oci_manifest import MANIFEST_MAX
from cachefetch.sources.oci_registry import Absent
from cachefetch.sources.web import Patience
from tests.servers.images import CONFIG, Layout, layer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachefetch.refresh import Refreshed
    from tests.cachefetch.sources.conftest import Fetched
    from tests.servers.registry import Registry

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

P256, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
KINDS: dict[str, PrivateKey] = {
    "ecdsa": P256,
    "rsa": rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
DIGEST = "sha256:" + "0a" * 32


def pem(key: PrivateKey | x25519.X25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(key: PrivateKey, payload: bytes) -> bytes:
    """As `cosign sign --key` does."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(payload, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(payload)


def claim(digest: str, **critical: Any) -> bytes:
    """The payload that cosign signs."""
    said = {
        "identity": {"docker-reference": "registry.example/team/app"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": said | critical, "optional": None}).encode()


class Signatures:
    """A repository in memory that has signatures only."""

    def __init__(self, *signed: tuple[bytes, bytes], kind: str = SIMPLE_SIGNING) -> None:
        self.blobs: dict[str, bytes] = {}
        layers = []
        for payload, signature in signed:
            digest = f"sha256:{hashlib.sha256(payload).hexdigest()}"
            self.blobs[digest] = payload
            notes = {SIGNATURE: base64.b64encode(signature).decode()}
            layers.append({"mediaType": kind, "digest": digest, "size": len(payload), "annotations": notes})
        self.document: dict[str, Any] = {"schemaVersion": 2, "layers": layers}
        self.document["config"] = {"digest": DIGEST, "size": 2}
        self.asked: list[str] = []

    def manifest(self, wanted: str) -> tuple[bytes, str]:
        self.asked.append(wanted)
        return json.dumps(self.document).encode(), DIGEST

    def blob(self, digest: str, limit: int) -> bytes:
        assert len(self.blobs[digest]) <= limit <= MANIFEST_MAX
        return self.blobs[digest]


class Unsigned(Signatures):
    def manifest(self, wanted: str) -> tuple[bytes, str]:
        raise Absent(wanted)


def verify(*keys: str, require: bool = True) -> ImageVerify:
    return ImageVerify(cosign=Cosign(keys=keys), require=require)


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_signature_of_each_kind_of_key_is_good(kind: str) -> None:
    payload = claim(DIGEST)
    repository = Signatures((payload, sign(KINDS[kind], payload)))
    check(repository, DIGEST, verify(pem(KINDS[kind])), "it")
    assert repository.asked == [DIGEST.replace(":", "-") + ".sig"]


def test_one_good_signature_of_one_key_is_enough() -> None:
    payload = claim(DIGEST)
    repository = Signatures((payload, sign(OTHER, payload)), (payload, b"x"), (payload, sign(P256, payload)))
    check(repository, DIGEST, verify(pem(KINDS["rsa"]), pem(P256)), "it")


SIGNED = claim(DIGEST)
BAD = {
    "none": Unsigned(),
    "no layers": Signatures(),
    "another key": Signatures((SIGNED, sign(OTHER, SIGNED))),
    "another image": Signatures((claim("sha256:" + "0b" * 32), sign(P256, claim("sha256:" + "0b" * 32)))),
    "another payload": Signatures((claim(DIGEST, identity={}), sign(P256, SIGNED))),
    "another type": Signatures((claim(DIGEST, type="x"), sign(P256, claim(DIGEST, type="x")))),
    "another media type": Signatures((SIGNED, sign(P256, SIGNED)), kind="text/plain"),
    "no json": Signatures((b"{", sign(P256, b"{"))),
    "not about an image": Signatures((b"{}", sign(P256, b"{}"))),
    "empty": Signatures((SIGNED, b"")),
}


@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_refused_naming_image_and_key(case: str, tmp_path: Path) -> None:
    key = tmp_path / "cosign.pub"
    key.write_text(pem(P256))
    with pytest.raises(DataError, match=rf"^it@{DIGEST} is not trusted: .* by {key}; sign it"):
        check(BAD[case], DIGEST, verify(str(key)), "it")


@pytest.mark.parametrize("notes", [None, {}, {SIGNATURE: "not base64!"}, {"other": "x"}])
def test_a_layer_without_a_signature_is_none(notes: dict[str, str] | None) -> None:
    repository = Signatures((SIGNED, sign(P256, SIGNED)))
    repository.document["layers"][0]["annotations"] = notes
    with pytest.raises(DataError, match="it has no signature by key"):
        check(repository, DIGEST, verify(pem(P256)), "it")


COSIGN_KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEDNhd97zKIyHyKu4fnuygUw0dpnkb
YUPjlOtT4WHUOwSt/wFHJzjbfyen+d3YgW2yg+FP66sluUeKD7MKHHDPdQ==
-----END PUBLIC KEY-----
"""
COSIGN_SIGNATURE = "MEUCIGUBm6hjE0qhYs1b+YX4Vyt4/ZO1N4OAfpXiB0MbJqTLAiEAgOAXghwywHTUXH25xvyjKujI8rfsK+FIxlvYMVACy40="
COSIGN_DIGEST = "sha256:0597a5d499f1b3f2695c6ccad230703ba25eb3d319f9f93ba0cf42ae59259234"
COSIGN_PAYLOAD = (
    '{"critical":{"identity":{"docker-reference":"127.0.0.1:45395/team/app"},"image":{"docker-manifest-digest":"'
    + COSIGN_DIGEST
    + '"},"type":"cosign container image signature"},"optional":null}'
).encode()


def test_what_cosign_itself_made_is_good() -> None:
    """Key pair, payload and signature are those of cosign 2.4.3: `generate-key-pair`, then `sign --key`."""
    repository = Signatures((COSIGN_PAYLOAD, base64.b64decode(COSIGN_SIGNATURE)))
    check(repository, COSIGN_DIGEST, verify(COSIGN_KEY), "it")
    with pytest.raises(DataError, match="is not trusted"):
        check(repository, DIGEST, verify(COSIGN_KEY), "it")
    with pytest.raises(DataError, match="is not trusted"):
        check(repository, COSIGN_DIGEST, verify(pem(P256)), "it")


@given(st.binary(max_size=80), st.sampled_from(sorted(KINDS)))
def test_no_other_bytes_are_a_signature(signature: bytes, kind: str) -> None:
    (key,) = load_keys([pem(KINDS[kind])])
    assert not is_signed_by(b"payload", signature, key.public)


def test_without_require_it_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    check(Unsigned(), DIGEST, verify(pem(P256), require=False), "it")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "is not trusted" in str(fields_of(record)["error"])


def test_keys_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.pub").write_text("x")
    (tmp_path / "x25519.pub").write_text(pem(x25519.X25519PrivateKey.generate()))
    inline = "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----"
    for key, reason in [
        (str(tmp_path / "none.pub"), r"none\.pub cannot be read as a public key: No such file"),
        (str(tmp_path / "x.pub"), r"x\.pub is no public key in PEM"),
        (str(tmp_path / "x25519.pub"), r"x25519\.pub is no ECDSA, RSA or Ed25519 key"),
        (inline, r"a key of `verify\.cosign\.keys` is no public key in PEM"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            load_keys([key])


def test_what_must_be_proven_has_a_name_that_changes_with_it(tmp_path: Path) -> None:
    key = tmp_path / "cosign.pub"
    names = [fingerprint(None), fingerprint(verify(pem(P256), require=False)), fingerprint(verify(pem(P256)))]
    for content in (P256, OTHER):
        key.write_text(pem(content))
        names.append(fingerprint(verify(str(key))))
    assert names[2] == names[3]
    assert len(set(names)) == 4


# In a real registry


@pytest.fixture
def signed(registry: Registry, tmp_path: Path) -> Callable[[PrivateKey | None], str]:
    """Pushes an image with a file that is new each time, signed by a key or not; its reference."""
    count = 0

    def push(key: PrivateKey | None) -> str:
        nonlocal count
        count += 1
        layout = Layout(tmp_path / f"image-{count}")
        image = layout.image([layer({"a": b"%d" % count})])
        layout.tag(image)
        registry.push(layout, "team/app:v1")
        if key:
            payload = claim(str(image["digest"]))
            signatures = Layout(tmp_path / f"signatures-{count}")
            notes = {SIGNATURE: base64.b64encode(sign(key, payload)).decode()}
            blob = {**signatures.blob(SIMPLE_SIGNING, payload), "annotations": notes}
            signatures.tag(signatures.manifest(signatures.json(CONFIG, {}), [blob]))
            registry.push(signatures, f"team/app:{str(image['digest']).replace(':', '-')}.sig")
        return f"{registry.host}/team/app:v1"

    return push


@pytest.fixture
def refresh(registry: Registry, fetched: Fetched, tmp_path: Path) -> Callable[[str, str], Refreshed]:
    """Refreshes from an image that must be signed by a key."""
    auth = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))

    def go(image: str, key: str) -> Refreshed:
        config = Oci(image=image, auth=ImageAuth(docker_config=str(tmp_path)), verify=verify(key))
        return fetched.refresh(config, OciSource(config, lambda: Patience(lambda _: None)))

    return go


def test_a_signed_image_is_published_and_no_other(
    signed: Callable[[PrivateKey | None], str], refresh: Callable[[str, str], Refreshed], fetched: Fetched
) -> None:
    refresh(signed(P256), pem(P256))
    assert (fetched.tree / "a").read_bytes() == b"1"
    with pytest.raises(DataError, match=r"team/app:v1@sha256:.* is not trusted: it has no signature by key "):
        refresh(signed(None), pem(P256))
    with pytest.raises(DataError, match="none of its 1 signatures is by key "):
        refresh(signed(OTHER), pem(P256))
    assert (fetched.tree / "a").read_bytes() == b"1"
    refresh(signed(P256), pem(P256))
    assert (fetched.tree / "a").read_bytes() == b"4"


def test_an_image_that_was_trusted_is_checked_again_with_a_new_key(
    signed: Callable[[PrivateKey | None], str], refresh: Callable[[str, str], Refreshed], tmp_path: Path
) -> None:
    image, key = signed(P256), tmp_path / "cosign.pub"
    key.write_text(pem(P256))
    assert refresh(image, str(key)).changed
    assert not refresh(image, str(key)).changed
    key.write_text(pem(OTHER))
    with pytest.raises(DataError, match="is not trusted"):
        refresh(image, str(key))
