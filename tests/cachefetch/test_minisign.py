from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.minisign import KEY_START, PublicKey, Signature, parse_key, parse_signature, show_id

# Made by minisign 0.11.
KEY = "RWRKHzxZnzhx7az9D+lNEbDxuNtlxctBWfIUjdZZojt7JPfDl0HfbYBq"
FILE = f"untrusted comment: minisign public key ED71389F593C1F4A\n{KEY}\n"
SIGNATURE = b"""untrusted comment: signature from minisign secret key
RURKHzxZnzhx7Qj6XVxCyStwCQuXOBeBgRix3z1HXXwWRiQ0XfTujdbVcptkDai5xTudtVKDsLVoJ1Jl8yF9mibFAz9/OlPZygg=
trusted comment: timestamp:1795632238\tfile:f\thashed
IDxttWqTsqrYw/Per3X0fNTtcCXX/ttQl9mdsHz33ayM9xefT53Fr0LU/Gy6SQIvz7ow9x8wdZwAWcDD9gRnBw==
"""


@pytest.mark.parametrize("text", [KEY, f" {KEY}\n", FILE, FILE.replace("\n", "\r\n")])
def test_a_key_is_a_line_or_a_file(text: str) -> None:
    key = parse_key(text)
    assert show_id(key.id) == "ED71389F593C1F4A"
    assert len(key.key) == 32
    assert KEY.startswith(KEY_START)


@pytest.mark.parametrize(
    "text", ["", "RW", KEY[:-4], KEY + "AAAA", "ED" + KEY[2:], KEY + "\n" + KEY, "not base64!", "é"]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a public key of minisign"):
        parse_key(text)


@pytest.mark.parametrize("text", [SIGNATURE, SIGNATURE.rstrip(b"\n"), SIGNATURE.replace(b"\n", b"\r\n")])
def test_a_signature_has_its_parts(text: bytes) -> None:
    signature = parse_signature(text)
    assert signature.prehashed
    assert show_id(signature.id) == "ED71389F593C1F4A"
    assert signature.comment == b"timestamp:1795632238\tfile:f\thashed"
    assert (len(signature.signature), len(signature.global_signature)) == (64, 64)


LINES = SIGNATURE.splitlines()


@pytest.mark.parametrize(
    "lines",
    [
        [],
        LINES[:3],
        [*LINES, b"more"],
        [b"comment: x", *LINES[1:]],
        [LINES[0], LINES[1][:-8], *LINES[2:]],
        [LINES[0], b"AA" + LINES[1][2:], *LINES[2:]],
        [*LINES[:2], b"comment: x", LINES[3]],
        [*LINES[:3], LINES[1]],
    ],
)
def test_what_is_no_signature_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(ValueError, match="it is not a signature file of minisign"):
        parse_signature(b"\n".join(lines))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_signature_or_refused(data: bytes) -> None:
    for text in (data, SIGNATURE[:60] + data, SIGNATURE + data):
        with contextlib.suppress(ValueError):
            assert isinstance(parse_signature(text), Signature)


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=32, max_size=32))
def test_every_key_is_read_as_it_is(key_id: bytes, key: bytes) -> None:
    assert parse_key(base64.b64encode(b"Ed" + key_id + key).decode()) == PublicKey(key_id, key)
