"""Whether a file is signed by one of the keys that the administrator trusts, with minisign's signatures.

Source: "Signature format" of minisign's documentation. The signature covers the file or its BLAKE2b-512; a second one
covers the first and the trusted comment, so neither can be exchanged for another.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cachefetch.errors import ConfigError, DataError
from cachefetch.logs import fields
from cachefetch.minisign import PublicKey, Signature, parse_key, parse_signature, show_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader

    from cachefetch.sourceconfig import FileVerify

_log = logging.getLogger(__name__)

SIGNATURE_MAX = 64 << 10
"""Bytes of a signature file; minisign allows comments of 8 KiB."""
_REMEDY = "sign the file with 'minisign -S' and upload both, or correct `verify.minisign`"


class Proof:
    """What a file must match before anything of it is used."""

    def __init__(self, url: str, key: PublicKey, signature: Signature, *, require: bool) -> None:
        """The file at `url`, shown in messages, is to be signed by `key`."""
        self._url = url
        self._key = key
        self._signature = signature
        self._require = require

    def check(self, path: Path) -> None:
        """Compare the file at `path` with its signature.

        Raises:
            DataError: it is not what was signed; when no signature is required, that is only logged.
        """
        with path.open("rb") as file:
            good = _verify(file, self._key, self._signature)
        if not good:
            _refuse(
                f"{self._url} is not what key {show_id(self._key.id)} signed: somebody replaced or damaged "
                f"it or its signature; {_REMEDY}",
                self._url,
                require=self._require,
            )
        else:
            comment = self._signature.comment.decode("utf-8", "backslashreplace")
            _log.info("signature", extra=fields(url=self._url, key=show_id(self._key.id), comment=comment))


def obtain(config: FileVerify, url: str, fetch: Callable[[], bytes | None]) -> Proof | None:
    """What the file at `url` must match; None when there is nothing of use and none is required.

    `fetch` gives the signature file, or None when there is none.

    Raises:
        ConfigError: a file of keys cannot be used.
        DataError: there is no signature, or none of a trusted key.
        SourceError: what `fetch` raises.
    """
    keys = {key.id: key for key in map(_read_key, config.minisign.keys)}
    text = fetch()
    if text is None:
        _refuse(f"{url} has no signature beside it: {_REMEDY}", url, require=config.require)
        return None
    try:
        signature = parse_signature(text)
    except ValueError as error:
        _refuse(f"the signature of {url} cannot be read: {error}; {_REMEDY}", url, require=config.require)
        return None
    if signature.id not in keys:
        trusted = ", ".join(sorted(map(show_id, keys)))
        _refuse(
            f"{url} is signed by key {show_id(signature.id)}, trusted are {trusted}: {_REMEDY}",
            url,
            require=config.require,
        )
        return None
    return Proof(url, keys[signature.id], signature, require=config.require)


def _refuse(text: str, url: str, *, require: bool) -> None:
    if require:
        raise DataError(text)
    _log.warning("not_signed", extra=fields(url=url, error=text))


def _read_key(key: str) -> PublicKey:
    if not key.startswith("/"):
        return parse_key(key)
    try:
        return parse_key(Path(key).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{key} cannot be read: {error.strerror}; mount the key there, or correct `keys`") from error
    except ValueError as error:
        raise ConfigError(f"{key} cannot be used: {error}") from error


def _verify(file: BufferedReader, key: PublicKey, signature: Signature) -> bool:
    public = Ed25519PublicKey.from_public_bytes(key.key)
    try:
        public.verify(signature.global_signature, signature.signature + signature.comment)
        if signature.prehashed:
            public.verify(signature.signature, hashlib.file_digest(file, "blake2b").digest())
        else:
            _verify_whole(public, signature.signature, file)
    except InvalidSignature:
        return False
    return True


def _verify_whole(public: Ed25519PublicKey, signature: bytes, file: BufferedReader) -> None:
    """The older format signs the file itself, all of which Ed25519 must see at once: mapped, not read into memory."""
    if not file.seek(0, 2):
        public.verify(signature, b"")  # nothing cannot be mapped
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
        public.verify(signature, view)
