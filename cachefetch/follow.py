"""Follow the configuration file: notice a change within two seconds, and keep the last valid one in force.

By polling, because a ConfigMap volume is swapped by renaming a symlink two levels up (`..data`), which a watch on the
file never sees. The file is small, so it is read each time: comparing stat results would miss an edit of equal size
within one tick of the file system's clock, and would save nothing that matters.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from cachefetch.config import Config, load, parse
from cachefetch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SETTLE = 0.1
"""Seconds in which a change must not change again: an editor that writes in place shows half a file for a moment, and
half a file can be a valid one that has lost caches."""
_SETTLE_TRIES = 5

logger = logging.getLogger(__name__)


class Follower:
    """Holds the configuration that is in force, and tells when it changes.

    Args:
        path: the configuration file.
        on_change: called with each new valid configuration.
        on_error: called once per distinct content that is not valid; what was valid last stays in force.
        interval: seconds between two looks.

    Raises:
        ConfigError: the file is not valid at the start.
    """

    def __init__(
        self,
        path: Path,
        on_change: Callable[[Config], None],
        on_error: Callable[[ConfigError], None],
        interval: float = 1.0,
    ) -> None:
        self._path = path
        self._on_change = on_change
        self._on_error = on_error
        self._interval = interval
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen = self._content()
        self._current = load(path) if self._seen is None else parse(self._seen)

    @property
    def current(self) -> Config:
        """The configuration that was valid last."""
        return self._current

    def start(self) -> None:
        """Look from now on every `interval` seconds, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="config", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; a callback that runs is finished first."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def poll(self) -> None:
        """Look once."""
        content = self._content()
        if content == self._seen:
            return
        for _ in range(_SETTLE_TRIES):
            self._stop.wait(_SETTLE)
            before, content = content, self._content()
            if content == before:
                break
        else:
            return  # still being written: the next look takes it
        if content == self._seen:
            return
        self._seen = content
        try:
            config = load(self._path) if content is None else parse(content)
        except ConfigError as error:
            self._on_error(error)
            return
        self._current = config
        self._on_change(config)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.poll()
            except Exception:  # whatever a callback raises must not end the following of the file
                logger.exception("a change of %s was not applied", self._path)

    def _content(self) -> bytes | None:
        """The bytes of the file; None when it cannot be read now."""
        try:
            return self._path.read_bytes()
        except OSError:
            return None
