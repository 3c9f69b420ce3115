"""Who waits is known exactly as long as they wait."""

from __future__ import annotations

import pytest

from cachefetch.waiting import Pod, Wait, Waiting

POD = Pod("team-a", "web-0", "uid-1")


def test_a_wait_is_known_while_it_lasts() -> None:
    waiting = Waiting(lambda: 7.0)
    with waiting.of(POD, "deps"):
        assert waiting.all() == [Wait(POD, "deps", 7.0)]
    assert waiting.all() == []


def test_a_wait_that_fails_is_over_too() -> None:
    waiting = Waiting()
    with pytest.raises(OSError), waiting.of(POD, "deps"):
        raise OSError
    assert waiting.all() == []


def test_a_pod_may_wait_twice_for_one_cache() -> None:
    """Two of its volumes may show it; the end of one wait is not the end of the other."""
    waiting = Waiting()
    with waiting.of(POD, "deps"):
        with waiting.of(POD, "deps"):
            assert len(waiting.all()) == 2
        assert [wait.pod for wait in waiting.all()] == [POD]
