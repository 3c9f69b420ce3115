"""The world outside of the cluster, as the examples name it: a server of files, a registry with a login, the way there.

The machine of the cluster has no way out and no DNS. So pods get a proxy (`HTTPS_PROXY`), as in many companies. It
knows where the names lead. This file is also the program that runs in the machine: proxy and server of files.
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import ssl
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.e2e.machine import Machine

PROXY_PORT = 8888
_FILES_PORT, _REGISTRY_PORT = 8443, 5443
_START = 60.0  # seconds until all must answer, on a busy machine
_ROUTES = {"artifacts.example:443": _FILES_PORT, "registry.example:443": _REGISTRY_PORT}


class Outside:
    """What runs there, until the machine stops."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.directory = machine.directory / "outside"

    def start(self, user: str, password: str) -> None:
        """Return when names lead somewhere; `user` may pull from the registry, and push."""
        # The program in the machine has the standard library only.
        from tests.servers.nginx import htpasswd
        from tests.servers.tls import make_certificates

        for name in ("files", "registry"):
            (self.directory / name).mkdir(parents=True)
        tls = make_certificates(self.directory, *(route.partition(":")[0] for route in _ROUTES))
        self.authority = tls.authority
        htpasswd(self.directory / "htpasswd", user, password)
        registry = _registry(self.directory, str(tls.certificate), str(tls.key))
        (self.directory / "registry.yml").write_text(json.dumps(registry))
        settings = {"files": f"{self.directory}/files", "certificate": f"{tls.certificate}", "key": f"{tls.key}"}
        with (self.directory / "log").open("ab") as log:
            self._machine.spawn([sys.executable, "-S", __file__, json.dumps(settings)], log)
            self._machine.spawn(["docker-registry", "serve", self.directory / "registry.yml"], log)
        end = time.monotonic() + _START
        while not all(self._listens(port) for port in (PROXY_PORT, _FILES_PORT, _REGISTRY_PORT)):
            assert time.monotonic() < end, f"the outside does not answer: see {self.directory}/log"
            time.sleep(0.2)

    def serve(self, name: str, content: bytes) -> None:
        """Let there be `https://artifacts.example/NAME`."""
        (self.directory / "files" / name).write_bytes(content)

    def push(self, layout: Path, name: str, login: str) -> None:
        """Let there be `registry.example/NAME`, the image of an OCI layout."""
        there = f"docker://127.0.0.1:{_REGISTRY_PORT}/{name}"
        options = ["--quiet", "--dest-tls-verify=false", f"--dest-creds={login}"]
        self._machine.run(["skopeo", "--insecure-policy", "copy", *options, f"oci:{layout}", there])

    def _listens(self, port: int) -> bool:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        return self._machine.attempt([sys.executable, "-S", "-c", connect]).returncode == 0


def _registry(directory: Path, certificate: str, key: str) -> dict[str, object]:
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
        "http": {
            "addr": f"127.0.0.1:{_REGISTRY_PORT}",
            "secret": "of no use",
            "relativeurls": True,
            "tls": {"certificate": certificate, "key": key},
        },
        "auth": {"htpasswd": {"realm": "outside", "path": str(directory / "htpasswd")}},
    }


async def _proxied(routes: Mapping[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """CONNECT (RFC 9110, section 9.3.6) to where the name leads."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        request = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = request.decode("ascii").split(" ", 2)
        port = routes.get(target) if method == "CONNECT" else None
        if port is None:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        else:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(_copied(reader, back), _copied(there, writer))
        await writer.drain()
    writer.close()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve_proxy() -> None:
    server = await asyncio.start_server(functools.partial(_proxied, _ROUTES), "0.0.0.0", PROXY_PORT)
    await server.serve_forever()


def _serve(settings: Mapping[str, Any]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings["certificate"], settings["key"])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=settings["files"])
    files = http.server.ThreadingHTTPServer(("127.0.0.1", _FILES_PORT), handler)
    files.socket = context.wrap_socket(files.socket, server_side=True)
    threading.Thread(target=files.serve_forever, daemon=True).start()
    asyncio.run(_serve_proxy())


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
