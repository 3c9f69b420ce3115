from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch import manifest
from cachefetch.errors import DataError
from cachefetch.model import Entry, EntryType, Totals

DIGEST = hashlib.sha256(b"").hexdigest()
PATHS = st.binary(min_size=1, max_size=30).filter(lambda path: b"\0" not in path)
MTIMES = st.integers(-(2**63), 2**63 - 1)
MODES = st.integers(0, 0o777)
DIGESTS = st.binary(max_size=4).map(lambda content: hashlib.sha256(content).hexdigest())
FILES = st.tuples(PATHS, st.just(EntryType.FILE), MODES, MTIMES, st.integers(0, 2**63), DIGESTS, st.just(b""))
DIRECTORIES = st.tuples(PATHS, st.just(EntryType.DIRECTORY), MODES, MTIMES, st.just(0), st.just(""), st.just(b""))
SYMLINKS = st.tuples(PATHS, st.just(EntryType.SYMLINK), st.just(0o777), MTIMES, st.just(0), st.just(""), PATHS)
ENTRY = (FILES | DIRECTORIES | SYMLINKS).map(Entry._make)
ENTRIES = st.lists(ENTRY, unique_by=lambda entry: entry.path, max_size=8).map(sorted)


def totals(entries: list[Entry]) -> Totals:
    files = [entry for entry in entries if entry.type is EntryType.FILE]
    return Totals(len(entries), len(files), sum(entry.size for entry in files))


def written(entries: list[Entry]) -> bytes:
    out = io.BytesIO()
    version_id = manifest.write(entries, totals(entries), out)
    assert version_id == hashlib.sha256(out.getvalue()).hexdigest()
    return out.getvalue()


def read(content: bytes) -> list[Entry]:
    with TemporaryDirectory() as place:
        path = Path(place, "manifest")
        path.write_bytes(content)
        return list(manifest.read(path))


SAMPLE = [
    Entry(b"a file", EntryType.FILE, 0o444, 1, 5, DIGEST),
    Entry(b"b", EntryType.DIRECTORY, 0o755, -2),
    Entry(b"b/l", EntryType.SYMLINK, 0o777, 3, target=b"../%\xff"),
]
TEXT = written(SAMPLE)


@given(ENTRIES)
def test_what_is_written_is_read_whatever_the_bytes(entries: list[Entry]) -> None:
    assert read(written(entries)) == entries


@given(ENTRIES)
def test_the_same_entries_give_the_same_bytes_and_the_id_is_their_digest(entries: list[Entry]) -> None:
    content = written(entries)
    assert content == written(list(entries))
    with TemporaryDirectory() as place:
        path = Path(place, "manifest")
        path.write_bytes(content)
        assert manifest.digest(path) == hashlib.sha256(content).hexdigest()
        assert manifest.read_totals(path) == totals(entries)


@given(ENTRIES, ENTRIES)
def test_other_entries_give_another_id(left: list[Entry], right: list[Entry]) -> None:
    assert (written(left) == written(right)) == (left == right)


@given(st.binary(max_size=200))
def test_escaped_bytes_are_one_printable_word_and_reversible(raw: bytes) -> None:
    word = manifest.escape(raw)
    assert all(0x21 <= byte <= 0x7E for byte in word)
    assert manifest.unescape(word) == raw


def test_the_form_is_fixed_because_ids_depend_on_it() -> None:
    """These bytes name versions on disks everywhere: a change needs another magic word."""
    assert TEXT.decode() == (
        f"goldlink-manifest-v1 3 1 5\nf 0444 1 5 {DIGEST} a%20file\nd 0755 -2 0 - b\nl 0777 3 0 ../%25%FF b/l\n"
    )


def test_a_symlink_may_say_what_looks_like_nothing_or_like_a_digest() -> None:
    entries = [
        Entry(b"a", EntryType.SYMLINK, 0o777, 0, target=b"-"),
        Entry(b"b", EntryType.SYMLINK, 0o777, 0, target=DIGEST.encode()),
    ]
    assert read(written(entries)) == entries


@pytest.mark.parametrize("byte", range(len(TEXT)))
def test_any_changed_byte_is_refused_or_means_something_else(byte: int) -> None:
    """So a damaged manifest can never pass for the sound one, even before its digest is looked at."""
    for flip in (0x01, 0x20, 0x80):
        damaged = bytearray(TEXT)
        damaged[byte] ^= flip
        try:
            entries = read(bytes(damaged))
        except DataError:
            continue
        if damaged[: TEXT.index(b"\n")] == TEXT[: TEXT.index(b"\n")]:
            assert entries != SAMPLE
            assert written(entries).splitlines()[1:] == bytes(damaged).splitlines()[1:], "one form for one meaning"


@pytest.mark.parametrize("length", range(len(TEXT)))
def test_a_manifest_that_is_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(DataError, match="fetch the version anew"):
        read(TEXT[:length])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"f 0444 1 5 - a\n",
        b"f 0444 1 5 %s\n" % DIGEST.encode(),
        b"f 0444 1 5 %s a b\n" % DIGEST.encode(),
        b"f 0444 1 5 %s a" % DIGEST.encode(),
        b"f 0444 1 +5 %s a\n" % DIGEST.encode(),
        b"f 0444 1 1_0 %s a\n" % DIGEST.encode(),
        b"f 0444 1 05 %s a\n" % DIGEST.encode(),
        b"f 0444 1 -5 %s a\n" % DIGEST.encode(),
        b"f 0444 1 %s %s a\n" % (b"9" * 5000, DIGEST.encode()),
        b"f 0o444 1 5 %s a\n" % DIGEST.encode(),
        b"f 0448 1 5 %s a\n" % DIGEST.encode(),
        b"f 0444 1 5 %s a\n" % DIGEST.upper().encode(),
        b"f 0444 1 5 %s \xff\n" % DIGEST.encode(),
        b"f 0444 1 5 %s %%41\n" % DIGEST.encode(),
        b"f 0444 1 5 %s %%ff\n" % DIGEST.encode(),
        b"f 0444 1 5 %s %%\n" % DIGEST.encode(),
        b"d 0755 1 0 x a\n",
        b"d 0755 1 1 - a\n",
        b"l 0777 1 1 t a\n",
        b"c 0644 1 0 - a\n",
    ],
)
def test_a_line_of_another_form_is_refused(line: bytes) -> None:
    with pytest.raises(DataError, match="is damaged"):
        manifest.decode(line)


@given(st.binary(max_size=120))
def test_whatever_a_line_says_it_is_refused_or_the_one_way_to_say_it(line: bytes) -> None:
    try:
        entry = manifest.decode(line)
    except DataError:
        return
    assert manifest.encode(entry) == line


@pytest.mark.parametrize(
    "head",
    [b"", b"\n", b"goldlink-manifest-v2 0 0 0\n", b"goldlink-manifest-v1 0 0\n", b"goldlink-manifest-v1 0 0 x\n",
     b"goldlink-manifest-v1 0 0 0", b"goldlink-manifest-v1 +0 0 0\n", b"goldlink-manifest-v1  0 0 0\n", b"\0" * 300],
)  # fmt: skip
def test_a_file_with_another_first_line_is_no_manifest(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    path.write_bytes(head)
    with pytest.raises(DataError, match="is not a manifest"):
        manifest.read_totals(path)
    with pytest.raises(DataError, match="is not a manifest"):
        list(manifest.read(path))


def test_entries_out_of_order_are_neither_written_nor_read() -> None:
    with pytest.raises(ValueError, match="does not sort after"):
        manifest.write(SAMPLE[::-1], totals(SAMPLE), io.BytesIO())
    with pytest.raises(ValueError, match="does not sort after"):
        manifest.write([SAMPLE[0], SAMPLE[0]], totals(SAMPLE), io.BytesIO())
    head, first, second, third = TEXT.splitlines(keepends=True)
    for wrong in (head + second + first + third, head + first + first + third):
        with pytest.raises(DataError, match="out of order"):
            read(wrong)


@pytest.mark.parametrize("announced", [2, 4])
def test_another_number_of_entries_than_announced_is_refused(announced: int) -> None:
    with pytest.raises(ValueError, match="3 entries"):
        manifest.write(SAMPLE, totals(SAMPLE)._replace(entries=announced), io.BytesIO())


def test_more_lines_than_announced_are_refused() -> None:
    with pytest.raises(DataError):
        read(TEXT + b"d 0755 -2 0 - c\n")


@given(ENTRIES, ENTRIES)
def test_common_entries_are_those_equal_in_everything(left: list[Entry], right: list[Entry]) -> None:
    mixed = sorted({entry.path: entry for entry in right + left[::2]}.values())
    assert list(manifest.common(left, mixed)) == [entry for entry in left if entry in mixed]


_MILLION = r"""
import re, sys
from pathlib import Path
from cachefetch import manifest
from cachefetch.model import Entry, EntryType, Totals
count, path = 1_000_000, Path(sys.argv[1])
def entries():
    for number in range(count):
        yield Entry(b"node_modules/package-%07d/index.js" % number, EntryType.FILE, 0o444, number, 1, "0a" * 32)
with path.open("wb") as file:
    version_id = manifest.write(entries(), Totals(count, count, count), file)
assert manifest.digest(path) == version_id
assert sum(1 for _ in manifest.common(entries(), manifest.read(path))) == count
print(re.search("VmHWM:[ \t]+([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_a_million_entries_take_no_memory_to_speak_of(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MILLION, tmp_path / "manifest"], check=True, stdout=subprocess.PIPE, text=True
    )
    assert int(done.stdout) < 250 * 1024, "KiB of resident memory at most"
