"""Secrets from files, read when they are needed and never shown: the file's name is all that a message has."""

from __future__ import annotations

from pathlib import Path

from cachefetch.errors import ConfigError

_MAX = 64 << 10


def read_secret(path: str, key: str) -> str:
    """The secret in the file at `path`, without the line end that editors add; `key` is what names it.

    Raises:
        ConfigError: it cannot be read, or has not exactly one line of text.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; mount the secret there, or correct `{key}`"
        ) from None
    try:
        secret = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(raw) > _MAX or not secret.isprintable():
        raise ConfigError(
            f"{path} does not hold one line of text: write the secret of `{key}` into it, and nothing else"
        )
    return secret
