from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import Busy, NotReady, OutOfSpace
from csi.disks.jobs import Jobs, Task

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.close()


def test_calls_of_one_key_share_one_job(jobs: Jobs) -> None:
    go, begun = threading.Event(), []

    def work(_task: Task) -> int:
        begun.append(1)
        go.wait(10)
        return 7

    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(jobs.run, "key", work, 10.0) for _ in range(5)]
        while not begun:
            pass
        go.set()
        assert [call.result() for call in calls] == [7] * 5
    assert len(begun) == 1
    assert jobs.run("key", work, 10.0) == 7
    assert len(begun) == 2


def test_wait_ends_with_the_progress_and_the_work_goes_on(jobs: Jobs) -> None:
    go, done = threading.Event(), threading.Event()

    def work(task: Task) -> str:
        task.begin("the image is being copied", 200)
        task.advance(50)
        go.wait(10)
        done.set()
        return "made"

    with pytest.raises(NotReady):
        jobs.run("key", work, 0.05)
    with pytest.raises(NotReady, match="copied, 25 %"):
        jobs.run("key", work, 0.05)
    go.set()
    assert done.wait(10)


def test_error_reaches_everybody_who_waits_and_the_next_call_tries_anew(jobs: Jobs) -> None:
    def fail(_task: Task) -> int:
        raise OutOfSpace("full")

    with pytest.raises(OutOfSpace, match="full"):
        jobs.run("key", fail, 10.0)
    assert jobs.run("key", lambda _task: 3, 10.0) == 3


def test_close_stops_jobs_and_refuses_new_ones(jobs: Jobs) -> None:
    stopped = threading.Event()

    def work(task: Task) -> None:
        try:
            while True:
                task.stopping.wait(0.01)
                task.advance(1)
        except Busy:
            stopped.set()
            raise

    with pytest.raises(NotReady):
        jobs.run("key", work, 0.01)
    jobs.close()
    assert stopped.is_set()
    with pytest.raises(Busy, match="stops"):
        jobs.run("other", work, 1.0)
