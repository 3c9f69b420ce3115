from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import InvalidRequest
from cachefetch.model import (
    EntryType,
    Totals,
    Version,
    check_cache_name,
    check_version_id,
    check_volume_id,
    normal_mode,
    normal_mtime,
    short_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")  # the Kubernetes API's own expression
ID = "0a" * 32


@given(st.integers(0, 0o7777))
def test_a_file_is_readable_by_all_writable_by_none_and_executable_if_it_was_for_anybody(mode: int) -> None:
    assert normal_mode(EntryType.FILE, mode) == (0o555 if mode & 0o111 else 0o444)


@given(st.integers(0, 0o177777), st.sampled_from(EntryType))
def test_no_mode_keeps_set_id_or_sticky_bits(mode: int, type_: EntryType) -> None:
    assert normal_mode(type_, mode) & ~0o777 == 0


@pytest.mark.parametrize(
    ("origin", "kept"),
    [
        (0, 0),
        (-1, -1),
        (2**63 - 1, 2**63 - 1),
        (2**63, 2**63 - 1),
        (10**40, 2**63 - 1),
        (-(2**31) * 10**9, -(2**31) * 10**9),
        (-(10**40), -(2**31) * 10**9),
    ],
)
def test_an_mtime_that_no_file_system_takes_becomes_the_nearest_that_all_take(origin: int, kept: int) -> None:
    assert normal_mtime(origin) == kept


@given(st.one_of(st.text(max_size=70), st.from_regex(r"[a-z0-9.-]{0,64}", fullmatch=True)))
def test_a_cache_name_is_one_safe_path_component_and_a_label_value(name: str) -> None:
    try:
        assert check_cache_name(name) == name
    except InvalidRequest:
        return
    assert PurePosixPath("a", name).parts == ("a", name)
    assert len(name) <= 63
    assert not name.startswith(".")
    assert _LABEL_VALUE.fullmatch(name)


@pytest.mark.parametrize("name", ["a", "node-modules", "a.b", "0", "a" * 63])
def test_usual_cache_names_are_allowed(name: str) -> None:
    assert check_cache_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", "-a", "a-", "A", "a/b", "a\n", "a" * 64, "ä"])
def test_other_cache_names_are_not(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_cache_name(name)


@pytest.mark.parametrize("version_id", ["", "0a", ID[1:], ID + "0", ID.upper(), ID + "\n", "../" + ID[3:]])
def test_only_64_lower_case_hexadecimal_digits_are_a_version_id(version_id: str) -> None:
    assert check_version_id(ID) == ID
    with pytest.raises(InvalidRequest):
        check_version_id(version_id)


@given(st.text(max_size=140))
def test_a_volume_id_is_one_path_component_of_at_most_128_bytes(volume_id: str) -> None:
    try:
        check_volume_id(volume_id)
    except InvalidRequest:
        return
    assert PurePosixPath("/v", volume_id).parts == ("/", "v", volume_id)
    assert volume_id not in {".", ".."}
    assert 0 < len(volume_id.encode()) <= 128
    assert not any(ord(character) < 32 for character in volume_id)


@pytest.mark.parametrize("volume_id", ["", ".", "..", "a/b", "a\0", "a\nb", "ä" * 65, "\ud800"])
def test_other_volume_ids_are_refused_with_the_field_s_name(volume_id: str) -> None:
    with pytest.raises(InvalidRequest, match="volume_id"):
        check_volume_id(volume_id)


@pytest.mark.parametrize("check", [check_cache_name, check_version_id, check_volume_id])
def test_a_refusal_quotes_what_it_refuses_so_that_it_is_one_line(check: Callable[[str], str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check("a\nb")
    assert "\n" not in str(caught.value)


def test_people_see_the_first_twelve_characters_of_an_id() -> None:
    assert Version("c", ID, Totals(0, 0, 0), 0.0).short == short_id(ID) == ID[:12]
