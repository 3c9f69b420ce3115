"""Work that is done again and again in the background."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from cachefetch.errors import GoldlinkError
from cachefetch.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)


class Periodic:
    """A thread that does `work` at once and then every `interval` seconds. What fails is logged and tried again."""

    def __init__(self, name: str, work: Callable[[], object], interval: float) -> None:
        self._work = work
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Do it no more; what is being done is finished by itself."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._work()
            except (GoldlinkError, OSError) as error:
                _log.warning(self._thread.name, extra=fields(error=str(error)))
            self._stopping.wait(self._interval)
