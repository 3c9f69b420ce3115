"""What an http URL tells by itself: whether it is usable, its format, its file name, and what of it may be shown.

No side effects. Used by the configuration, so that a bad URL is refused before anything is fetched.
"""

from __future__ import annotations

from enum import StrEnum
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

NAME_MAX = 255
"""The longest file name that Linux takes (limits.h)."""


class Format(StrEnum):
    """What the bytes behind a URL are."""

    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_ZST = "tar.zst"
    TAR_XZ = "tar.xz"
    TAR_BZ2 = "tar.bz2"
    ZIP = "zip"
    FILE = "file"


_SUFFIXES = {
    ".tar": Format.TAR,
    ".tar.gz": Format.TAR_GZ,
    ".tgz": Format.TAR_GZ,
    ".tar.zst": Format.TAR_ZST,
    ".tzst": Format.TAR_ZST,
    ".tar.xz": Format.TAR_XZ,
    ".txz": Format.TAR_XZ,
    ".tar.bz2": Format.TAR_BZ2,
    ".tbz2": Format.TAR_BZ2,
    ".zip": Format.ZIP,
}


def redact(url: str) -> str:
    """`url` without what may be secret: user, password, query (signed URLs) and fragment. For messages and logs."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")
    except ValueError:
        return "(not a URL)"
    if not parts.scheme or not parts.netloc:
        return "(not a URL)"
    return f"{parts.scheme}://{'***@' if host[1] else ''}{host[2]}{parts.path}{'?***' if parts.query else ''}"


def check(url: str) -> str:
    """Return `url` if it is an http or https URL with a host.

    Raises:
        ValueError: it is not; the text shows the redacted URL.
    """
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{redact(url)} cannot be fetched: write an http:// or https:// URL with a host")
    if not url.isprintable() or " " in url:
        raise ValueError(f"{redact(url)!r} has spaces or unprintable characters: write them as %XX")
    return url


def check_base(url: str) -> str:
    """Return `url` if it is an http or https URL to which a path can be added.

    Raises:
        ValueError: it is not, or it carries a login, which would have to be secret.
    """
    check(url)
    parts = _split(url)
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{redact(url)} has more than scheme, host and path: write 'https://host', without a login")
    return url


def format_of(url: str) -> Format:
    """The format that the suffix of the URL's path stands for; any other suffix is a single file."""
    path = _split(url).path.lower()
    return next((format_ for suffix, format_ in _SUFFIXES.items() if path.endswith(suffix)), Format.FILE)


def file_name(url: str) -> bytes:
    """The last segment of the URL's path, decoded: what a single file is called.

    Raises:
        ValueError: it is not a file name.
    """
    name = unquote_to_bytes(_split(url).path.rpartition("/")[2])
    if name in {b"", b".", b".."} or b"/" in name or b"\0" in name or len(name) > NAME_MAX:
        raise ValueError(
            f"{redact(url)} does not end in a file name: use a URL that does, or give the format of an archive"
        )
    return name


def _split(url: str) -> SplitResult:
    """`urlsplit` that also checks the port, and whose error shows nothing of the URL."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (the property checks the number)
    except ValueError:
        raise ValueError(f"{redact(url)} is not a URL: check its host and port") from None
    return parts
