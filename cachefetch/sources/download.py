"""A download that survives interruptions: read it like a file, and it arrives as if the connection had never broken.

Everything that arrives is added to a partial file before it is handed on, so a broken connection is resumed where it
ended (Range with If-Range, RFC 9110, 13.1.5 and 14.2), also by a later process, which reads the partial file first.
Bytes are hashed as they are read, when there is a digest to compare them with.

A note beside the partial file says what it is part of. A partial file of an earlier boot is used only when the digest
is known: after a power cut it may have holes where the data never reached the disk, and only a digest would tell.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from contextlib import ExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import msgspec

from cachefetch.decoding import UNREADABLE
from cachefetch.errors import DataError, SourceError
from cachefetch.sources import web
from cachefetch.spool import Spool
from cachefetch.urls import redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]+)-[0-9]+|\*)/([0-9]+|\*)")
_CHUNK = 1 << 20
_UNSAID = {None, ""}


class Origin(msgspec.Struct, frozen=True):
    """What the bytes are part of, as the server said in its first answer."""

    etag: str = ""
    last_modified: str = ""
    size: int | None = None
    """Bytes of the whole; None when the server does not say."""
    digest: str | None = None
    """What was expected when the download began."""
    boot: str = ""
    """The boot of the machine in which the partial file was written."""

    @property
    def validator(self) -> str:
        """What If-Range may name: an ETag that is not weak, or the last change; empty when there is neither."""
        return self.last_modified if not self.etag or self.etag.startswith("W/") else self.etag

    def same_bytes(self, other: Origin) -> bool:
        """Whether both are surely the same bytes, or the digest will tell."""
        if self.size is not None and other.size is not None and self.size != other.size:
            return False
        if self.digest is not None:
            return self.digest == other.digest
        return bool(self.validator) and self.validator == other.validator

    def contradicts(self, part: Origin) -> bool:
        """Whether what an answer says of a part betrays other bytes: not every server heeds If-Range."""
        pairs: list[tuple[object, object]] = [(self.size, part.size)]
        if self.digest is None:  # which would tell, and each mirror may have validators of its own
            pairs += [(self.etag, part.etag), (self.last_modified, part.last_modified)]
        return any(ours not in _UNSAID and theirs not in _UNSAID and ours != theirs for ours, theirs in pairs)


class Download:
    """One file behind a URL, read from its start to its end. `path` is the file that holds what arrived."""

    def __init__(
        self, client: httpx2.Client, url: str, scratch: Path, patience: web.Patience, *, digest: str | None = None
    ) -> None:
        """Go on with the partial file in `scratch` if it is usable; the bytes must have `digest` (`sha256:…`)."""
        self.path = scratch / "download"
        self._note = scratch / "download.json"
        self._client = client
        self._url = url
        self._digest = digest
        self._patience = patience
        self._boot = _BOOT_ID.read_text(encoding="ascii").strip()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.recalled = 0
        """Bytes so far that were in the partial file before."""
        self._position = 0
        self._complete = False
        self._skip = 0
        self._sha256 = hashlib.sha256() if digest else None
        self._connection = ExitStack()
        self._body: Iterator[bytes] | None = None
        self._socket: socket.socket | None = None
        self.origin = self._recall()
        self._known = os.fstat(self._file).st_size if self.origin else 0
        self._partial = Spool(self._file, self._known)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close connection and file; the partial file stays for the next try unless it was discarded."""
        self._connection.close()
        with suppress(OSError):  # the disk is full: what is in memory is fetched once more
            self._partial.flush()
        self._partial.close()
        os.close(self._file)

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; empty at the end.

        Raises:
            SourceError: the origin cannot be reached for longer than patience lasts, or has other bytes by now.
            DataError: it serves other bytes than it announced.
        """
        # The server is asked first, also when there is a partial file: it may be of another file by now.
        fresh = b""
        while not fresh and not self._complete and (self._body is None or self._position == self._partial.size):
            fresh = self._receive()
        left = self._partial.size - self._position
        chunk = fresh[:size] if fresh else self._partial.read(min(size, left), self._position)
        if self._position < self._known:
            self.recalled += min(len(chunk), self._known - self._position)
        if self._sha256 is not None:
            self._sha256.update(chunk)
        self._position += len(chunk)
        return chunk

    def finish(self) -> None:
        """Read what is left and compare length and digest.

        Raises:
            DataError: they differ; the partial file is of no use.
            SourceError: as `read`.
        """
        while self.read(_CHUNK):
            pass
        self._partial.flush()
        if self._sha256 is not None and self._digest != (found := f"sha256:{self._sha256.hexdigest()}"):
            raise DataError(
                f"{redact(self._url)} has digest {found}, expected was {self._digest}: "
                "somebody replaced or damaged it; upload it anew, or correct the digest"
            )

    def interrupt(self) -> None:
        """Let a `read` of another thread, and each later one that has to ask the server, fail soon.

        That is at once when it waits for bytes or pauses, and after the usual timeouts while it connects.
        """
        self._patience.end()
        if (connected := self._socket) is not None:
            with suppress(OSError):  # the connection is gone already
                # Not the method of a TLS socket, which would forget its keys while the other thread reads.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def discard(self) -> None:
        """Throw away what arrived: it is of no use for another try."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _recall(self) -> Origin | None:
        """What the partial file is part of; None when there is none, or it cannot be trusted."""
        try:
            origin = msgspec.json.decode(self._note.read_bytes(), type=Origin)
        except (FileNotFoundError, *UNREADABLE):  # the note is written in one piece, but a crash may cut it
            return None
        trusted = self._digest is not None or origin.boot == self._boot
        return origin if trusted and origin.digest == self._digest else None

    def _receive(self) -> bytes:
        """Add the next piece to the partial file and return it; empty when that took connecting, first or again."""
        self._patience.check(self._url)
        if self._body is None:
            self._connect()
            return b""
        try:
            chunk = next(self._body, b"")
        except httpx2.TransportError as error:
            self._disconnect()
            failure = web.interrupted(self._url, error)
            if not isinstance(failure, web.Interrupted):
                raise failure from error
            self._patience.wait(failure)
            return b""
        if not chunk:
            self._end()
        fresh = chunk[min(self._skip, len(chunk)) :]
        self._skip -= len(chunk) - len(fresh)
        if fresh:  # what is fetched a second time is no progress
            self._patience.progress()
            self._partial.append(fresh)
        return fresh

    def _connect(self) -> None:
        """Ask for what is missing."""
        headers = {}
        if self._partial.size and self.origin and (self.origin.validator or self._digest):
            headers["Range"] = f"bytes={self._partial.size}-"
            if self.origin.validator:
                headers["If-Range"] = self.origin.validator
        answer = self._connection.enter_context(web.get(self._client, self._url, headers, self._patience))
        self._socket = web.connected(answer)
        if answer.status_code == HTTPStatus.OK:
            self._from_start(answer)
        elif headers and answer.status_code == HTTPStatus.PARTIAL_CONTENT:
            self._from_middle(answer)
        elif headers and answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._from_end(answer)
        else:
            raise SourceError(
                f"{redact(self._url)} answers {answer.status_code} to a plain request: look at the server"
            )

    def _from_start(self, answer: httpx2.Response) -> None:
        """The whole file again: a first download, a server without ranges, or another file by now."""
        said = self._said(answer)
        if self._partial.size and self.origin and self.origin.same_bytes(said):
            self._skip = self._partial.size
        elif self._position:
            raise self._replaced()
        else:
            self._restart(said)
        self._body = web.body(answer)

    def _from_middle(self, answer: httpx2.Response) -> None:
        start, _ = _content_range(answer)
        if start != self._partial.size:
            raise SourceError(f"{redact(self._url)} answers with a range that was not asked for: look at the server")
        if self.origin and self.origin.contradicts(self._said(answer)):
            self._begin_again()
            return
        self._body = web.body(answer)

    def _from_end(self, answer: httpx2.Response) -> None:
        """The server has no bytes from there on: the partial file is all, or not of this file."""
        size = whole(answer)
        if size is None and self.origin:  # it need not say (RFC 9110, 15.5.17), but somebody must have said it
            size = self.origin.size
        if size == self._partial.size:
            self._end()
        else:
            self._begin_again()

    def _begin_again(self) -> None:
        """The partial file belongs to other bytes; fine as long as nobody has read of it."""
        if self._position:
            raise self._replaced()
        self._disconnect()
        self._restart(None)

    def _restart(self, origin: Origin | None) -> None:
        self._note.unlink(missing_ok=True)  # before the truncation: a note without its file would be believed
        os.ftruncate(self._file, 0)
        self._known = 0
        self._partial.close()
        self._partial = Spool(self._file, announced=origin.size if origin else None)
        self.origin = origin
        if origin is not None:
            self._note.write_bytes(msgspec.json.encode(origin))

    def _end(self) -> None:
        missing, expected = self._skip, self.origin.size if self.origin else None
        self._disconnect()
        if missing or (expected is not None and expected != self._partial.size):
            raise DataError(
                f"{redact(self._url)} announced {expected} bytes and served {self._partial.size}: "
                "upload it anew, or look at the server"
            )
        self._complete = True

    def _disconnect(self) -> None:
        self._socket = None
        self._connection.close()
        self._body = None
        self._skip = 0

    def _replaced(self) -> SourceError:
        self.discard()
        return SourceError(
            f"{redact(self._url)} was replaced while it was downloaded, or its server cannot tell (neither ETag, nor "
            "Last-Modified, nor a digest): the next try fetches it anew"
        )

    def _said(self, answer: httpx2.Response) -> Origin:
        headers = answer.headers
        return Origin(
            headers.get("ETag", ""), headers.get("Last-Modified", ""), whole(answer), self._digest, self._boot
        )


def length(answer: httpx2.Response) -> int | None:
    """Bytes of the whole file that an answer 200 announces."""
    value = answer.headers.get("Content-Length", "")
    return int(value) if value.isdecimal() else None


def whole(answer: httpx2.Response) -> int | None:
    """Bytes of the whole file that an answer 200, 206 or 416 announces; None when it does not say."""
    return length(answer) if answer.status_code == HTTPStatus.OK else _content_range(answer)[1]


def _content_range(answer: httpx2.Response) -> tuple[int | None, int | None]:
    """Start and size of the whole that an answer 206 or 416 names (RFC 9110, 14.4)."""
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is None:
        return None, None
    return int(match[1]) if match[1] else None, int(match[2]) if match[2] != "*" else None
