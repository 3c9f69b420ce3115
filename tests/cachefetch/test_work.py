from __future__ import annotations

from cachefetch.schedule import Look
from cachefetch.terminal import Meter
from cachefetch.work import Ended, State, Work, how_far, status

GOOD, BAD = Ended(1.0), Ended(1.0, error="it is away: connect it")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def meter(total: int | None = None, done: int = 0, *, seconds: float = 0.0) -> Meter:
    clock = Clock()
    made = Meter("", clock)
    made.expect(total)
    clock.now, made.done = seconds, done
    return made


def test_who_needs_what_is_there_now_is_not_answered_by_what_began_earlier() -> None:
    work = Work()
    work.begin(meter())
    late, early = work.ticket(join=False), work.ticket(join=True)
    work.end(GOOD)
    assert work.answer(early) is GOOD
    assert work.answer(late) is None
    work.begin(meter())
    assert work.answer(late) is None
    work.end(BAD)
    assert work.answer(late) is BAD
    assert work.answer(early) is BAD


def test_when_nothing_runs_both_wait_for_the_next() -> None:
    work = Work()
    assert work.ticket(join=True) == work.ticket(join=False) == 1
    work.begin(meter())
    work.end(GOOD)
    assert work.ticket(join=True) == work.ticket(join=False) == 2


def test_what_is_interrupted_answers_nobody_and_keeps_the_last_error() -> None:
    work = Work()
    work.begin(meter())
    work.end(BAD)
    work.begin(meter())
    work.end(None)
    assert work.answer(1) is None
    assert work.error == BAD.error


def test_every_state_has_its_words() -> None:
    idle, hand, due, running = Look(100, 0, False), Look(None, 0, False), Look(5, 0, False), Look(None, 0, True)
    failed = Work(error=BAD.error)
    assert _told(Work(), idle) == (State.IDLE, "next refresh in 1m30s")
    assert _told(Work(), hand) == (State.IDLE, "next refresh only by hand")
    assert _told(Work(), due) == (State.QUEUED, "it waits for its turn to be fetched")
    assert _told(failed, due) == (State.QUEUED, "it waits for its turn to be fetched")
    assert _told(failed, idle) == (State.FAILED, "last try failed: it is away: connect it; next in 1m30s")
    assert _told(Work(meter=meter()), running) == (State.LOOKING, "its source is being looked at")
    fetching = Work(meter=meter(1 << 20, 1 << 19, seconds=2), fetching=True)
    assert _told(fetching, running) == (State.FETCHING, "fetching 512 KiB of 1.0 MiB, 50%, 2.0 s left")


def _told(work: Work, look: Look) -> tuple[State, str]:
    found = status("deps", work, look, "", 10.0)
    return found.state, found.text


def test_how_far_says_what_it_knows_and_no_more() -> None:
    assert how_far(meter(None, 2048)) == "2.0 KiB"
    assert how_far(meter(4096, 0)) == "0 B of 4.0 KiB, 0%"
    assert how_far(meter(4096, 4096, seconds=1)) == "4.0 KiB, finishing"


def test_how_far_it_is_is_no_news() -> None:
    look = Look(None, 0, True)
    one = status("deps", Work(meter=meter(10, 1), fetching=True), look, "", 0)
    two = status("deps", Work(meter=meter(10, 2), fetching=True), look, "", 0)
    three = status("deps", Work(meter=meter(10, 2)), look, "", 0)
    assert one.news() == two.news() != three.news()
