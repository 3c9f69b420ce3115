"""Unix sockets of goldlink: where the fetcher's is, and whether somebody serves. Knows no gRPC, which loads slowly."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from cachefetch.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SOCKET_PATH_MAX = 107
"""Bytes: `sun_path` of unix(7) has 108 with the final NUL."""


def fetch_socket(root: Path) -> Path:
    """Where the fetcher of the store at `root` serves.

    Raises:
        ConfigError: the path is too long for a socket.
    """
    path = root / "run" / "fetch.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise ConfigError(f"--state-dir: {str(root)!r} is too long for the sockets in it: use a shorter path")
    return path


def served(path: Path) -> bool:
    """Whether somebody listens on the unix socket at `path`; False when there is none, or its process is dead."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (
            ConnectionRefusedError,
            FileNotFoundError,
            NotADirectoryError,
        ):  # bound once, listened on no more (connect(2)); or absent
            return False
        except BlockingIOError:  # somebody listens and is busy
            return True
    return True
