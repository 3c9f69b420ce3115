from __future__ import annotations

import io
import os
import socket
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import DataError, SourceError
from cachefetch.sources.download import Download
from cachefetch.sources.readahead import ReadAhead
from cachefetch.sources.web import Patience, make_client

if TYPE_CHECKING:
    from tests.cachefetch.httpd import Httpd

CONTENT = os.urandom(20 << 20)
"""More than may be ahead."""
ENOUGH = 10
"""Seconds after which a thread that should have ended hangs."""


class Scripted:
    """A download that gives its content and then raises, and notes which threads read it."""

    path = Path("/nowhere")
    recalled = 0

    def __init__(self, content: bytes, failure: BaseException | None = None) -> None:
        self._content = io.BytesIO(content)
        self._failure = failure
        self.readers: set[threading.Thread] = set()
        self.calls: list[str] = []

    @property
    def given(self) -> int:
        return self._content.tell()

    def read(self, size: int, /) -> bytes:
        self.readers.add(threading.current_thread())
        chunk = self._content.read(size)
        if not chunk and self._failure is not None:
            raise self._failure
        return chunk

    def finish(self) -> None:
        self.calls.append("finish")

    def discard(self) -> None:
        self.calls.append("discard")

    def interrupt(self) -> None:
        self.calls.append("interrupt")

    def ended(self) -> bool:
        return not any(reader.is_alive() for reader in self.readers)


@given(sizes=st.lists(st.integers(1, 1 << 19), min_size=1, max_size=20), length=st.integers(0, 3 << 20))
def test_the_bytes_arrive_in_order_whatever_sizes_are_asked_for(sizes: list[int], length: int) -> None:
    download, got = Scripted(CONTENT[:length]), b""
    with ReadAhead(download) as arriving:
        for size in sizes:
            chunk = arriving.read(size)
            assert len(chunk) <= size
            got += chunk
        while chunk := arriving.read(1 << 20):
            got += chunk
        assert arriving.read(1) == b""
        arriving.finish()
    assert got == CONTENT[:length]
    assert download.readers
    assert threading.current_thread() not in download.readers
    assert download.ended()
    assert download.calls == ["finish"]


@pytest.mark.parametrize("failure", [SourceError("gone"), DataError("short"), OSError(28, "full"), KeyError("defect")])
def test_an_error_is_raised_where_it_happened_and_again(failure: Exception) -> None:
    download = Scripted(CONTENT[:1000], failure)
    with ReadAhead(download) as arriving:
        assert arriving.read(2000) == CONTENT[:1000]
        for _ in range(2):
            with pytest.raises(type(failure)) as raised:
                arriving.read(1)
            assert raised.value is failure
        with pytest.raises(type(failure)):
            arriving.finish()
    assert download.ended()
    assert "finish" not in download.calls


def test_what_is_ahead_is_bounded() -> None:
    """As long as nobody reads, no more is received than may wait."""
    download = Scripted(CONTENT)
    with ReadAhead(download) as arriving:
        arriving.read(1)
        before = -1
        while download.given != before:  # until it stands still
            before = download.given
            threading.Event().wait(0.1)
        assert download.given < len(CONTENT) // 2
    assert download.ended()


def test_no_thread_outlives_a_caller_that_fails() -> None:
    download = Scripted(CONTENT)
    with pytest.raises(ZeroDivisionError), ReadAhead(download) as arriving:
        arriving.read(1)
        raise ZeroDivisionError
    assert download.ended()
    assert download.calls == ["interrupt"]


def test_nothing_is_received_after_it_was_discarded() -> None:
    download = Scripted(CONTENT)
    with ReadAhead(download) as arriving:
        arriving.read(1)
        arriving.discard()
        assert download.ended()
    assert download.calls == ["interrupt", "discard"]


def test_a_download_that_breaks_off_goes_on_in_the_thread(httpd: Httpd, tmp_path: Path) -> None:
    httpd.serve("/f", CONTENT, cut_after=[1 << 20, 5 << 20])
    waits: list[float] = []
    with make_client() as client:
        download = Download(client, httpd.url("/f"), tmp_path, Patience(waits.append))
        with download, ReadAhead(download) as arriving:
            got = b"".join(iter(lambda: arriving.read(1 << 20), b""))
            arriving.finish()
    assert got == CONTENT
    assert (len(waits), httpd.sent) == (2, len(CONTENT))


def test_a_caller_that_fails_does_not_wait_for_a_silent_server(tmp_path: Path) -> None:
    """The answer has begun, and then nothing comes for longer than the test may take."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        silent = threading.Thread(target=begin_and_fall_silent, args=(server,))
        silent.start()
        with pytest.raises(ZeroDivisionError):
            read_and_fail(f"http://127.0.0.1:{port}/f", tmp_path, Patience())
        silent.join(ENOUGH)
        assert not silent.is_alive(), "the client has not hung up"
    assert (tmp_path / "download").read_bytes() == b"begun"


def begin_and_fall_silent(server: socket.socket) -> None:
    """Returns when the client hangs up."""
    connection, _ = server.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        while connection.recv(1 << 16):
            pass


def read_and_fail(url: str, scratch: Path, patience: Patience) -> None:
    """As when the archive turns out to be unsafe."""
    with make_client() as client:
        download = Download(client, url, scratch, patience)
        with download, ReadAhead(download) as arriving:
            assert arriving.read(1 << 20) == b"begun"
            raise ZeroDivisionError


def test_a_caller_that_fails_does_not_wait_for_a_pause_between_two_tries(httpd: Httpd, tmp_path: Path) -> None:
    """The server wants to be left alone for half a minute."""
    resource = httpd.serve("/f", b"begun" * 10, cut_after=[5])
    resource.statuses, resource.headers = [0, 503], {"Retry-After": "30"}
    read = threading.Thread(target=swallow, args=(httpd.url("/f"), tmp_path))
    read.start()
    read.join(ENOUGH)
    assert not read.is_alive()


def swallow(url: str, scratch: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        read_and_fail(url, scratch, Patience())
