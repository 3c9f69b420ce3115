from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import UnsafeEntry
from cachefetch.paths import PATH_MAX, check_entry_path, show

PIECES = st.sampled_from(
    [b"a", b".", b"..", b"", b"/", b"\0", b"\xff", b"a" * 255, b"a" * 256, b"-", b" ", b"...", b"~"]
)
HOSTILE = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=20).map(b"/".join))


@given(HOSTILE)
def test_a_path_that_passes_stays_inside_wherever_it_is_put(path: bytes) -> None:
    try:
        assert check_entry_path(path) == path
    except UnsafeEntry:
        return
    assert os.path.normpath(b"/tree/" + path) == b"/tree/" + path
    assert b"\0" not in path
    assert len(path) <= PATH_MAX
    assert all(0 < len(name) <= 255 for name in path.split(b"/"))


@pytest.mark.parametrize("path", [b"a", b"a/b", b"...", b".a", b"a..", b"\xff\x01 \n", b"a" * 255, b"a/" * 1999 + b"b"])
def test_unusual_but_harmless_paths_pass(path: bytes) -> None:
    assert check_entry_path(path) == path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (b"", "1 to 4000 bytes"),
        (b"a/" * 2000 + b"b", "1 to 4000 bytes"),
        (b"/etc/passwd", "absolute"),
        (b"a\0b", "NUL"),
        (b"../a", "no component"),
        (b"a/../b", "no component"),
        (b"a/..", "no component"),
        (b"./a", "no component"),
        (b"a//b", "no component"),
        (b"a/", "no component"),
        (b"a" * 256, "255 bytes"),
    ],
)
def test_a_refused_path_is_named_with_the_reason(path: bytes, reason: str) -> None:
    with pytest.raises(UnsafeEntry, match=reason) as caught:
        check_entry_path(path)
    assert len(str(caught.value)) < 400


@given(st.binary(max_size=5000))
def test_any_path_is_shown_as_one_short_printable_line(path: bytes) -> None:
    shown = show(path)
    assert shown.isprintable()
    assert len(shown) < 1000
