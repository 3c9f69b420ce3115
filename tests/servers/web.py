"""A small HTTP/1.1 server inside of the test's process, for what has to be programmed: faults, tokens, the hub."""

from __future__ import annotations

import base64
import socketserver
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.servers.traffic import Exchange, Traffic

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

PIECE = 1 << 16


class Request(BaseHTTPRequestHandler):
    """One request; whoever responds calls `reply`, or `begin` and then `send` for each piece of the body."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server
    exchange: Exchange

    def respond(self) -> None:
        """Let the server's function answer."""
        self.exchange = Exchange(self.command, self.path, self.headers.get("Range", ""))
        self.server.traffic.add(self.exchange)
        self.server.respond(self)

    # The names are those of http.server.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer with a body of known length; a HEAD request gets its headers only."""
        self.begin(status, [("Content-Length", str(len(body))), *(headers or {}).items()])
        if self.command != "HEAD":
            self.send(body)

    def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send the status line and headers."""
        self.exchange.status = status
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        """Send a piece of the body; counted first, because the client's test may look as soon as it has arrived."""
        self.exchange.sent += len(data)
        try:
            self.wfile.write(data)
        except OSError:
            self.exchange.sent -= len(data)
            raise

    def body(self) -> Iterator[bytes]:
        """The request's body in pieces, of known length or chunked (RFC 9112, 7.1)."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, PIECE))):
            left -= len(piece)
            yield piece

    def credentials(self) -> tuple[str, str] | None:
        """User and password of the request's basic authentication (RFC 7617)."""
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        return user, password

    def log_message(self, *arguments: object) -> None:
        """Tests look at the traffic, not at a log."""


class Server(ThreadingHTTPServer):
    """Answers by calling one function."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, respond: Callable[[Request], None]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.respond = respond
        self.traffic = Traffic()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """A client that hangs up is none of our errors; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            socketserver.BaseServer.handle_error(self, request, client_address)


@contextmanager
def serving(respond: Callable[[Request], None]) -> Iterator[Server]:
    """Serve until the end of the block."""
    with Server(respond) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
