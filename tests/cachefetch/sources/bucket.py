"""An S3 bucket that lists whatever keys a test gives it, also those that no real service takes."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.servers.ranges import reply_range
from tests.servers.web import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from obstore.store import RetryConfig

    from tests.servers.traffic import Traffic
    from tests.servers.web import Request

QUICK: RetryConfig = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 2},
}
"""Tries that cost a test no time."""
_PAGE = 1000


@dataclass
class Bucket:
    """Objects by key, in the order in which they are listed. Believes everybody."""

    objects: dict[str, bytes] = field(default_factory=dict)
    before: Callable[[Request], bool] = lambda _request: False
    """Called before each answer; true: it has answered."""
    url: str = ""
    traffic: Traffic | None = None

    def respond(self, request: Request) -> None:
        """Answer one request."""
        if self.before(request):
            return
        parts = urlsplit(request.path)
        key = unquote(parts.path).removeprefix("/bucket").removeprefix("/")
        if not key:
            self._list(request, parse_qs(parts.query))
        elif key not in self.objects:
            request.reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif request.headers.get("If-Match", etag := _etag(self.objects[key])) != etag:
            request.reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            reply_range(
                request, self.objects[key], etag=etag, headers={"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
            )

    def _list(self, request: Request, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        start = int(query.get("continuation-token", ["0"])[0])
        keys = [key for key in self.objects if key.startswith((prefix, "!"))]
        items = "".join(
            f"<Contents><Key>{escape(key.removeprefix('!'))}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(_etag(self.objects[key]))}</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys[start : start + _PAGE]
        )
        more = start + _PAGE < len(keys)
        following = f"<NextContinuationToken>{start + _PAGE}</NextContinuationToken>" if more else ""
        body = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{following}{items}</ListBucketResult>"
        request.reply(200, body.encode(), {"Content-Type": "application/xml"})


@contextmanager
def running_bucket() -> Iterator[Bucket]:
    """An empty bucket called `bucket`, until the end of the block. A key that starts with `!` is listed anywhere."""
    bucket = Bucket()
    with serving(bucket.respond) as server:
        bucket.url, bucket.traffic = server.url, server.traffic
        yield bucket


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'
