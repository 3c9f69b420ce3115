"""The socket of a gRPC server: one process serves on it, and nothing else is taken away from its path."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import Busy, Precondition, SourceError
from cachefetch.rpc import TEXT_MAX, SocketServer, outcome
from cachefetch.sockets import served

if TYPE_CHECKING:
    from pathlib import Path


def server(path: Path) -> SocketServer:
    return SocketServer(path, 1, option="--here")


def test_the_socket_is_there_for_its_owner_alone_until_the_server_stops(tmp_path: Path) -> None:
    path = tmp_path / "run" / "x.sock"
    one = server(path)
    assert not served(path)
    one.start()
    assert served(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert one.stop(1)
    assert not served(path)
    assert not path.exists()


def test_the_socket_of_a_dead_process_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    one = server(path)
    one.start()
    with pytest.raises(Precondition, match="--here: another process serves"):
        server(path).start()
    assert served(path)
    one.stop(1)


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("precious")
    with pytest.raises(Precondition, match="not a socket"):
        server(path).start()
    assert path.read_text() == "precious"


@given(st.text(st.characters()))
def test_any_text_fits_and_encodes(text: str) -> None:
    code, clipped = outcome(Busy(text), "Ensure")
    assert code is grpc.StatusCode.ABORTED
    assert 0 < len(clipped.encode()) <= TEXT_MAX


def test_every_kind_of_error_has_its_code() -> None:
    assert outcome(SourceError("away"), "Ensure") == (grpc.StatusCode.UNAVAILABLE, "away")
    assert outcome(OSError(errno.ENOSPC, "full", "/x"), "Ensure").code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert outcome(OSError(errno.EIO, "broken", "/x"), "Ensure").code is grpc.StatusCode.INTERNAL
    assert outcome(NotImplementedError(), "Ensure").code is grpc.StatusCode.UNIMPLEMENTED


def test_the_text_of_an_unexpected_error_is_not_shown() -> None:
    code, text = outcome(ValueError("password"), "Ensure")
    assert code is grpc.StatusCode.INTERNAL
    assert "password" not in text
