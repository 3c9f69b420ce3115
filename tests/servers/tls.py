"""A certificate authority of its own, made by openssl, for servers on loopback."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"


@dataclass(frozen=True)
class Certificates:
    """PEM files."""

    authority: Path
    """What a client must trust."""
    certificate: Path
    """The server's, for 127.0.0.1, localhost and the names that were given, signed by the authority."""
    key: Path


def make_certificates(directory: Path, *names: str) -> Certificates:
    """An authority and a server certificate, also for these names, in this directory, valid for a day."""
    made = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    ca_key = directory / "ca.key"
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl("req", "-x509", *_new(ca_key, "goldlink tests"), *usage, "-out", made.authority, "-days", "1")
    all_names = ",".join((_NAMES, *(f"DNS:{name}" for name in names)))
    signed = ("-CA", made.authority, "-CAkey", ca_key, "-addext", all_names, "-addext", "basicConstraints=CA:FALSE")
    _openssl("req", "-x509", *_new(made.key, "127.0.0.1"), *signed, "-out", made.certificate, "-days", "1")
    return made


def _new(key: Path, name: str) -> tuple[str | Path, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    return (*curve, "-nodes", "-keyout", key, "-subj", f"/CN={name}")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
