from __future__ import annotations

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.index import Index, Known
from cachefetch.model import Entry, EntryType, Totals
from tests.cachefetch.fakes import below
from tests.cachefetch.test_manifest import ENTRIES, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE = Entry(b"a/file", EntryType.FILE, 0o444, 17, 5, "0a" * 32)
DIRECTORY = Entry(b"a", EntryType.DIRECTORY, 0o755, -3)
SYMLINK = Entry(b"\xff", EntryType.SYMLINK, 0o777, 2**63 - 1, target=b"\x01\xfe")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index.create(tmp_path / "index.db")
    yield index
    index.close()


@given(ENTRIES, st.randoms())
def test_entries_put_in_any_order_come_back_sorted_and_unchanged(entries: list[Entry], random: object) -> None:
    entries = [entry._replace(size=min(entry.size, 2**40)) for entry in entries]
    with TemporaryDirectory() as place:
        index = Index.create(Path(place, "index"))
        for entry in reversed(entries):
            index.put(entry, entry.path[::-1])
        assert list(index.entries()) == entries
        assert index.totals() == totals(entries)
        assert index.count() == len(entries)
        assert all(index.find(entry.path) == Known(entry, entry.path[::-1]) for entry in entries)
        assert all(index.token(entry.path) == entry.path[::-1] for entry in entries)
        index.close()


def test_more_entries_than_are_kept_pending_are_all_there(index: Index) -> None:
    entries = [DIRECTORY._replace(path=b"%06d" % number) for number in range(4500)]
    for entry in reversed(entries):
        index.put(entry)
    assert list(index.entries()) == entries


def test_a_path_that_is_put_again_has_its_last_entry(index: Index) -> None:
    index.put(DIRECTORY, b"1")
    newer = DIRECTORY._replace(mtime_ns=9)
    index.put(newer, b"2")
    assert index.find(b"a") == Known(newer, b"2")
    assert index.totals() == Totals(1, 0, 0)


def test_unknown_paths_are_none(index: Index) -> None:
    assert index.find(b"a") is None
    assert index.token(b"a") is None
    assert index.totals() == Totals(0, 0, 0)


def test_directories_and_fresh_files_are_told_apart(index: Index) -> None:
    kept = FILE._replace(path=b"a/kept")
    for entry in (FILE, DIRECTORY, SYMLINK):
        index.put(entry)
    index.put(kept, kept=True)
    assert list(index.directories()) == [DIRECTORY]
    assert list(index.fresh_files()) == [FILE]
    assert list(index.entries()) == [DIRECTORY, FILE, kept, SYMLINK]


def test_everything_is_there_again_when_the_file_is_opened_later(tmp_path: Path, index: Index) -> None:
    index.put(FILE, b"token")
    index.remember({"etag": '"1"', "version": "v"})
    index.remember({"version": "w"})
    index.close()
    again = Index.open(tmp_path / "index.db")
    assert again is not None
    assert again.find(FILE.path) == Known(FILE, b"token")
    assert again.meta == {"etag": '"1"', "version": "w"}
    again.close()


def test_closing_twice_is_once(index: Index) -> None:
    index.close()
    index.close()


def test_a_new_index_replaces_an_old_one(tmp_path: Path, index: Index) -> None:
    index.put(FILE)
    index.close()
    again = Index.create(tmp_path / "index.db")
    assert again.count() == 0
    again.close()


def test_an_absent_index_is_none_and_is_not_made(tmp_path: Path) -> None:
    assert Index.open(tmp_path / "absent") is None
    assert not (tmp_path / "absent").exists()


def filled(path: Path) -> bytes:
    index = Index.create(path)
    for number in range(3000):
        index.put(FILE._replace(path=b"%06d" % number), b"token")
    index.close()
    return path.read_bytes()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "noise": lambda whole: bytes(range(256)) * 64,
    "a text": lambda whole: b"hello",
    "cut off": lambda whole: whole[: len(whole) // 2],
    "cut off in the first page": lambda whole: whole[:3000],
    "zeros at the end": lambda whole: whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2),
    "a lost page": lambda whole: whole[: 8 * 4096] + bytes(4096) + whole[9 * 4096 :],
    "a torn page": lambda whole: whole[: 8 * 4096 + 2048] + bytes(2048) + whole[9 * 4096 :],
    "another schema": lambda whole: whole.replace(b"entry", b"entrz"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_none_because_it_is_only_a_memory_aid(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "index"
    path.write_bytes(DAMAGES[damage](filled(path)))
    assert Index.open(path) is None


def test_a_database_of_another_program_is_none(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "index")
    connection.execute("CREATE TABLE other (x)")
    connection.commit()
    connection.close()
    assert Index.open(tmp_path / "index") is None


def test_reading_an_index_does_not_change_its_file(tmp_path: Path) -> None:
    path = tmp_path / "index"
    filled(path)
    before = path.stat()
    index = Index.open(path)
    assert index is not None
    assert index.count() == 3000
    index.close()
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
    assert below(tmp_path) == {"index"}


@pytest.mark.root
def test_a_full_disk_is_the_error_that_it_is_everywhere_else(mount: Callable[..., Path]) -> None:
    """SQLite has an error class of its own; callers look for ENOSPC."""
    place = mount("full", "-t", "tmpfs", "-o", "size=256k", "tmpfs")
    index = Index.create(place / "index")
    with pytest.raises(OSError, match="No space left"):
        for number in range(300_000):
            index.put(FILE._replace(path=b"%06d" % number))
        index.count()
    with pytest.raises(OSError, match="No space left"):
        index.close()
    index.abandon()


def test_an_abandoned_index_is_closed_without_what_was_pending(index: Index) -> None:
    index.put(FILE)
    index.abandon()
    index.abandon()
    index.close()
    assert index.path.stat().st_size < 4 * 4096


def test_tables_of_a_source_s_own_are_kept_with_the_entries(index: Index) -> None:
    index.database.execute("CREATE TABLE mine (word TEXT)")
    index.database.execute("INSERT INTO mine VALUES ('x')")
    index.put(FILE)
    index.close()
    found = Index.open(index.path)
    assert found is not None
    assert found.database.execute("SELECT word FROM mine").fetchall() == [("x",)]
    assert found.find(FILE.path) is not None
    found.close()
