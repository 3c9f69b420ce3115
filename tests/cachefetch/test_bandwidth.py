from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachefetch.bandwidth import Bandwidth


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_without_a_rate_nobody_waits() -> None:
    clock = Clock()
    Bandwidth(None, clock=clock, sleep=clock.sleep).spend(1 << 40)
    assert clock.now == 0


@given(st.lists(st.integers(0, 1 << 20), min_size=1, max_size=50), st.floats(1e3, 1e7))
def test_all_together_keep_the_rate(pieces: list[int], rate: float) -> None:
    clock = Clock()
    bandwidth = Bandwidth(rate, clock=clock, sleep=clock.sleep)
    for piece in pieces:
        bandwidth.spend(piece)
    took = sum(pieces) / rate
    assert took - 0.26 <= clock.now <= took + 1e-6


def test_a_pause_is_not_made_up_for() -> None:
    clock = Clock()
    bandwidth = Bandwidth(100, clock=clock, sleep=clock.sleep)
    bandwidth.spend(100)
    clock.now += 1000
    before = clock.now
    bandwidth.spend(100)
    assert clock.now - before >= 0.75 - 1e-6
