from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cachefetch.linktree import LinkReport
from cachefetch.messages import decode_ended, decode_status, encode_ended, encode_status
from cachefetch.model import LinkMode, Totals, Version
from cachefetch.pb import fetch_pb2
from cachefetch.refresh import Refreshed
from cachefetch.work import Ended, State, Status

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
COUNT = st.integers(0, 2**63 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
VERSION = st.builds(Version, TEXT, TEXT, st.builds(Totals, COUNT, COUNT, COUNT), FLOAT)
MODES = st.dictionaries(st.sampled_from(LinkMode), st.integers(1, 2**62)).map(Counter)
FALLBACKS = st.dictionaries(st.tuples(st.sampled_from(LinkMode), TEXT), st.integers(1, 2**62)).map(Counter)
LINKS = st.builds(LinkReport, modes=MODES, directories=COUNT, own_bytes=COUNT, fallbacks=FALLBACKS)
REFRESHED = st.builds(Refreshed, VERSION, st.booleans(), COUNT, st.none() | LINKS)
DROPPED = st.lists(VERSION, max_size=2).map(tuple)
STATUS = st.builds(
    Status,
    cache=TEXT,
    state=st.sampled_from(State),
    current=TEXT,
    done=COUNT,
    total=st.none() | st.integers(1, 2**63 - 1),
    next_in=st.none() | FLOAT,
    error=TEXT,
    failures=COUNT,
    text=TEXT,
)


@given(STATUS)
def test_a_status_arrives_as_it_was(status: Status) -> None:
    message = fetch_pb2.CacheStatus.FromString(encode_status(status).SerializeToString())
    assert decode_status(message) == status


@given(st.builds(Ended, FLOAT, REFRESHED, st.just(""), DROPPED, TEXT) | st.builds(Ended, FLOAT, st.none(), TEXT))
def test_a_result_arrives_as_it_was(ended: Ended) -> None:
    message = fetch_pb2.RefreshResult.FromString(encode_ended(ended).SerializeToString())
    assert decode_ended(message) == ended


def test_a_state_of_a_newer_fetcher_is_no_error() -> None:
    message = fetch_pb2.CacheStatus.FromString(bytes([0x10, 99]))  # field 2, varint
    assert decode_status(message).state is State.IDLE
