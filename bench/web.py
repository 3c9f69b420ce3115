"""An origin on the loopback interface that counts what it sends."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Origin:
    """Serves the files of a directory, with Last-Modified and 304 answers."""

    def __init__(self, directory: Path) -> None:
        self.sent = 0
        """Bytes of content so far."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self, directory=str(directory)))
        self._thread = threading.Thread(target=self._server.serve_forever, name="origin")

    @property
    def url(self) -> str:
        """Where it is, without a final slash."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[Origin]:
        """Serve while the body runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, origin: Origin, *arguments: Any, **named: Any) -> None:
        self._origin = origin
        super().__init__(*arguments, **named)

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:  # type: ignore[override]
        """Send by sendfile(2), so that the origin takes next to no time of the machine."""
        outputfile.flush()
        try:
            while count := os.sendfile(self.connection.fileno(), source.fileno(), None, 1 << 24):
                self._origin.sent += count
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has seen enough, for example that ranges are not offered

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name is the base class's
        """Nothing: requests are counted, not listed."""
