from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.units import duration, size

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@given(st.integers(1, 10**9), st.sampled_from(sorted(SECONDS)))
def test_duration_is_number_times_unit(number: int, unit: str) -> None:
    assert duration(f"{number}{unit}") == pytest.approx(number * SECONDS[unit])


@given(st.integers(1, 10**9), st.sampled_from(sorted(BYTES)))
def test_size_is_number_times_unit(number: int, unit: str) -> None:
    assert size(f"{number}{unit}") == number * BYTES[unit]


@given(st.integers(1, 10**14))
def test_plain_integers_are_bytes(number: int) -> None:
    assert size(number) == number


@given(st.text() | st.integers(max_value=0) | st.booleans() | st.none() | st.floats())
def test_anything_else_is_refused_with_the_remedy(value: object) -> None:
    """Whatever is given: a positive result, or a ValueError that says what to write."""
    for parse in (duration, size):
        try:
            assert parse(value) > 0
        except ValueError as error:
            assert "write" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5 m",
        "m",
        "-5m",
        "+5m",
        "5M",
        "5min",
        "1.5h",
        "0s",
        "1h30m",
        "٣s",
        "5m\n",
        "9" * 5000 + "s",
        5,
        True,
        None,
    ],
)
def test_not_a_duration(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


@pytest.mark.parametrize(
    "text", ["", "Gi", "-1", "1.5Gi", "1 Gi", "1gi", "1K", "1GiB", "0", 0, -1, True, 1.0, None, "9" * 5000]
)
def test_not_a_size(text: object) -> None:
    with pytest.raises(ValueError, match="not a size"):
        size(text)
