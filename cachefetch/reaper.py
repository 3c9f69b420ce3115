"""Empties the trash in the background, so that no call waits for a deletion and nothing deleted stays for long."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from cachefetch.background import BackgroundStopped
from cachefetch.errors import GoldlinkError
from cachefetch.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = logging.getLogger(__name__)


class Reaper:
    """A thread that deletes what is in the trash when it is woken, and tries again every `interval` seconds."""

    def __init__(self, directory: Path, empty: Callable[[Path], object], interval: float = 60.0) -> None:
        """Empty `directory` with `empty`, which is `trash.empty` or does the same in a child process."""
        self._directory = directory
        self._empty = empty
        self._interval = interval
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Begin with what an earlier process left."""
        self._wake.set()
        self._thread.start()

    def wake(self) -> None:
        """There is something in the trash now."""
        self._wake.set()

    def stop(self) -> None:
        """End after the item that is being deleted; the rest waits for the next start."""
        self._stopping = True
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._interval)
            self._wake.clear()
            if self._stopping:
                return
            try:
                self._empty(self._directory)
            except BackgroundStopped:
                return
            except (OSError, GoldlinkError) as error:
                _log.warning("trash", extra=fields(error=str(error), directory=self._directory))
