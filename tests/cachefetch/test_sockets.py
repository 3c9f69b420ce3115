from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cachefetch.errors import ConfigError
from cachefetch.sockets import SOCKET_PATH_MAX, fetch_socket, served


def test_a_state_directory_too_deep_for_sockets_is_refused_at_the_start() -> None:
    longest = Path("/" + "d" * (SOCKET_PATH_MAX - len("//run/fetch.sock")))
    assert len(str(fetch_socket(longest))) == SOCKET_PATH_MAX
    with pytest.raises(ConfigError, match=r"--state-dir: .* is too long for the sockets in it"):
        fetch_socket(longest / "d")


def test_a_socket_is_served_while_somebody_listens(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    assert not served(path)
    assert not served(path / "below")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not served(path)
        server.listen(1)
        assert served(path)
        assert served(path), "busy with the first is served, too"
        assert served(path)
    assert not served(path)
