"""Long work in the background: one job per image however many calls want it, and calls that wait a bounded time.

A job belongs to the process, not to the call that began it: the caller is told how far it is and calls again. All work
is idempotent, so a result that nobody waited for is found again by the next call.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from cachefetch.errors import Busy, NotReady
from cachefetch.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)
_JOIN = 5.0  # seconds; a stopped tool ends at once, a block is read in milliseconds
PATIENCE = 50.0
"""Seconds that a call waits; an RPC never takes longer than 60."""

Result = TypeVar("Result")


class Task:
    """What a job says of itself, and how it is told to stop."""

    def __init__(self, stopping: threading.Event) -> None:
        self.stopping = stopping
        self._what = "it was begun"
        self._total = 0
        self._done = 0

    def begin(self, what: str, total: int = 0) -> None:
        """Now `what` is done, which takes `total` bytes."""
        self._what, self._total, self._done = what, total, 0

    def advance(self, count: int) -> None:
        """So many bytes more are done.

        Raises:
            Busy: the process stops.
        """
        self._done += count
        if self.stopping.is_set():
            raise Busy("the driver stops: the call is repeated when it is back")

    def __str__(self) -> str:
        """How far it is."""
        return f"{self._what}, {100 * self._done // self._total} %" if self._total else self._what


class _Job(Generic[Result]):
    """One piece of work in a thread of its own."""

    def __init__(self, key: str, work: Callable[[Task], Result], stopping: threading.Event) -> None:
        self.task = Task(stopping)
        self.done = threading.Event()
        self._work = work
        self._result: Result | None = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=key[:40], daemon=True)

    def result(self) -> Result:
        """The result, once it is done.

        Raises:
            BaseException: whatever the work raised.
        """
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # None only when Result has it

    def _run(self) -> None:
        try:
            self._result = self._work(self.task)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._error = error
            _log.info("job_failed", extra=fields(job=self.thread.name, error=repr(error)))
        finally:
            self.done.set()


class Jobs:
    """The jobs of this process. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job[object]] = {}
        self._stopping = threading.Event()

    def run(self, key: str, work: Callable[[Task], Result], seconds: float = PATIENCE) -> Result:
        """The result of `work`; joins the job of that key when one is under way. Waits up to `seconds`.

        Raises:
            NotReady: it takes longer; says how far it is. It goes on.
            Busy: the process stops.
            BaseException: whatever the work raised.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                if self._stopping.is_set():
                    raise Busy("the driver stops: the call is repeated when it is back")
                job = self._jobs[key] = _Job(key, self._finishing(key, work), self._stopping)
                job.thread.start()
        if not job.done.wait(seconds):
            raise NotReady(f"{job.task}: it goes on, call again")
        return job.result()  # type: ignore[return-value]  # the key tells the type

    def close(self) -> None:
        """Stop all jobs; what they were making is cleaned up by them, or by the next start."""
        self._stopping.set()
        deadline = time.monotonic() + _JOIN
        for job in list(self._jobs.values()):
            job.thread.join(max(0.0, deadline - time.monotonic()))

    def _finishing(self, key: str, work: Callable[[Task], Result]) -> Callable[[Task], Result]:
        def finish(task: Task) -> Result:
            try:
                return work(task)
            finally:
                with self._lock:
                    del self._jobs[key]

        return finish
