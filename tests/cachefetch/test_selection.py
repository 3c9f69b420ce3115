from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.config import Cache, Config, Directory
from cachefetch.errors import InvalidRequest, UnknownVersion
from cachefetch.selection import check_known, declared, one_version, present, split, version_ids
from cachefetch.store import Store
from tests.cachefetch.fakes import publish

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = Config(caches=tuple(Cache(name=name, source=Directory(path="/x")) for name in ("one", "two")))
ID = "ab" + "0" * 62
OTHER = "ac" + "0" * 62


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With two versions of the undeclared cache `old`; reading needs no more of them than their directories."""
    store = Store.open(tmp_path / "state")
    for version_id in (OTHER, ID):
        store.tree("old", version_id).mkdir(parents=True)
    return store


@pytest.mark.parametrize(
    ("names", "expected"), [([], ["one", "two"]), (["two"], ["two"]), (["two", "one", "two"], ["one", "two"])]
)
def test_named_caches_come_once_and_in_the_order_of_the_configuration(names: list[str], expected: list[str]) -> None:
    assert [cache.name for cache in declared(CONFIG, names)] == expected


def test_an_undeclared_name_is_bad_usage_and_the_error_names_the_declared_ones() -> None:
    with pytest.raises(InvalidRequest, match="no cache 'three': there are one, two"):
        declared(CONFIG, ["one", "three"])
    with pytest.raises(InvalidRequest, match="none is declared"):
        declared(Config(caches=()), ["three"])


@given(name=st.from_regex(r"[a-z]+", fullmatch=True), prefix=st.from_regex(r"[0-9a-f]+", fullmatch=True))
def test_a_name_and_a_version_are_split_at_the_sign(name: str, prefix: str) -> None:
    assert split(f"{name}@{prefix}") == (name, prefix)
    assert split(name) == (name, "")


def test_a_version_that_is_announced_must_follow() -> None:
    with pytest.raises(InvalidRequest, match="names no version"):
        split("deps@")


def test_a_cache_is_known_when_it_is_declared_or_present(store: Store) -> None:
    assert check_known(store, CONFIG, "one") == "one"
    assert check_known(store, CONFIG, "old") == "old"
    for name in ("new", "..", "", "old/versions"):
        with pytest.raises(InvalidRequest, match="there are old, one, two"):
            check_known(store, CONFIG, name)


def test_looking_at_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    assert present(store) == []
    assert version_ids(store, "old") == []
    assert not store.root.exists()


def test_a_prefix_must_fit_exactly_one_version(store: Store) -> None:
    assert one_version(store, "old", "ab") == ID
    assert one_version(store, "old", ID) == ID
    with pytest.raises(UnknownVersion, match="2 versions"):
        one_version(store, "old", "a")
    with pytest.raises(UnknownVersion, match="no version"):
        one_version(store, "old", "b")


def test_no_prefix_means_the_current_version(store: Store) -> None:
    with pytest.raises(UnknownVersion, match="cachefetch refresh old"):
        one_version(store, "old", "")
    version = publish(store, [], "old")
    assert one_version(store, "old", "") == version.id
