"""A key pair of the real minisign, and what it signs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Signer:
    """A new key pair in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        self.public = directory / "minisign.pub"
        self._secret = directory / "minisign.key"
        self._run("-G", "-W", "-p", self.public, "-s", self._secret)

    @property
    def key(self) -> str:
        """The public key, as the configuration takes it."""
        return self.public.read_text().splitlines()[1]

    def sign(self, data: bytes, *, legacy: bool = False, comment: str = "made by tests") -> bytes:
        """The signature file of `data`."""
        file, made = self._directory / "data", self._directory / "signature"
        file.write_bytes(data)
        self._run("-S", *(["-l"] if legacy else []), "-s", self._secret, "-m", file, "-x", made, "-t", comment)
        return made.read_bytes()

    def _run(self, *arguments: str | Path) -> None:
        done = subprocess.run(["minisign", *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
