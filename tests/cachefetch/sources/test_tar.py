from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import DataError
from cachefetch.sources.tar import DIRECTORY, HARDLINK, REGULAR, SYMLINK, Body, Member, members, nanoseconds

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def read(data: bytes) -> list[tuple[Member, bytes]]:
    """Every member with its content."""
    stream = io.BytesIO(data)
    body = Body(stream)
    found = []
    for member in members(stream, body):
        content = b""
        while chunk := body.read(7):
            content += chunk
        found.append((member, content))
    return found


def entry(name: str, content: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def tar(*entries: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.PAX_FORMAT, **more: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_, **more) as archive:  # type: ignore[call-overload]
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content) if content else None)
    return out.getvalue()


NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Cs"], exclude_characters="/"),
    min_size=1,
    max_size=300,
)


@pytest.mark.parametrize("format_", ["gnu", "pax"])
@given(
    entries=st.lists(
        st.tuples(NAMES, st.binary(max_size=1500), st.integers(0, 0o7777), st.integers(-(2**32), 2**33)), max_size=4
    )
)
def test_what_tarfile_writes_is_read(format_: str, entries: list[tuple[str, bytes, int, int]]) -> None:
    """Long names, non-ASCII names, times before 1970 and beyond 2242: the same as what was written."""
    data = tar(
        *(entry(name, content, mode=mode, mtime=mtime) for name, content, mode, mtime in entries),
        format_=FORMATS[format_],
    )
    assert read(data) == [
        (Member(name.encode(), REGULAR, mode, mtime * 10**9, len(content), b""), content)
        for name, content, mode, mtime in entries
    ]


@pytest.mark.parametrize("format_", sorted(FORMATS))
def test_links_and_directories(format_: str) -> None:
    long = "d/" * 60 + "x"
    if format_ == "ustar":
        long = "d/" * 40 + "x"
    found = read(
        tar(
            entry("dir", type=tarfile.DIRTYPE),
            entry("soft", type=tarfile.SYMTYPE, linkname=long),
            entry("hard", type=tarfile.LNKTYPE, linkname="dir/a"),
            entry(long, b"content"),
            format_=FORMATS[format_],
        )
    )
    assert [(member.name.rstrip(b"/"), member.type, member.target) for member, _ in found] == [
        (b"dir", DIRECTORY, b""),
        (b"soft", SYMLINK, long.encode()),
        (b"hard", HARDLINK, b"dir/a"),
        (long.encode(), REGULAR, b""),
    ]
    assert found[3][1] == b"content"


def test_pax_times_are_exact_and_ustar_prefixes_are_joined() -> None:
    data = tar(entry("a", pax_headers={"mtime": "1700000000.123456789"}))
    assert read(data)[0][0].mtime_ns == 1_700_000_000_123_456_789
    name = "p" * 100 + "/" + "n" * 90
    assert read(tar(entry(name), format_=tarfile.USTAR_FORMAT))[0][0].name == name.encode()


def test_global_headers_apply_to_all_and_own_ones_to_one() -> None:
    data = tar(
        entry("a"), entry("b", pax_headers={"mtime": "2"}), entry("c"), pax_headers={"mtime": "1", "comment": "git"}
    )
    assert [member.mtime_ns for member, _ in read(data)] == [10**9, 2 * 10**9, 10**9]


def test_content_that_is_not_read_is_passed_over() -> None:
    stream = io.BytesIO(tar(entry("a", b"x" * 3_000_000), entry("b", b"y" * 513), entry("c")))
    assert [member.name for member in members(stream, Body(stream))] == [b"a", b"b", b"c"]


def test_before_ustar_a_directory_is_a_name_with_a_slash() -> None:
    assert read(raw(b"old/", b"\0"))[0][0].type == DIRECTORY
    assert read(raw(b"old", b"\0"))[0][0].type == REGULAR


def raw(name: bytes = b"x", type_: bytes = b"0", *, body: bytes = b"", end: bool = True, **numbers: bytes) -> bytes:
    """One header made by hand."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:107] = b"0000644"
    for field, at in (("size", 124), ("mtime", 136)):
        number = numbers.get(field, b"0")
        block[at : at + len(number)] = number
    block[148:156] = b" " * 8
    block[156:157] = type_
    block[257:263] = b"ustar\0"
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block) + body + bytes(-len(body) % 512) + (bytes(1024) if end else b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off"),
        (b"short", "cut off"),
        (b"x" * 512, "not a tar archive"),
        (raw().replace(b"x", b"y", 1), "checksum is wrong"),
        (raw(end=False), "cut off"),
        (raw(size=b"1000", end=False), "cut off"),
        (raw(size=b"1", body=b"z", end=False)[:-10], "cut off"),
        (raw(size=b"9x"), "where a number should"),
        (raw(size=b"\xff" * 12), "has size -1"),
        (raw(mtime=b"\x80" + b"\x7f" * 11), "mtime"),
        (raw(type_=b"3"), "is a character device"),
        (raw(type_=b"4"), "is a block device"),
        (raw(type_=b"6"), "is a FIFO"),
        (raw(type_=b"S"), "is a sparse file"),
        (raw(type_=b"Z"), "of type b'Z'"),
        (raw(type_=b"x", size=b"77777777777"), "extended header of"),
        (raw(type_=b"L", size=b"77777777777"), "extended header of"),
        (raw(type_=b"x", size=b"5", body=b"hello"), "broken record"),
        (raw(type_=b"x", size=b"5", body=b"9 a=b"), "broken record"),
        (raw(type_=b"x", size=b"6", body=b"1 a=b\n"), "broken record"),
        (raw(type_=b"x", size=b"6", body=b"0 a=b\n"), "broken record"),
        (raw(type_=b"x", size=b"7", body=b"-3 a=b\n"), "broken record"),
        (raw(type_=b"x", size=b"15", body=b"13 size=none\n", end=False) + raw(), "broken number"),
        (raw(type_=b"x", size=b"13", body=b"11 size=-1\n", end=False) + raw(), "has size -1"),
        (raw(type_=b"x", size=b"13", body=b"11 size=-1\n", end=False), "cut off"),
    ],
)
def test_a_bad_archive_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(data)


def test_a_pax_sparse_file_is_refused() -> None:
    with pytest.raises(DataError, match="'s' is a sparse file"):
        read(tar(entry("s", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})))


@given(st.data())
def test_an_archive_cut_anywhere_is_refused(data: st.DataObject) -> None:
    whole = tar(entry("a" * 120, b"1" * 700), entry("b", b"2" * 100))
    end = whole.rindex(b"2") // 512 * 512 + 512
    at = data.draw(st.integers(0, end))
    with pytest.raises(DataError):
        read(whole[:at])


@given(st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), max_size=6))
def test_a_damaged_archive_is_read_or_refused(edits: list[tuple[int, int]]) -> None:
    data = bytearray(tar(entry("a", b"1" * 700, pax_headers={"mtime": "1.5"}), entry("b", b"2" * 100)))
    for at, value in edits:
        data[at] = value
    try:
        read(bytes(data))
    except DataError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1", 10**9),
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"-0.25", -250_000_000),
        (b"0.1234567899", 123_456_789),
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
    ],
)
def test_nanoseconds_are_exact(text: bytes, expected: int) -> None:
    assert nanoseconds(text) == expected


@pytest.mark.parametrize("text", [b"", b"x", b"1.x", b"1.-5", b"1e9", b"\xff", b"1.5.5"])
def test_nanoseconds_refuses_what_is_no_number(text: bytes) -> None:
    with pytest.raises(ValueError):
        nanoseconds(text)
