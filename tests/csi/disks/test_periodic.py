from __future__ import annotations

import threading

from cachefetch.errors import Busy
from csi.disks.periodic import Periodic


def test_work_is_done_at_once_and_again_also_after_errors() -> None:
    turns: list[int] = []
    enough = threading.Event()

    def work() -> None:
        turns.append(1)
        if len(turns) == 4:
            enough.set()
        raise (OSError("x"), Busy("y"))[len(turns) % 2]

    periodic = Periodic("work", work, 0.01)
    periodic.start()
    assert enough.wait(10)
    periodic.stop()


def test_stop_ends_the_wait() -> None:
    done = threading.Event()
    periodic = Periodic("work", done.set, 3600)
    periodic.start()
    assert done.wait(10)
    periodic.stop()
    periodic._thread.join(10)
    assert not periodic._thread.is_alive()
