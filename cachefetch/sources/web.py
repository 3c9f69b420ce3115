"""GET over HTTP: one place that makes the client, turns every answer and failure into goldlink's words, and waits.

What an administrator should do about a failure is said here; a URL is shown without user, password and query.
"""

from __future__ import annotations

import email.utils
import logging
import random
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpcore2
import httpx2

from cachefetch import __version__
from cachefetch.errors import ConfigError, DataError, SourceError
from cachefetch.urls import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_TIMEOUT = httpx2.Timeout(connect=10, read=60, write=60, pool=10)
"""Seconds; `read` is the longest silence within an answer."""
_REDIRECTS_MAX = 5
_TRIES = 6
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0
_LOOK = 0.2
"""Seconds after which a pause notices that the process ends."""
_RETRY_AFTER_MAX = 60.0
"""A server that wants to be left alone for longer gets its wish: the next refresh tries again."""

_LONG = 4 << 20
"""Bytes from which a connection of its own costs less than the parser."""
_PIECE = 1 << 19
"""Most bytes that are received at once."""

# Four times what the library takes at once: each piece costs the same, however long it is.
httpcore2.HTTP11Connection.READ_NUM_BYTES = 1 << 18

# Both libraries log URLs or headers as they are, with passwords and signatures.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Interrupted(SourceError):
    """A failure that may pass within seconds: the connection broke, or the server is busy."""

    def __init__(self, text: str, retry_after: float = 0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Refused(SourceError):
    """The server answered, and will not change its mind within seconds."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Patience:
    """How often and how long a source waits for an origin; starts anew with every progress.

    Jittered, so that a thousand nodes do not come back to a restarted server in the same moment.
    """

    def __init__(
        self, sleep: Callable[[float], object] | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """There is no next try once `stopping` says that the process ends.

        `sleep` waits so many seconds; without it a wait that is under way is ended, too, by that or by `end`.
        """
        self._ended = threading.Event()
        self._stopping = stopping
        self._sleep = sleep or self._pause
        self._failures = 0

    def wait(self, failure: Interrupted) -> None:
        """Wait before the next try; raises `failure` when there is to be none."""
        self._failures += 1
        if self._failures >= _TRIES or failure.retry_after > _RETRY_AFTER_MAX or self._over():
            raise failure
        backoff = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (self._failures - 1)) * random.uniform(0.5, 1)  # noqa: S311  (no secret)
        self._sleep(max(backoff, failure.retry_after))
        if self._over():
            raise failure

    def progress(self) -> None:
        """Something arrived: failures before do not count any more."""
        self._failures = 0

    def end(self) -> None:
        """There is no next try any more. May be called by another thread."""
        self._ended.set()

    def check(self, url: str) -> None:
        """Raise SourceError when it was ended."""
        if self._over():
            raise SourceError(f"fetching {redact(url)} was interrupted: the next try goes on from there")

    def _over(self) -> bool:
        return self._ended.is_set() or self._stopping()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._over() and (left := end - time.monotonic()) > 0:
            self._ended.wait(min(left, _LOOK))


def make_client(*, ca: str | None = None, auth: httpx2.Auth | None = None) -> httpx2.Client:
    """The one place where TLS, proxies and credentials are set up.

    `ca` is a PEM file of authorities that are trusted besides the system's.

    Raises:
        ConfigError: the file cannot be used, or the proxy that the environment names.
    """
    try:
        return httpx2.Client(
            verify=_trust(ca) if ca else True,
            auth=auth,
            timeout=_TIMEOUT,
            follow_redirects=True,
            max_redirects=_REDIRECTS_MAX,
            headers={"User-Agent": f"goldlink/{__version__}", "Accept-Encoding": "identity"},
        )
    except (httpx2.InvalidURL, ValueError):  # quotes what it cannot read, perhaps a password
        raise ConfigError(
            "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is no URL of a proxy: write 'http://host:port', and a login in it "
            "percent-encoded"
        ) from None


def _trust(ca: str) -> ssl.SSLContext:
    context = httpx2.create_ssl_context()
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca} cannot be used as `ca` ({error}): give a file of certificates in PEM") from error
    return context


@contextmanager
def get(
    client: httpx2.Client, url: str, headers: Mapping[str, str], patience: Patience, *, method: str = "GET"
) -> Iterator[httpx2.Response]:
    """The answer to one GET (or HEAD) with its body still to be read: 200, 206, 304 or 416.

    Tries again as `patience` allows.

    Raises:
        SourceError: anything else; the text says what to do.
    """
    while True:
        try:
            response = _send(client, method, url, headers)
            break
        except Interrupted as failure:
            patience.wait(failure)
    try:
        yield response
    finally:
        response.close()


def connected(answer: httpx2.Response) -> socket.socket | None:
    """The socket that the answer comes from; None when the transport does not tell."""
    stream = answer.extensions.get("network_stream")
    found = stream.get_extra_info("socket") if stream is not None else None
    return found if isinstance(found, socket.socket) else None


def body(answer: httpx2.Response) -> Iterator[bytes]:
    """The content of an answer, in pieces as they come.

    A long one of known length is read from the connection itself as soon as the library has given out what came with
    the headers: its parser copies every byte four times. The connection is of no use for another request then.

    Raises:
        httpx2.TransportError: the connection broke, or ended too early.
    """
    pieces = answer.iter_raw()
    stream = answer.extensions.get("network_stream")
    expected = int(answer.headers.get("Content-Length", "0"))
    if stream is None or expected < _LONG or answer.http_version != "HTTP/1.1" or "Transfer-Encoding" in answer.headers:
        yield from pieces
        return
    yield (first := next(pieces, b""))  # all that the parser holds
    left = expected - len(first)
    while left:
        try:
            piece = stream.read(min(left, _PIECE), timeout=_TIMEOUT.read)
        except httpcore2.ReadTimeout as error:
            raise httpx2.ReadTimeout(str(error), request=answer.request) from error
        except httpcore2.NetworkError as error:
            raise httpx2.ReadError(str(error), request=answer.request) from error
        if not piece:
            raise httpx2.RemoteProtocolError(
                f"peer closed connection, received {expected - left} of {expected} bytes", request=answer.request
            )
        left -= len(piece)
        yield piece


def read(
    client: httpx2.Client, url: str, headers: Mapping[str, str], patience: Patience, *, limit: int
) -> tuple[bytes, httpx2.Headers]:
    """A whole answer of at most `limit` bytes, and its headers. Tries again as `patience` allows.

    Raises:
        DataError: it is larger.
        SourceError: as `get`.
    """
    while True:
        try:
            with get(client, url, headers, patience) as answer:
                body = bytearray()
                for chunk in answer.iter_raw():
                    body += chunk
                    if len(body) > limit:
                        raise DataError(
                            f"{redact(url)} is larger than {limit} bytes, which nothing of its kind is: correct the URL"
                        )
                return bytes(body), answer.headers
        except httpx2.TransportError as error:
            failure = interrupted(url, error)
            if not isinstance(failure, Interrupted):
                raise failure from error
            patience.wait(failure)


def interrupted(url: str, error: httpx2.TransportError) -> SourceError:
    """What a failure of the transport means; only some can pass within seconds."""
    shown = redact(url)
    if isinstance(error, httpx2.UnsupportedProtocol):
        return SourceError(f"{shown} redirects to what is not http or https: use a URL that serves the file itself")
    if _is_certificate_error(error):
        return SourceError(
            f"{shown} has a certificate that is not trusted ({error}): have its CA installed, or correct the URL"
        )
    if isinstance(error, httpx2.ProxyError):
        return SourceError(f"the proxy refuses {shown} ({error}): check HTTPS_PROXY and NO_PROXY")
    if isinstance(error, httpx2.TimeoutException):
        return Interrupted(f"{shown} does not answer in time: check the network between here and the server")
    reason = str(error) or type(error).__name__
    return Interrupted(f"{shown} cannot be fetched ({reason}): check the host name, the server and the network")


def _send(client: httpx2.Client, method: str, url: str, headers: Mapping[str, str]) -> httpx2.Response:
    try:
        response = client.send(client.build_request(method, url, headers=dict(headers)), stream=True)
    except httpx2.TransportError as error:
        raise interrupted(url, error) from error
    except httpx2.InvalidURL:
        raise SourceError(f"{redact(url)} is not a URL that can be fetched: correct its host") from None
    except httpx2.TooManyRedirects as error:
        raise SourceError(f"{redact(url)} redirects more than {_REDIRECTS_MAX} times: correct the URL") from error
    try:
        check(url, response)
    except SourceError:
        response.close()
        raise
    return response


def check(url: str, response: httpx2.Response) -> None:
    """Return if the answer to a request for `url` is one that `get` gives.

    Raises:
        Interrupted: the server is busy.
        Refused: it says no.
        SourceError: it leads to where nobody should go.
    """
    shown, status = redact(url), response.status_code
    if url.startswith("https:") and response.url.scheme != "https":
        raise SourceError(f"{shown} redirects to plain http: use a URL that stays with https")
    if status in {
        HTTPStatus.OK,
        HTTPStatus.PARTIAL_CONTENT,
        HTTPStatus.NOT_MODIFIED,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    }:
        return
    if (
        status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT}
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        pause = _retry_after(response.headers.get("Retry-After", ""))
        when = f" and wants to be left alone for {pause:.0f} s" if pause else ""
        raise Interrupted(
            f"{shown} answers {status} {response.reason_phrase}{when}: look at the server, or wait", pause
        )
    remedy: dict[int, str] = {
        HTTPStatus.UNAUTHORIZED: "give credentials that it accepts",
        HTTPStatus.FORBIDDEN: "give credentials that may read it, or a signed URL that has not expired",
        HTTPStatus.NOT_FOUND: "correct the URL, or upload the file",
        HTTPStatus.GONE: "correct the URL, or upload the file",
    }
    text = f"{shown} answers {status} {response.reason_phrase}: {remedy.get(status, 'correct the URL')}"
    raise Refused(text, status)


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110, 10.2.3); 0 for anything else."""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
