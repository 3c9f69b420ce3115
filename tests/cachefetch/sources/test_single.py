from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import DataError, UnsafeEntry
from cachefetch.sourceconfig import FileVerify, Minisign
from cachefetch.sources.minisign import obtain
from cachefetch.sources.single import Single, stage_single
from cachefetch.urls import Format
from tests.cachefetch.sources.conftest import stages
from tests.cachefetch.sources.signer import Signer
from tests.cachefetch.sources.test_tar import entry, tar

if TYPE_CHECKING:
    from pathlib import Path

    from cachefetch.sources.minisign import Proof
    from cachefetch.stage import Stage

ARCHIVE = tar(entry("d/a", b"1" * 5000), entry("d/b", b"2"))


class Arrived:
    """A download whose bytes are all there."""

    recalled = 0

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        path.write_bytes(content)
        self._content = io.BytesIO(content)
        self.discarded = self.finished = False

    def read(self, size: int, /) -> bytes:
        return self._content.read(size)

    def finish(self) -> None:
        self._content.read()
        self.finished = True

    def discard(self) -> None:
        self.discarded = True


def proof(tmp_path: Path, content: bytes) -> Proof:
    signer = Signer(tmp_path / "keys")
    made = obtain(FileVerify(minisign=Minisign(keys=(signer.key,))), "https://h/x", lambda: signer.sign(content))
    assert made is not None
    return made


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("d/a", b"1" * 5000)
        archive.writestr("d/b", b"2")
    return out.getvalue()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("kind", "content"), [(Format.TAR, ARCHIVE), (Format.ZIP, zipped())])
def test_an_archive_is_unpacked(tmp_path: Path, stage: Stage, kind: Format, content: bytes, signed: bool) -> None:
    download = Arrived(tmp_path / "x", content)
    proved = proof(tmp_path, content) if signed else None
    stage_single(download, Single(kind, b"", 0), stage, proved)
    assert download.finished
    assert (stage.place / "tree/d/a").read_bytes() == b"1" * 5000


@pytest.mark.parametrize("signed", [False, True])
def test_a_file_has_its_name_and_time(tmp_path: Path, stage: Stage, signed: bool) -> None:
    download = Arrived(tmp_path / "x", b"content")
    stage_single(download, Single(Format.FILE, b"name", 10**9), stage, proof(tmp_path, b"content") if signed else None)
    assert (stage.place / "tree/name").read_bytes() == b"content"
    assert (stage.place / "tree/name").stat().st_mtime == 1


def test_nothing_of_a_file_with_a_wrong_signature_is_unpacked(tmp_path: Path, stage: Stage) -> None:
    download = Arrived(tmp_path / "x", ARCHIVE)
    with pytest.raises(DataError, match="is not what key"):
        stage_single(download, Single(Format.TAR, b"", 0), stage, proof(tmp_path, ARCHIVE + b"\0"))
    assert list((stage.place / "tree").iterdir()) == []
    assert download.discarded


def test_damage_is_thrown_away_and_what_is_unsafe_is_kept(tmp_path: Path, stage: Stage) -> None:
    unsafe = Arrived(tmp_path / "x", tar(entry("../x", b"")))
    with pytest.raises(UnsafeEntry):
        stage_single(unsafe, Single(Format.TAR, b"", 0), stage)
    damaged = Arrived(tmp_path / "y", os.urandom(2000))
    with pytest.raises(DataError):
        stage_single(damaged, Single(Format.TAR, b"", 0), stage)
    assert (unsafe.discarded, damaged.discarded) == (False, True)


@pytest.mark.parametrize("signed", [False, True])
def test_progress_hears_every_byte_once(tmp_path: Path, signed: bool) -> None:
    heard: list[int] = []
    content = os.urandom(500_000)
    for stage in stages(tmp_path, heard.append):
        download = Arrived(tmp_path / "x", content)
        proved = proof(tmp_path, content) if signed else None
        stage_single(download, Single(Format.FILE, b"name", 0), stage, proved)
    assert sum(heard) == len(content)
