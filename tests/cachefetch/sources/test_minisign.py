from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import ConfigError, DataError, SourceError
from cachefetch.logs import fields_of
from cachefetch.sourceconfig import FileVerify, Minisign
from cachefetch.sources.minisign import obtain
from tests.cachefetch.sources.signer import Signer

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://h/data"
CONTENT = os.urandom(3_000_000)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "keys")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def verify(file: Path, signature: bytes | None, *keys: str, require: bool = True) -> bool:
    """Whether there was a signature to compare with; raises what the source would raise."""
    config = FileVerify(minisign=Minisign(keys=keys), require=require)
    proof = obtain(config, URL, lambda: signature)
    if proof is not None:
        proof.check(file)
    return proof is not None


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("content", [CONTENT, b""])
def test_what_minisign_signed_is_good(
    signer: Signer, file: Path, content: bytes, legacy: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file.write_bytes(content)
    assert verify(file, signer.sign(content, legacy=legacy, comment="v1 ü"), signer.key)
    (record,) = caplog.records
    assert fields_of(record)["comment"] == "v1 ü"


def test_a_key_may_be_in_a_file_and_one_of_several_is_enough(signer: Signer, file: Path, tmp_path: Path) -> None:
    other = Signer(tmp_path / "other")
    assert verify(file, signer.sign(CONTENT), other.key, str(signer.public))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("at", [0, len(CONTENT) // 2, len(CONTENT) - 1])
def test_one_wrong_bit_is_refused(signer: Signer, file: Path, legacy: bool, at: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[at] ^= 1
    file.write_bytes(wrong)
    with pytest.raises(DataError, match=r"https://h/data is not what key [0-9A-F]{16} signed"):
        verify(file, signer.sign(CONTENT, legacy=legacy), signer.key)


def test_a_changed_comment_is_refused(signer: Signer, file: Path) -> None:
    """Otherwise an old file could be passed off as a new one."""
    signature = signer.sign(CONTENT, comment="version 1")
    with pytest.raises(DataError, match="is not what key"):
        verify(file, signature.replace(b"version 1", b"version 2"), signer.key)


def test_parts_of_two_signatures_are_none(signer: Signer, file: Path) -> None:
    one, two = signer.sign(CONTENT).splitlines(), signer.sign(CONTENT[1:]).splitlines()
    with pytest.raises(DataError, match="is not what key"):
        verify(file, b"\n".join([*two[:2], *one[2:]]), signer.key)


def test_a_prehashed_signature_is_not_taken_for_one_of_the_file(signer: Signer, file: Path) -> None:
    """Neither the other way round: the format is part of what is signed."""
    import base64

    lines = signer.sign(CONTENT).splitlines()
    lines[1] = base64.b64encode(b"Ed" + base64.b64decode(lines[1])[2:])
    with pytest.raises(DataError, match="is not what key"):
        verify(file, b"\n".join(lines), signer.key)


def test_somebody_else_is_not_trusted(signer: Signer, file: Path, tmp_path: Path) -> None:
    other = Signer(tmp_path / "other")
    with pytest.raises(DataError, match=r"is signed by key [0-9A-F]{16}, trusted are [0-9A-F]{16}"):
        verify(file, other.sign(CONTENT), signer.key)


def test_without_a_signature_nothing_is_good(signer: Signer, file: Path) -> None:
    with pytest.raises(DataError, match="has no signature beside it: sign the file with 'minisign -S'"):
        verify(file, None, signer.key)
    with pytest.raises(DataError, match="cannot be read: it is not a signature file"):
        verify(file, b"<html>", signer.key)


def test_what_is_not_required_is_logged(
    signer: Signer, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Signer(tmp_path / "other")
    found = [
        verify(file, signature, signer.key, require=False)
        for signature in (None, b"<html>", other.sign(CONTENT), signer.sign(b"other"), signer.sign(CONTENT))
    ]
    assert found == [False, False, False, True, True]
    said = [str(fields_of(record)["error"]) for record in caplog.records if record.getMessage() == "not_signed"]
    assert len(said) == 4
    assert "has no signature" in said[0]
    assert "is not what key" in said[3]


def test_a_file_of_keys_that_cannot_be_used_is_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.pub cannot be read: No such file"):
        verify(file, None, str(tmp_path / "none.pub"))
    with pytest.raises(ConfigError, match=r"/file cannot be used: .* is not a public key"):
        file.write_bytes(b"text")
        verify(file, None, str(file))


def test_a_failure_to_fetch_is_no_missing_signature(signer: Signer) -> None:
    def fetch() -> bytes:
        raise SourceError("down")

    with pytest.raises(SourceError, match="down"):
        obtain(FileVerify(minisign=Minisign(keys=(signer.key,)), require=False), URL, fetch)
