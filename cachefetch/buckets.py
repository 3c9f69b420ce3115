"""What the URL of an object store tells by itself: `s3://bucket/key`, `gs://bucket/key`, `az://container/key`.

A key ends where the URL ends and is taken as it is written, as the providers' own tools do: nothing in it is decoded.
No side effects; used by the configuration, so that a bad URL is refused before anything is fetched.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote

from cachefetch.urls import NAME_MAX, Format, format_of

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class Provider(StrEnum):
    """Who runs the object store, or whose protocol it speaks; the scheme of its URLs."""

    S3 = "s3"
    GCS = "gs"
    AZURE = "az"


class Location(NamedTuple):
    """One object, or all objects below a prefix."""

    provider: Provider
    bucket: str
    """Azure calls it a container."""
    key: str
    """Of the object; of a tree, the prefix without its last `/`, empty for the whole bucket."""
    tree: bool

    @property
    def url(self) -> str:
        """The URL, as it was written."""
        return f"{self.provider}://{self.bucket}/{self.key}{'/' if self.tree and self.key else ''}"

    @property
    def name(self) -> bytes:
        """What a single object is called: the last part of its key."""
        return self.key.rpartition("/")[2].encode()

    @property
    def format(self) -> Format:
        """What the suffix of a single object's key stands for."""
        return format_of(f"https://store/{quote(self.key)}")


def parse(url: str) -> Location:
    """The place that `url` names; with a `/` at its end, or without a key, it is a tree.

    Raises:
        ValueError: it names none.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in set(Provider) or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{url!r} is not a place in an object store: write 's3://bucket/key', or gs:// or az://")
    tree = not key or key.endswith("/")
    parts = key.removesuffix("/").split("/") if key else []
    key = key.removesuffix("/")
    if not key.isprintable() or {"", ".", ".."} & set(parts) or any(len(part.encode()) > NAME_MAX for part in parts):
        raise ValueError(
            f"{url!r} has a key that is no path: its parts must be neither empty, '.' nor '..', "
            f"printable, and at most {NAME_MAX} bytes long"
        )
    return Location(Provider(scheme), bucket, key, tree)
