"""Runs the driver with something bad waiting for it, decided by an audit hook: `runner.py WHAT WHICH NUMBER node …`.

    kill THREAD NUMBER     SIGKILL before the event of that number that names a file of the state directory or a target,
                           counted in threads of that name
    slow EVENT SECONDS     the first event of that kind in a thread that serves a call waits

Every step that changes something on disk has an audit event before it (sys.audit events of os and open), and so does
the step after a mount, which looks at the target. So a kill before each event is a kill between any two steps.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import csi.__main__ as driver

_PATHS = ("os.", "open", "shutil.")


class Bomb:
    """The hook. `after` names the directories that matter; imports and the log do not count."""

    def __init__(self, what: str, which: str, number: float, places: tuple[str, ...]) -> None:
        self.what = what
        self.which = which
        self.number = number
        self.places = places

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.number <= 0 or not event.startswith(_PATHS):
            return
        if self.what == "slow":
            if event == self.which and threading.current_thread().name.startswith("rpc"):
                seconds, self.number = self.number, 0
                sys.stderr.write("event=slow\n")
                time.sleep(seconds)
        elif threading.current_thread().name.startswith(self.which) and self.matters(arguments):
            self.number -= 1
            if self.number == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def matters(self, arguments: tuple[Any, ...]) -> bool:
        """Names a file of ours, or is relative to an open directory, which only the link engine and the reaper use."""
        names = [os.fspath(one) for one in arguments if isinstance(one, str | bytes | os.PathLike)]
        return any(str(name).startswith(self.places) or not str(name).startswith("/") for name in names)


def main() -> int:
    what, which, number, *arguments = sys.argv[1:]
    state = arguments[arguments.index("--state-dir") + 1]
    places = (state, os.path.join(os.path.dirname(state), "pods"))  # noqa: PTH118, PTH120  (an audit hook hears pathlib)
    sys.addaudithook(Bomb(what, which, float(number), places))
    return driver.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
