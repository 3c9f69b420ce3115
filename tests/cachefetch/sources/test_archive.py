from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import tarfile
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachefetch.errors import DataError, GoldlinkError, OutOfSpace, UnsafeEntry
from cachefetch.model import EntryType
from cachefetch.sources.archive import entry_path, unpack_tar, unpack_zip
from cachefetch.urls import Format
from tests.cachefetch.sources.conftest import stages
from tests.cachefetch.sources.test_tar import entry, tar

if TYPE_CHECKING:
    from pathlib import Path

    from cachefetch.model import Entry
    from cachefetch.stage import Stage

COMPRESSORS = {
    Format.TAR: [],
    Format.TAR_GZ: ["gzip"],
    Format.TAR_ZST: ["zstd", "-q"],
    Format.TAR_XZ: ["xz"],
    Format.TAR_BZ2: ["bzip2"],
}


def entries(stage: Stage) -> dict[bytes, Entry]:
    return {entry.path: entry for entry in stage.index.entries()}


def zipped(*items: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names that come twice
        for info, content in items:
            archive.writestr(info, content)
    return out


def info(name: str, mode: int = 0o100644, system: int = 3) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name, (2020, 2, 29, 12, 30, 58))
    made.create_system = system
    made.external_attr = mode << 16
    return made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "sub" / "tool").write_bytes(b"#!/bin/sh\n")
    (tree / "sub" / "tool").chmod(0o755)
    (tree / "data").write_bytes(bytes(range(256)) * 1000)
    (tree / "twin").hardlink_to(tree / "data")
    (tree / "link").symlink_to("../../etc/passwd")
    os.utime(tree / "data", ns=(1, 1_600_000_000_987_654_321))
    return tree


@pytest.mark.parametrize("format_", sorted(COMPRESSORS))
def test_what_gnu_tar_writes_arrives(tree: Path, tmp_path: Path, stage: Stage, format_: Format) -> None:
    archive = tmp_path / "archive"
    plain = subprocess.run(["tar", "--format=pax", "-C", tree, "-c", "."], check=True, capture_output=True).stdout
    packed = (
        subprocess.run(COMPRESSORS[format_], input=plain, check=True, capture_output=True).stdout
        if COMPRESSORS[format_]
        else plain
    )
    archive.write_bytes(packed)
    with archive.open("rb") as file:
        unpack_tar(file, format_, stage)
    found = entries(stage)
    assert set(found) == {b"sub", b"sub/empty", b"sub/tool", b"data", b"twin", b"link"}
    assert found[b"sub/tool"].mode == 0o555
    assert found[b"link"].target == b"../../etc/passwd"
    assert found[b"data"].mtime_ns == 1_600_000_000_987_654_321
    assert found[b"twin"][1:] == found[b"data"][1:]
    golden = stage.place / "tree"
    assert (golden / "twin").stat().st_ino != (golden / "data").stat().st_ino
    assert (golden / "data").read_bytes() == (tree / "data").read_bytes()


def test_a_tar_is_read_to_its_end_so_that_the_checksum_of_the_compressed_data_counts(tmp_path: Path) -> None:
    packed = subprocess.run(["gzip"], input=tar(entry("a", b"x")), check=True, capture_output=True).stdout
    damaged = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    for stage in stages(tmp_path, lambda _: None):
        with pytest.raises(DataError, match="damaged"):
            unpack_tar(io.BytesIO(damaged), Format.TAR_GZ, stage)


@pytest.mark.parametrize("format_", [*sorted(COMPRESSORS), Format.ZIP])
@pytest.mark.parametrize("data", [b"", b"\0", b"<html>not found</html>" * 100, os.urandom(2000)])
def test_what_is_no_archive_is_refused(stage: Stage, format_: Format, data: bytes) -> None:
    with pytest.raises(DataError, match="archive"):
        unpack_zip(io.BytesIO(data), stage) if format_ is Format.ZIP else unpack_tar(io.BytesIO(data), format_, stage)


@pytest.mark.parametrize("format_", sorted(set(COMPRESSORS) - {Format.TAR}))
def test_a_cut_off_archive_is_refused(stage: Stage, format_: Format) -> None:
    plain = tar(entry("a", os.urandom(50_000)))
    packed = subprocess.run(COMPRESSORS[format_], input=plain, check=True, capture_output=True).stdout
    with pytest.raises(DataError):
        unpack_tar(io.BytesIO(packed[: len(packed) // 2]), format_, stage)


SYMLINK = {"type": tarfile.SYMTYPE}
HARDLINK = {"type": tarfile.LNKTYPE}
HOSTILE = {
    "parent": [entry("../x", b"1")],
    "parent within": [entry("a/../../x", b"1")],
    "parent alone": [entry("..", b"1")],
    "absolute": [entry("/etc/x", b"1")],
    "only dots": [entry("./.", b"1")],
    "through a symlink": [entry("l", **SYMLINK, linkname="/tmp"), entry("l/x", b"1")],
    "through a symlink within": [entry("d/"), entry("l", **SYMLINK, linkname="d"), entry("l/x", b"1")],
    "over a symlink": [entry("l", **SYMLINK, linkname="/tmp/x"), entry("l", b"1")],
    "twice": [entry("a", b"1"), entry("a", b"2")],
    "directory over a symlink": [entry("l", **SYMLINK, linkname="/tmp"), entry("l", type=tarfile.DIRTYPE)],
    "file as a directory": [entry("a", b"1"), entry("a/b", b"1")],
    "hardlink outside": [entry("h", **HARDLINK, linkname="/etc/passwd")],
    "hardlink to the parent": [entry("h", **HARDLINK, linkname="../../../../etc/passwd")],
    "hardlink to nothing": [entry("h", **HARDLINK, linkname="nothing")],
    "hardlink to a symlink": [entry("l", **SYMLINK, linkname="/etc/passwd"), entry("h", **HARDLINK, linkname="l")],
    "hardlink through a symlink": [entry("l", **SYMLINK, linkname="/etc"), entry("h", **HARDLINK, linkname="l/passwd")],
    "hardlink to itself": [entry("h", **HARDLINK, linkname="h")],
    "long component": [entry("n" * 256, b"1")],
    "long path": [entry("n/" * 2100 + "x", b"1")],
    "many": [entry(f"f{number}") for number in range(101)],
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_tar_is_refused_and_leaves_nothing_outside(tmp_path: Path, name: str) -> None:
    before = snapshot(tmp_path)
    for stage in stages(tmp_path, lambda _: None):
        with pytest.raises(UnsafeEntry):
            unpack_tar(io.BytesIO(tar(*HOSTILE[name])), Format.TAR, stage)
    assert snapshot(tmp_path) - {"stage", "scratch", "index"} == before


def snapshot(path: Path) -> set[str]:
    return {item.name for item in path.iterdir()}


@pytest.mark.parametrize("format_", ["tar.zst", "zip"])
def test_a_bomb_stops_at_the_limit(stage: Stage, format_: str) -> None:
    """A thousandfold: 64 KiB that become 64 MiB; the stage takes 1 MiB."""
    if format_ == "zip":
        with pytest.raises(OutOfSpace, match="larger than maxBytes"):
            unpack_zip(zipped(("bomb", bytes(64 << 20))), stage)
        return
    plain = tar(entry("bomb", bytes(64 << 20)))
    packed = subprocess.run(["zstd", "-q"], input=plain, check=True, capture_output=True).stdout
    assert len(packed) < 1 << 16
    with pytest.raises(OutOfSpace, match="larger than maxBytes"):
        unpack_tar(io.BytesIO(packed), Format.TAR_ZST, stage)


def test_a_zip_arrives_with_modes_symlinks_and_times_in_utc(stage: Stage) -> None:
    unpack_zip(
        zipped(
            (info("d/", 0o40755), b""),
            (info("d/tool", 0o100755), b"#!"),
            (info("./d//link", 0o120777), b"../../etc/passwd"),
            (info("from-dos", 0, system=0), b"text"),
            (info("é"), b""),
        ),
        stage,
    )
    found = entries(stage)
    assert set(found) == {b"d", b"d/tool", b"d/link", b"from-dos", "é".encode()}
    assert (found[b"d/tool"].mode, found[b"from-dos"].mode) == (0o555, 0o444)
    assert (found[b"d/link"].type, found[b"d/link"].target) == (EntryType.SYMLINK, b"../../etc/passwd")
    assert {entry.mtime_ns for entry in found.values()} == {1_582_979_458 * 10**9}  # 2020-02-29T12:30:58Z


def test_zip_names_without_the_utf8_flag_keep_their_bytes(stage: Stage) -> None:
    data = zipped((info("aaaa"), b"x")).getvalue().replace(b"aaaa", b"a\x82\xffz")
    unpack_zip(io.BytesIO(data), stage)
    assert set(entries(stage)) == {b"a\x82\xffz"}


def test_a_zip_without_a_time_has_the_first_of_1980(stage: Stage) -> None:
    data = zipped((info("a"), b"x")).getvalue()
    stamp = struct.pack("<HH", 12 << 11 | 30 << 5 | 29, 40 << 9 | 2 << 5 | 29)
    assert data.count(stamp) == 2
    unpack_zip(io.BytesIO(data.replace(stamp, bytes(4))), stage)
    assert entries(stage)[b"a"].mtime_ns == 315_532_800 * 10**9


@pytest.mark.parametrize(
    ("items", "error", "reason"),
    [
        ([(info("../x"), b"1")], UnsafeEntry, "no component"),
        ([(info("/x"), b"1")], UnsafeEntry, "absolute"),
        ([(info("a"), b"1"), (info("a"), b"2")], UnsafeEntry, "another entry"),
        ([(info("l", 0o120777), b"/tmp"), (info("l/x"), b"1")], UnsafeEntry, "symlink"),
        ([(info("f", stat.S_IFIFO | 0o644), b"")], DataError, "file type 0o10000"),
        ([(info("f", stat.S_IFCHR | 0o644), b"")], DataError, "file type"),
        ([(info("l", 0o120777), b"")], DataError, "without a possible target"),
        ([(info("l", 0o120777), b"x" * 5000)], DataError, "without a possible target"),
        ([(info("l", 0o120777), b"a\0b")], DataError, "without a possible target"),
    ],
)
def test_a_hostile_zip_is_refused(
    stage: Stage, items: list[tuple[zipfile.ZipInfo, bytes]], error: type[GoldlinkError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        unpack_zip(zipped(*items), stage)


def test_an_encrypted_zip_is_refused(stage: Stage) -> None:
    data = bytearray(zipped((info("secret"), b"x")).getvalue())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(DataError, match="'secret' is encrypted"):
        unpack_zip(io.BytesIO(bytes(data)), stage)


def test_a_zip_with_a_wrong_checksum_is_refused(stage: Stage) -> None:
    data = zipped((info("a"), b"content that is stored"), method=zipfile.ZIP_STORED).getvalue()
    with pytest.raises(DataError, match="damaged"):
        unpack_zip(io.BytesIO(data.replace(b"is stored", b"is storEd")), stage)


@example([(227, 116)])  # an entry that starts before the archive
@given(st.lists(st.tuples(st.integers(0, 299), st.integers(0, 255)), max_size=5))
def test_a_damaged_zip_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]]
) -> None:
    data = bytearray(zipped((info("a"), b"1" * 50), (info("d/l", 0o120777), b"x")).getvalue())
    for at, value in edits:
        data[at % len(data)] = value
    for stage in stages(tmp_path_factory.mktemp("zip"), lambda _: None):
        try:
            unpack_zip(io.BytesIO(bytes(data)), stage)
        except GoldlinkError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"a", b"a"),
        (b"./a", b"a"),
        (b"././a//b/./c/", b"a/b/c"),
        (b".", b""),
        (b"./", b""),
        (b"../a", b"../a"),
        (b"/a", b"/a"),
        (b".hidden/..x", b".hidden/..x"),
    ],
)
def test_entry_path_drops_what_means_nothing_only(name: bytes, path: bytes) -> None:
    assert entry_path(name) == path


def zst(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-q"], input=content, check=True, capture_output=True).stdout


SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"hello"


class Drip(io.BytesIO):
    """Gives one byte at a time, as a slow network may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1 if size else 0)


@pytest.mark.parametrize("stream", [io.BytesIO, Drip])
def test_zstd_frames_that_follow_each_other_are_one_archive(stage: Stage, stream: type[io.BytesIO]) -> None:
    """As pzstd writes them, with skippable and empty frames between."""
    plain = tar(entry("a", b"1" * 100_000), entry("b", b"2"))
    cut = len(plain) // 2
    packed = SKIPPABLE + zst(plain[:cut]) + zst(b"") + SKIPPABLE + zst(plain[cut:]) + SKIPPABLE
    unpack_tar(stream(packed), Format.TAR_ZST, stage)
    assert (stage.place / "tree/a").read_bytes() == b"1" * 100_000
    assert (stage.place / "tree/b").read_bytes() == b"2"


@pytest.mark.parametrize("where", ["nothing", "within", "checksum", "garbage"])
def test_a_damaged_zstd_stream_is_an_error_of_the_data(stage: Stage, where: str) -> None:
    packed = zst(tar(entry("a", os.urandom(100_000))))
    content = {
        "nothing": b"",
        "within": packed[: len(packed) // 2],
        "checksum": packed[:-1] + bytes([packed[-1] ^ 1]),
        "garbage": packed + b"garbage",
    }[where]
    with pytest.raises(DataError, match=r"is not tar\.zst, or damaged"):
        unpack_tar(io.BytesIO(content), Format.TAR_ZST, stage)
