"""A fetcher in a process of its own, and the servers that it fetches from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cachefetch.conftest import image, mount
from tests.cachefetch.fakes import check_store
from tests.fetcher.process import FetcherProcess
from tests.servers.fixtures import *  # noqa: F403  (that is how pytest shares fixtures between directories)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["image", "mount"]


@pytest.fixture
def fetcher(tmp_path: Path) -> Iterator[FetcherProcess]:
    """A fetcher that the test starts; afterwards every version still equals its manifest."""
    process = FetcherProcess(tmp_path)
    yield process
    process.end()
    check_store(process.store)
