"""A proxy in front of a real server: counts what passes, and does on request what a bad network or server does.

with faulty_proxy("http://127.0.0.1:8080") as proxy:
    proxy.inject(CutOff(after=1000), path="/big", times=2)
    proxy.inject(Answer(503, {"Retry-After": "1"}), skip=1, times=1)
    ...  # talk to proxy.url
    assert proxy.traffic.sent("/big") < …
"""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.servers.web import PIECE, Request, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.servers.traffic import Traffic

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}


@dataclass(frozen=True)
class Answer:
    """Answer this, without asking the server: a busy one, an expired login, a redirect to the same place."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"refused\n"


@dataclass(frozen=True)
class CutOff:
    """Close the connection after so many bytes of the body."""

    after: int


@dataclass(frozen=True)
class Slow:
    """Send `piece` bytes of the body at a time, with a pause in seconds before each."""

    pause: float
    piece: int


@dataclass(frozen=True)
class Longer:
    """Announce a body that is so many bytes longer than what comes (negative: shorter), then close."""

    by: int


@dataclass(frozen=True)
class Flip:
    """Deliver the body with one bit wrong in the byte at this offset."""

    at: int


Fault = Answer | CutOff | Slow | Longer | Flip


@dataclass
class _Rule:
    fault: Fault
    path: str
    skip: int
    times: float


class FaultyProxy:
    """Passes requests on to `upstream` with the client's own Host header, so that signatures and redirects hold."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.url = ""
        self.traffic: Traffic

    def inject(self, fault: Fault, *, path: str = "/", skip: int = 0, times: float = float("inf")) -> None:
        """Do this to requests whose path starts with `path`: not to the first `skip`, then so many `times`.

        Only requests to which no earlier fault is done count.
        """
        with self._lock:
            self._rules.append(_Rule(fault, path, skip, times))

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._rules.clear()

    def respond(self, request: Request) -> None:
        """Answer one request."""
        fault = self._fault(request.path)
        if isinstance(fault, Answer):
            for _ in request.body():
                pass
            request.reply(fault.status, fault.body, fault.headers)
            return
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            _pass_on(request, connection)
            with connection.getresponse() as response:
                _answer(request, response, fault)
        finally:
            connection.close()

    def _fault(self, path: str) -> Fault | None:
        with self._lock:
            for rule in self._rules:
                if not path.startswith(rule.path) or rule.times <= 0:
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.times -= 1
                return rule.fault
        return None


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """A proxy in front of the server at this URL, without faults at first."""
    proxy = FaultyProxy(upstream)
    with serving(proxy.respond) as server:
        proxy.url, proxy.traffic = server.url, server.traffic
        yield proxy


def _pass_on(request: Request, connection: http.client.HTTPConnection) -> None:
    connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers.items():
        if name.lower() not in _HOP_BY_HOP | {"expect"}:
            connection.putheader(name, value)
    chunked = "Transfer-Encoding" in request.headers
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for piece in request.body():
        connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        connection.send(b"0\r\n\r\n")


def _answer(request: Request, response: http.client.HTTPResponse, fault: Fault | None) -> None:
    """The server's answer, with the fault; an answer of unknown length ends with its connection."""
    headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
    length = response.getheader("Content-Length")
    bodiless = request.command == "HEAD" or response.status in {204, 304}
    if isinstance(fault, Longer) and length is not None:
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        headers.append(("Content-Length", str(int(length) + fault.by)))
    if fault is not None or (length is None and not bodiless):
        headers.append(("Connection", "close"))
        request.close_connection = True
    request.begin(response.status, headers)
    if not bodiless:
        for piece in _pieces(response, fault):
            request.send(piece)


def _pieces(response: http.client.HTTPResponse, fault: Fault | None) -> Iterator[bytes]:
    size, at = fault.piece if isinstance(fault, Slow) else PIECE, 0
    while piece := response.read(size):
        if isinstance(fault, Slow):
            time.sleep(fault.pause)
        if isinstance(fault, CutOff) and at + len(piece) > fault.after:
            yield piece[: fault.after - at]
            return
        if isinstance(fault, Flip) and at <= fault.at < at + len(piece):
            wrong = bytearray(piece)
            wrong[fault.at - at] ^= 1
            piece = bytes(wrong)
        yield piece
        at += len(piece)
