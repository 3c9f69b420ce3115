"""A small HTTP server for Prometheus and for the probes of Kubernetes: GET /metrics and GET /healthz."""

from __future__ import annotations

import logging
import re
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from cachefetch.errors import ConfigError, Precondition
from cachefetch.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

_log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_TEXT = "text/plain; charset=utf-8"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 address stands in brackets. Port 0 takes a free one.

    Raises:
        ConfigError: not of that form.
    """
    match = _ADDRESS.fullmatch(text)
    if not match or int(match["port"]) > 65535:  # noqa: PLR2004 - the largest port
        raise ConfigError(f"--metrics-address: {text!r} is not HOST:PORT: use for example 127.0.0.1:9808 or [::1]:9808")
    return match["v6"] or match["host"], int(match["port"])


class HealthServer:
    """Serves the metrics of `registry` and the answer of `unhealthy`, each request in a thread of its own."""

    def __init__(self, address: str, registry: CollectorRegistry, unhealthy: Callable[[], str]) -> None:
        """Listen on `address`.

        Args:
            address: as `parse_address` takes it.
            registry: what GET /metrics shows.
            unhealthy: gives the reason why GET /healthz answers 503, or "" for 200. Called in any thread.

        Raises:
            ConfigError: `address` is malformed.
            Precondition: the address cannot be listened on.
        """
        host, port = parse_address(address)
        try:
            family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._listener = _Listener(family, where, registry, unhealthy)
        except OSError as error:
            raise Precondition(
                f"--metrics-address: cannot listen on {address}: {error.strerror}; use a free address of this machine"
            ) from error
        self._thread = threading.Thread(target=self._listener.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port in use, also when 0 was asked for."""
        return int(self._listener.server_address[1])

    def start(self) -> None:
        """Serve until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port. Does not wait for requests that run: their threads end with the process."""
        if self._thread.is_alive():
            self._listener.shutdown()
            self._thread.join()
        self._listener.server_close()


class _Listener(ThreadingMixIn, TCPServer):
    """Not http.server.HTTPServer, which asks the DNS for the host's name: the node plugin opens no connection."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self,
        family: socket.AddressFamily,
        where: tuple[object, ...],
        registry: CollectorRegistry,
        unhealthy: Callable[[], str],
    ) -> None:
        self.address_family = family
        self.registry = registry
        self.unhealthy = unhealthy
        super().__init__(where, _Handler)  # type: ignore[arg-type] # typeshed knows (host, port) only, IPv6 has 4 items

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the signature of the base
        """Clients that go away in the middle are no event; the base class would print a traceback."""
        _log.debug("http_request_broken", exc_info=True, extra=fields(client=client_address))


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    timeout = 5.0  # seconds for a client to say what it wants; kubelet and Prometheus need milliseconds
    server_version = "goldlink"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        try:
            status, kind, text = self._answer(path)
        except Exception:  # noqa: BLE001 - the boundary of the request; logged with its traceback
            _log.exception("http_request_failed", extra=fields(path=path))
            status, kind, text = HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"internal error: see the log\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self.server.registry)
        if path == "/healthz":
            reason = self.server.unhealthy()
            status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
            return status, _TEXT, f"{reason or 'ok'}\n".encode("utf-8", "backslashreplace")
        return HTTPStatus.NOT_FOUND, _TEXT, b"not found: try /metrics or /healthz\n"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of the base class
        """One debug line a request; the base class would print it to stderr."""
        _log.debug("http_request", extra=fields(client=self.client_address[0], text=format % args))
