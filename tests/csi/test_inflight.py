"""One call at a time for each volume, and a claim that never outlives its call."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachefetch.errors import Busy, Code
from csi.inflight import InFlight


def test_a_second_claim_is_refused_with_aborted_and_names_the_volume() -> None:
    inflight = InFlight()
    with inflight.claim("v"):
        with pytest.raises(Busy, match="'v'") as refused, inflight.claim("v"):
            pass
        assert refused.value.code is Code.ABORTED
        with pytest.raises(Busy), inflight.claim("v"):
            pass  # the refused call has not taken the claim away


def test_volumes_do_not_block_each_other() -> None:
    inflight = InFlight()
    with inflight.claim("v"), inflight.claim("w"):
        pass


def test_a_claim_ends_with_its_call_also_by_an_error() -> None:
    inflight = InFlight()
    with pytest.raises(RuntimeError), inflight.claim("v"):
        raise RuntimeError
    with inflight.claim("v"):
        pass


def test_of_many_threads_one_is_in_at_a_time() -> None:
    inflight, inside, most, refused = InFlight(), [], [], []
    barrier = threading.Barrier(8)

    def call(number: int) -> None:
        barrier.wait()
        for _ in range(300):
            try:
                with inflight.claim("v"):
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)
            except Busy:
                refused.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(8)))
    assert max(most) == 1
    assert len(most) + len(refused) == 8 * 300
