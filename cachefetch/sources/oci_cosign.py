"""Signatures that `cosign sign --key` puts beside an image, checked with public keys of the configuration.

Sources of the rules: cosign's "Signature Specification" (specs/SIGNATURE_SPEC.md) and the "simple signing" payload of
the containers project. The signatures of the image with digest `sha256:X` are the layers of the tag `sha256-X.sig`:
each is a payload that names the image's digest, and carries the signature of the payload's bytes as an annotation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from cachefetch.decoding import UNREADABLE
from cachefetch.errors import ConfigError, DataError
from cachefetch.logs import fields
from cachefetch.sources.oci_manifest import Manifest, decode
from cachefetch.sources.oci_registry import Absent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cachefetch.config import ImageVerify
    from cachefetch.sources.oci_manifest import Descriptor

_log = logging.getLogger(__name__)

_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"
_PAYLOAD_MAX = 1 << 20
_SIGNATURES_MAX = 100
"""Each costs a request; more signers than anybody has."""

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Repository(Protocol):
    """Where the signatures are (`oci_registry.Registry`)."""

    def manifest(self, wanted: str) -> tuple[bytes, str]:
        """The manifest that a tag names, and its digest; raises Absent when there is none."""
        ...

    def blob(self, digest: str, limit: int) -> bytes:
        """A blob of at most `limit` bytes."""
        ...


class Key(NamedTuple):
    """A public key."""

    name: str
    """For people: the file it is in, or the start of its digest."""
    fingerprint: str
    public: PublicKey


class _Image(msgspec.Struct, frozen=True, rename="kebab"):
    docker_manifest_digest: str


class _Critical(msgspec.Struct, frozen=True):
    image: _Image
    type: str


class _Claim(msgspec.Struct, frozen=True):
    critical: _Critical


def load_keys(keys: Sequence[str]) -> list[Key]:
    """The public keys, each given as PEM or as path of a PEM file.

    Raises:
        ConfigError: one cannot be read, or is of a kind that cosign does not sign with.
    """
    return [_load(key) for key in keys]


def fingerprint(verify: ImageVerify | None) -> str:
    """A name for what an image must prove: other keys, also in a file of the same name, give another."""
    if verify is None:
        return ""
    prints = [str(verify.require), *(key.fingerprint for key in load_keys(verify.cosign.keys))]
    return hashlib.sha256(" ".join(prints).encode()).hexdigest()


def check(repository: Repository, digest: str, verify: ImageVerify, name: str) -> None:
    """Return if the image called `name` with this digest has a good signature, or need not have one.

    Raises:
        ConfigError: a key cannot be used.
        DataError: a signature is required, and none is good.
        SourceError: the registry cannot be reached or refuses.
    """
    keys = load_keys(verify.cosign.keys)
    shown = ", ".join(key.name for key in keys)
    seen = 0
    for payload, signature in _signatures(repository, digest, name):
        seen += 1
        for key in keys:
            if is_signed_by(payload, signature, key.public) and _claimed(payload) == digest:
                _log.info("signature", extra=fields(image=name, digest=digest, key=key.name))
                return
    what = f"none of its {seen} signatures is by" if seen else "it has no signature by"
    text = f"{name}@{digest} is not trusted: {what} {shown}; sign it with cosign, or correct `verify.cosign.keys`"
    if verify.require:
        raise DataError(text)
    _log.warning("signature", extra=fields(image=name, digest=digest, error=text))


def is_signed_by(payload: bytes, signature: bytes, key: PublicKey) -> bool:
    """Whether the signature of the payload is by that key."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, payload)
    except InvalidSignature:
        return False
    return True


def _signatures(repository: Repository, digest: str, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Payload and signature of each signature there is."""
    try:
        data, _ = repository.manifest(f"{digest.replace(':', '-')}.sig")
    except Absent:
        return
    manifest = decode(data, f"the signature of {name}")
    layers = manifest.layers if isinstance(manifest, Manifest) else ()
    for layer in [layer for layer in layers if layer.media_type == _PAYLOAD][:_SIGNATURES_MAX]:
        if signature := _decoded(layer):
            yield repository.blob(layer.digest, min(layer.size, _PAYLOAD_MAX)), signature


def _decoded(layer: Descriptor) -> bytes:
    """The signature in a layer's annotation; empty when there is none."""
    try:
        return base64.b64decode((layer.annotations or {}).get(_SIGNATURE, ""), validate=True)
    except binascii.Error:
        return b""


def _claimed(payload: bytes) -> str:
    """The digest of the image that a payload is about; empty when it is about something else."""
    try:
        critical = msgspec.json.decode(payload, type=_Claim).critical
    except UNREADABLE:
        return ""
    return critical.image.docker_manifest_digest if critical.type == _TYPE else ""


def _load(key: str) -> Key:
    inline = key.lstrip().startswith("-----")
    try:
        public = load_pem_public_key(key.encode() if inline else Path(key).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{key} cannot be read as a public key: {error.strerror}; correct `verify.cosign.keys`"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{_shown(key)} is no public key in PEM: write it with cosign public-key") from error
    if not isinstance(public, PublicKey):
        raise ConfigError(f"{_shown(key)} is no ECDSA, RSA or Ed25519 key: use one that cosign signs with")
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(der).hexdigest()
    return Key(f"key {digest[:12]}" if inline else key, digest, public)


def _shown(key: str) -> str:
    return "a key of `verify.cosign.keys`" if key.lstrip().startswith("-----") else key
