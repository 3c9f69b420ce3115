"""Public keys and signatures as minisign writes them. No side effects; nothing is verified here.

Source: "Signature format" and "Public key format" of minisign's documentation. A public key is the text
`Ed <id, 8 bytes> <key, 32 bytes>` in base64, a signature file has four lines: an untrusted comment,
`<Ed|ED> <id> <signature, 64 bytes>` in base64, a trusted comment, and a signature over signature and trusted comment.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

_KEY_BYTES = 2 + 8 + 32
_SIGNATURE_BYTES = 2 + 8 + 64
_GLOBAL_BYTES = 64
_COMMENT = "untrusted comment:"
_TRUSTED = b"trusted comment: "
_LINES = 4
KEY_START = "RW"
"""How each public key begins, because base64 of `Ed` does; so it is never taken for a path."""


class PublicKey(NamedTuple):
    """Who may sign."""

    id: bytes
    key: bytes
    """Ed25519, 32 bytes."""


class Signature(NamedTuple):
    """One signature file."""

    prehashed: bool
    """Whether the BLAKE2b-512 of the file is signed (`ED`), or the file itself (`Ed`, minisign's older format)."""
    id: bytes
    """Of the key that made it."""
    signature: bytes
    comment: bytes
    """The trusted one."""
    global_signature: bytes
    """Over `signature` and `comment`."""


def parse_key(text: str) -> PublicKey:
    """The key in `text`: the one line of base64, or the whole file.

    Raises:
        ValueError: there is none.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    if lines and lines[0].startswith(_COMMENT):
        del lines[0]
    raw = _decode(lines[0].encode(), _KEY_BYTES) if len(lines) == 1 else None
    if raw is None or raw[:2] != b"Ed":
        raise ValueError(f"{text[:80]!r} is not a public key of minisign: copy the second line of its .pub file")
    return PublicKey(raw[2:10], raw[10:])


def parse_signature(text: bytes) -> Signature:
    """The signature in the file `text`.

    Raises:
        ValueError: it has another form.
    """
    lines = [line.rstrip(b"\r") for line in text.rstrip(b"\r\n").split(b"\n")]
    if len(lines) == _LINES and lines[0].startswith(_COMMENT.encode()) and lines[2].startswith(_TRUSTED):
        raw, over_all = _decode(lines[1], _SIGNATURE_BYTES), _decode(lines[3], _GLOBAL_BYTES)
        if raw is not None and over_all is not None and raw[:2] in {b"Ed", b"ED"}:
            return Signature(raw[:2] == b"ED", raw[2:10], raw[10:], lines[2].removeprefix(_TRUSTED), over_all)
    raise ValueError("it is not a signature file of minisign")


def show_id(key_id: bytes) -> str:
    """A key's id as minisign prints it."""
    return f"{int.from_bytes(key_id, 'little'):016X}"


def _decode(line: bytes, size: int) -> bytes | None:
    try:
        raw = base64.b64decode(line, validate=True)
    except binascii.Error:
        return None
    return raw if len(raw) == size else None
