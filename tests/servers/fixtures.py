"""Fixtures: one running server each, for the length of a test; its counts start at nothing."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.servers.faulty import FaultyProxy, faulty_proxy
from tests.servers.hub import Hub, running_hub
from tests.servers.nginx import Nginx, running_nginx
from tests.servers.registry import Registry, running_registry
from tests.servers.s3 import S3, running_s3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["faulty", "hub", "nginx", "registry", "s3", "token_registry"]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """A web server for the files of `nginx.root`."""
    with running_nginx(tmp_path / "nginx") as server:
        yield server


@pytest.fixture
def faulty() -> Iterator[Callable[[str], FaultyProxy]]:
    """Puts a proxy that can misbehave in front of a server: `faulty(nginx.url)`."""
    with ExitStack() as proxies:
        yield lambda upstream: proxies.enter_context(faulty_proxy(upstream))


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    """An object store with an empty bucket."""
    with running_s3(tmp_path / "s3") as server:
        yield server


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An image registry that asks for user and password."""
    with running_registry(tmp_path / "registry", by_token=False) as server:
        yield server


@pytest.fixture
def token_registry(tmp_path: Path) -> Iterator[Registry]:
    """An image registry that wants a token, and the server that gives them."""
    with running_registry(tmp_path / "token-registry", by_token=True) as server:
        yield server


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A model hub without repositories, and the host of its large files."""
    with running_hub() as server:
        yield server
