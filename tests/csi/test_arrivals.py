"""How long a call waits: as long as asked, and no longer than its caller."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from csi.arrivals import explain, patience
from tests.csi.caller import FakeCaller


@given(st.floats(0, 1e6), st.one_of(st.none(), st.floats(-10, 1e6)))
def test_patience_ends_before_the_caller_does(seconds: float, remaining: float | None) -> None:
    result = patience(seconds, FakeCaller(remaining))
    assert 0 <= result <= seconds
    if remaining is not None and remaining > 0:
        assert result <= remaining * 0.9


def test_what_did_not_come_is_named_with_the_reason() -> None:
    assert explain("deps", "", "(it is slow)") == (
        "cache 'deps' is not on this node yet (it is slow); the mount is tried again"
    )
    assert explain("deps", "0" * 64, "").startswith("version 000000000000 of cache 'deps' ")
