"""Answers to range requests (RFC 9110, 14), for servers that are programmed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.servers.web import Request

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def reply_range(request: Request, data: bytes, *, etag: str, headers: Mapping[str, str] | None = None) -> None:
    """Answer with the bytes that the request's Range names: one range, unless If-Range knows another ETag."""
    headers = {"ETag": etag, "Accept-Ranges": "bytes", **(headers or {})}
    wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
    if wanted is None or wanted[0] == "bytes=-" or request.headers.get("If-Range", etag) != etag:
        request.reply(200, data, headers)
        return
    first, last = _bounds(wanted[1], wanted[2], len(data))
    if first > last:
        request.reply(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
        return
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    request.reply(206, data[first : last + 1], headers)


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
