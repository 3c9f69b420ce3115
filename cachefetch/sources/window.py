"""Work that a few threads do ahead, with its results in order: hides the latency of many small requests."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

T = TypeVar("T")
R = TypeVar("R")


def ahead(work: Callable[[T], R], items: Iterable[T], width: int) -> Generator[tuple[T, R]]:
    """Each item with the result of `work`, in the order of `items`.

    At most `width` items are taken from `items`, which happens in the caller's thread, before the first of them is
    given; so at most as many results wait in memory. An exception of `work` is raised when its item's turn comes.
    Close the generator when it is not read to its end: its threads end with it.
    """
    queue: SimpleQueue[_Job[T, R] | None] = SimpleQueue()
    threads: list[threading.Thread] = []
    waiting: deque[_Job[T, R]] = deque()
    try:
        for item in items:
            job: _Job[T, R] = _Job(item)
            waiting.append(job)
            queue.put(job)
            if len(threads) < width:
                # Daemons: the end of the process does not wait for a slow server.
                threads.append(threading.Thread(target=_serve, args=(queue, work), name="ahead", daemon=True))
                threads[-1].start()
            if len(waiting) == width:
                yield waiting.popleft().answer()
        while waiting:
            yield waiting.popleft().answer()
    finally:
        for job in waiting:
            job.dropped = True
        for _ in threads:
            queue.put(None)
        for thread in threads:
            thread.join()


class _Job(Generic[T, R]):
    """One item and what became of it."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.dropped = False
        self._done = threading.Event()
        self._results: list[R] = []
        self._error: BaseException | None = None

    def do(self, work: Callable[[T], R]) -> None:
        try:
            self._results.append(work(self.item))
        except BaseException as error:  # noqa: BLE001  (raised in the thread that waits for it)
            self._error = error
        self._done.set()

    def answer(self) -> tuple[T, R]:
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self.item, self._results[0]


def _serve(queue: SimpleQueue[_Job[T, R] | None], work: Callable[[T], R]) -> None:
    while (job := queue.get()) is not None:
        if not job.dropped:
            job.do(work)
