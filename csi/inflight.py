"""One call at a time for each volume."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cachefetch.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator


class InFlight:
    """The volumes that a call works on now. CSI lets a second call fail with ABORTED ("Concurrency", spec 1.12)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: set[str] = set()

    @contextmanager
    def claim(self, volume_id: str) -> Iterator[None]:
        """Be the only call that works on the volume.

        Raises:
            Busy: another call does; nothing was changed.
        """
        with self._lock:
            if volume_id in self._ids:
                raise Busy(
                    f"another call works on volume {volume_id!r}: nothing was changed, try again when it is done"
                )
            self._ids.add(volume_id)
        try:
            yield
        finally:
            with self._lock:
                self._ids.remove(volume_id)
