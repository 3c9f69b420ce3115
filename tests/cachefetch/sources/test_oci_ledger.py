"""What the ledger remembers and hides; that it hides what it should is proven in test_oci_layers.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import UnsafeEntry
from cachefetch.index import Index
from cachefetch.sources import oci_ledger
from cachefetch.sources.oci_ledger import Ledger, Part, PartType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index.create(tmp_path / "index")
    yield index
    index.close()


@pytest.fixture
def ledger(index: Index) -> Ledger:
    return Ledger.create(index)


def part(path: str, kind: str = "f", mtime: int = 5, target: bytes = b"") -> Part:
    return Part(path.encode(), PartType(kind), 0o644, mtime, target)


def test_what_layers_have_is_known_to_the_next_version(index: Index, ledger: Ledger) -> None:
    entered = {2: [part("a/b"), part("a/link", "l", target=b"x")], 0: [part("a", "d", mtime=-7), part("a/.wh.b", "w")]}
    for position, parts in entered.items():
        ledger.begin(position, b"token %d" % position)
        for each in parts:
            ledger.add(each)
    index.close()
    found = Index.open(index.path)
    assert found is not None
    known = Ledger.known(found)
    assert known is not None
    for position, parts in entered.items():
        assert known.position(b"token %d" % position) == position
        assert list(known.parts(position)) == sorted(parts)
    assert known.position(b"token 1") is None
    found.close()


def test_a_version_of_another_source_has_no_ledger(index: Index) -> None:
    assert Ledger.known(index) is None
    assert Ledger.known(None) is None


@pytest.mark.parametrize(("first", "second"), [("f", "f"), ("f", "d"), ("d", "f"), ("l", "i"), ("d", "l"), ("w", "f")])
def test_a_layer_has_one_thing_at_a_path(ledger: Ledger, first: str, second: str) -> None:
    ledger.begin(0, b"")
    ledger.add(part("a", first))
    with pytest.raises(UnsafeEntry, match="'a' is refused: its layer has it twice"):
        ledger.add(part("a", second))


@pytest.mark.parametrize(("first", "second"), [("d", "d"), ("i", "d"), ("w", "w")])
def test_a_directory_is_what_was_said_last(ledger: Ledger, first: str, second: str) -> None:
    ledger.begin(0, b"")
    ledger.add(part("a", first, mtime=1))
    ledger.add(part("a", second, mtime=2))
    assert ledger.find(b"a") == part("a", second, mtime=2)


def test_directories_that_are_not_listed_are_told_once_and_anything_else_there_is_refused(ledger: Ledger) -> None:
    ledger.begin(0, b"")
    ledger.add(part("a", "d"))
    assert ledger.unlisted(b"a/b/c/d") == [b"a/b", b"a/b/c"]
    assert ledger.unlisted(b"a/b/c/e") == []
    assert ledger.unlisted(b"top") == []
    ledger.add(part("file"))
    with pytest.raises(UnsafeEntry, match="'file/x/y' is refused: an entry above it is a file or a symlink"):
        ledger.unlisted(b"file/x/y")


def test_the_memory_of_directories_is_bounded_and_never_wrong(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_ledger, "_MEMORY", 3)
    ledger.begin(1, b"upper")
    for number in range(0, 20, 2):
        ledger.add(part(f"d{number}/.wh.x", "w"))
    ledger.begin(0, b"lower")
    for _ in range(2):
        for number in range(20):
            ledger.unlisted(b"d%d/x/y" % number)
            assert ledger.hidden(b"d%d/x/y" % number) is (number % 2 == 0)


def test_a_path_of_any_depth_is_looked_up(ledger: Ledger) -> None:
    ledger.begin(1, b"upper")
    ledger.add(part("a", "f"))
    ledger.begin(0, b"lower")
    assert ledger.hidden(b"/".join([b"a"] * 2000))
    assert not ledger.hidden(b"/".join([b"b"] * 2000))
    assert len(ledger.unlisted(b"/".join([b"b"] * 2000))) == 1999


def test_wanted_files_are_taken_by_the_path_of_their_content(ledger: Ledger) -> None:
    ledger.begin(0, b"")
    for each in (part("b", target=b"a"), part("a"), part("c", target=b"a"), part("z")):
        ledger.want(each)
    assert ledger.wanting()
    assert ledger.take(b"a") == [b"a", b"b", b"c"]
    assert ledger.take(b"a") == []
    assert ledger.wanting()
    assert ledger.take(b"z") == [b"z"]
    assert not ledger.wanting()


def test_entries_are_counted_also_when_they_are_hidden(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_ledger, "_PARTS_MAX", 3)
    for position in (1, 0):
        ledger.begin(position, b"%d" % position)
        ledger.add(part("a"))
    ledger.add(part("b"))
    with pytest.raises(UnsafeEntry, match="more than 3 entries"):
        ledger.add(part("c"))


@pytest.mark.root
def test_a_full_disk_is_said_as_such(mount: Callable[..., Path]) -> None:
    place = mount("full", "-t", "tmpfs", "-o", "size=256k", "tmpfs")
    index = Index.create(place / "index")
    ledger = Ledger.create(index)
    ledger.begin(0, b"")
    with pytest.raises(OSError, match="No space left"):
        for number in range(200_000):
            ledger.add(part(f"{number:0100}"))
    index.abandon()
