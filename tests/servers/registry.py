"""The distribution project's registry, with basic or token authentication; a proxy before it counts."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.processes import free_port, listens, running
from tests.servers.faulty import FaultyProxy, faulty_proxy
from tests.servers.nginx import htpasswd
from tests.servers.tokens import ISSUER, SERVICE, TokenServer, running_token_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.images import Layout
    from tests.servers.traffic import Traffic


@dataclass(frozen=True)
class Registry:
    """A running registry."""

    proxy: FaultyProxy
    """In front of the registry."""
    user: str
    password: str
    tokens: TokenServer | None
    """None: the registry itself asks for user and password."""
    token_traffic: Traffic | None

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`, the first part of image references; plain HTTP."""
        return self.proxy.url.removeprefix("http://")

    def push(self, layout: Layout, name: str) -> str:
        """Push the image that is tagged in the layout as `NAME:TAG`, count nothing of it, and give its reference."""
        layout.push(f"{self.host}/{name}", user=self.user, password=self.password)
        for traffic in (self.proxy.traffic, self.token_traffic):
            if traffic:
                traffic.clear()
        return f"{self.host}/{name}"

    def sent(self, name: str, digest: str) -> int:
        """Bytes of this blob of a repository that were sent."""
        return self.proxy.traffic.sent(f"/v2/{name}/blobs/{digest}")


@contextmanager
def running_registry(directory: Path, *, by_token: bool) -> Iterator[Registry]:
    """A registry until the end of the block, with its files in `directory`."""
    directory.mkdir(parents=True)
    user, password, port = "puller", "pass:word", free_port()
    with ExitStack() as stack:
        tokens = traffic = None
        if by_token:
            tokens, server = stack.enter_context(running_token_server(directory, user, password))
            traffic = server.traffic
            token = {"realm": f"{server.url}/token", "service": SERVICE, "issuer": ISSUER}
            auth: dict[str, object] = {"token": {**token, "rootcertbundle": str(tokens.certificate)}}
        else:
            htpasswd(directory / "htpasswd", user, password)
            auth = {"htpasswd": {"realm": "goldlink", "path": str(directory / "htpasswd")}}
        configuration = directory / "config.yml"
        configuration.write_text(json.dumps(_configuration(directory / "data", port, auth)))
        command = ["docker-registry", "serve", str(configuration)]
        stack.enter_context(running(command, log=directory / "registry.log", ready=lambda: listens(port)))
        proxy = stack.enter_context(faulty_proxy(f"http://127.0.0.1:{port}"))
        yield Registry(proxy, user, password, tokens, traffic)


def _configuration(data: Path, port: int, auth: dict[str, object]) -> dict[str, object]:
    return {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        # Locations relative: the client stays with the proxy.
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of no use", "relativeurls": True},
        "auth": auth,
    }
