"""A real HTTP server on loopback for tests: ranges, validators, redirects, and faults on demand."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Resource:
    """What is served at one path. The fault lists are used up, one item a request."""

    content: bytes = b""
    etag: str | None = None
    """None: made from the content; empty: none is sent."""
    last_modified: str = ""
    ranges: bool = True
    if_range: bool = True
    """Whether it heeds that header."""
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str = ""
    announced: int | None = None
    """A Content-Length that is not true."""
    chunked: bool = False
    """Without Content-Length."""
    cut_after: list[int] = field(default_factory=list)
    """Break the connection after so many bytes of the body."""
    statuses: list[int] = field(default_factory=list)
    """Answer this instead; 0: answer properly."""

    @property
    def tag(self) -> str:
        """The ETag that is sent."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"' if self.etag is None else self.etag


@dataclass
class Seen:
    """One request."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0
    """Bytes of the body."""


class Httpd:
    """Resources by path, and every request that came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.resources: dict[str, Resource] = {}
        self.requests: list[Seen] = []

    def url(self, path: str, user: str = "") -> str:
        """The URL of `path`."""
        return f"http://{user + '@' if user else ''}127.0.0.1:{self.port}{path}"

    def serve(self, path: str, content: bytes, **more: Any) -> Resource:
        """Serve `content` at `path` from now on."""
        self.resources[path] = Resource(content, **more)
        return self.resources[path]

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(seen.sent for seen in self.requests)


@contextlib.contextmanager
def running(wrap: Callable[[Any], Any] = lambda socket: socket) -> Iterator[Httpd]:
    """A server until the end of the block; `wrap` may put TLS around its socket."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = False
    server.socket = wrap(server.socket)
    server.httpd = Httpd(server.server_address[1])  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.httpd  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Nothing: tests look at `requests`."""

    def do_GET(self) -> None:
        httpd: Httpd = self.server.httpd  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        seen = Seen(self.path, dict(self.headers))
        httpd.requests.append(seen)
        self.close_connection = True
        resource = httpd.resources.get(path)
        status = (
            404
            if resource is None
            else 302
            if resource.redirect
            else resource.statuses.pop(0)
            if resource.statuses
            else 0
        )
        try:
            if resource is None or status:
                self._plain(seen, status, resource)
            else:
                self._resource(seen, resource)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has read enough

    def _plain(self, seen: Seen, status: int, resource: Resource | None) -> None:
        seen.status = status
        self.send_response(status)
        if resource is not None:
            if resource.redirect:
                self.send_header("Location", resource.redirect)
            for name, value in resource.headers.items():
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def _resource(self, seen: Seen, resource: Resource) -> None:
        size = len(resource.content)
        start = self._start(resource)
        if self._unchanged(resource):
            seen.status = 304
        elif start is not None and start >= size:
            seen.status = 416
        else:
            seen.status = 200 if start is None else 206
        body = resource.content[start or 0 :] if seen.status in {200, 206} else b""
        self.send_response(seen.status)
        self.send_header("Connection", "close")
        if resource.tag:
            self.send_header("ETag", resource.tag)
        if resource.last_modified:
            self.send_header("Last-Modified", resource.last_modified)
        if seen.status == 416:
            self.send_header("Content-Range", f"bytes */{size}")
        if seen.status == 206:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        for name, value in resource.headers.items():
            self.send_header(name, value)
        announced = resource.announced if seen.status == 200 and resource.announced is not None else len(body)
        if resource.chunked and seen.status in {200, 206}:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        self._body(seen, resource, body)

    def _body(self, seen: Seen, resource: Resource, body: bytes) -> None:
        cut = resource.cut_after.pop(0) if body and resource.cut_after else None
        view = memoryview(body)[:cut]
        while view:
            piece = bytes(view[:65536])
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if resource.chunked else piece)
            seen.sent += len(piece)
            view = view[len(piece) :]
        if resource.chunked and cut is None:
            self.wfile.write(b"0\r\n\r\n")

    def _start(self, resource: Resource) -> int | None:
        match = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range") if resource.if_range else None
        if not match or not resource.ranges or (condition and condition not in {resource.tag, resource.last_modified}):
            return None
        return int(match[1])

    def _unchanged(self, resource: Resource) -> bool:
        if tag := self.headers.get("If-None-Match"):
            return tag == resource.tag
        return bool(resource.last_modified) and self.headers.get("If-Modified-Since") == resource.last_modified
