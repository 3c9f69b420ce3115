from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import InvalidRequest
from csi.disks import ids

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=32)
CACHES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
VERSIONS = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(NAMES, NAMES)
def test_ids_are_path_components_that_tell_names_and_kinds_apart(one: str, other: str) -> None:
    made = {
        ids.disk_id(one),
        ids.snapshot_id(one),
        ids.group_id(one),
        ids.snapshot_id(one, "disk-0"),
        ids.disk_id(other),
    }
    assert len(made) == (4 if one == other else 5)
    for id_ in made:
        assert "/" not in id_
        assert len(id_.encode()) <= ids.NAME_MAX
        assert [kind for kind in ("disk", "snap", "group") if ids.is_image(id_, kind)] == [id_.split("-")[0]]
        assert ids.parse_handle(id_) is None


@given(CACHES, VERSIONS, NAMES)
def test_handle_says_cache_and_version_and_fits(cache: str, version: str, name: str) -> None:
    handle = ids.cache_handle(cache, version, name)
    assert ids.parse_handle(handle) == ids.Handle(cache, version)
    assert len(handle.encode()) <= ids.NAME_MAX
    assert "/" not in handle
    assert not ids.is_image(handle, "disk")


@given(st.text())
def test_any_text_is_a_handle_or_is_not(text: str) -> None:
    handle = ids.parse_handle(text)
    assert handle is None or len(handle.version) == 64


@pytest.mark.parametrize("text", ["csi-0123", "", "deps@x@y", "a..b@" + "A" * 43 + "@" + "0" * 20, "../x"])
def test_foreign_ids_are_no_handles(text: str) -> None:
    assert ids.parse_handle(text) is None
    assert not ids.is_image(text, "disk")


@pytest.mark.parametrize("name", ["", "x" * 129, "ü" * 65, "a\nb", "a\x7f", "\x00", "a\x85"])
def test_names_that_csi_forbids_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        ids.check_name(name)


@pytest.mark.parametrize("name", ["x" * 128, "ü" * 64, "..", "a/b", " "])
def test_all_other_names_are_fine(name: str) -> None:
    assert ids.check_name(name) == name
