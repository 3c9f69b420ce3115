"""The model of the study: what enters it comes out, and nobody is faster than the rates allow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.network import Flow, simulate

FLOWS = st.lists(
    st.builds(Flow, name=st.just("f"), start=st.floats(0, 10), size=st.floats(1, 1000)), min_size=1, max_size=30
)


def test_one_flow_has_the_smaller_of_both_rates() -> None:
    flow = Flow("f", 1.0, 100.0)
    assert [event.time for event in simulate([flow], origin=10.0, limit=50.0)] == [1.0, 11.0]
    assert [event.time for event in simulate([flow], origin=50.0, limit=10.0)] == [1.0, 11.0]


def test_flows_share_the_origin_equally() -> None:
    """The short one ends when both have its size; the long one then has the origin alone."""
    events = list(simulate([Flow("long", 0, 30.0), Flow("short", 0, 10.0)], origin=10.0, limit=10.0))
    assert [(event.what, event.flow.name) for event in events[2:]] == [("end", "short"), ("end", "long")]
    assert [event.time for event in events[2:]] == pytest.approx([2.0, 4.0])


@given(FLOWS, st.floats(1, 100), st.floats(1, 100))
def test_every_flow_ends_once_and_none_is_faster_than_allowed(flows: list[Flow], origin: float, limit: float) -> None:
    events = list(simulate(flows, origin=origin, limit=limit))
    assert [event.time for event in events] == sorted(event.time for event in events)
    ends = [event for event in events if event.what == "end"]
    assert sorted(map(repr, (event.flow for event in ends))) == sorted(map(repr, flows))
    for event in ends:
        assert event.time - event.flow.start >= event.flow.size / min(origin, limit) * (1 - 1e-6)
    last, total = max(event.time for event in ends), sum(flow.size for flow in flows)
    assert last - min(flow.start for flow in flows) >= total / origin * (1 - 1e-6)
