"""The `http` source: an archive or a single file behind an http or https URL."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx2

from cachefetch.errors import DataError, UnsafeEntry
from cachefetch.sources import web
from cachefetch.sources.archive import unpack_tar, unpack_zip
from cachefetch.sources.download import Download, length
from cachefetch.urls import Format, file_name, redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefetch.config import Http
    from cachefetch.sources.base import Known
    from cachefetch.stage import Stage

_SUMS_MAX = 16 << 20
_SUM = re.compile(rb"([0-9a-f]{64}) [ *](?:.*/)?([^/]+)")
_FILE_MODE = 0o444
_FILE_MTIME = 0
"""A single file has no time of its own; the server's Last-Modified would give each mirror another version."""


class HttpSource:
    """One URL. A digest, configured or in a sha256sums file, decides; otherwise the server's validators do."""

    def __init__(
        self,
        config: Http,
        client: Callable[[], httpx2.Client] = web.make_client,
        patience: Callable[[], web.Patience] = web.Patience,
    ) -> None:
        self._config = config
        self._client = client
        self._patience = patience

    def resolve(self, known: Known | None) -> HttpSnapshot | None:
        """What the URL holds now. No request at all when the configured digest is the known one.

        Raises:
            SourceError: the server cannot be reached or refuses.
            DataError: the sha256sums file does not name the file.
        """
        meta = known.meta if known else {}
        if self._config.digest and self._config.digest == meta.get("digest"):
            return None
        with self._client() as client:
            digest = self._config.digest
            if self._config.sha256sums:
                digest = self._look_up(client, self._config.sha256sums)
                if digest == meta.get("digest"):
                    return None
            conditions = {} if digest else _conditions(meta)
            with web.get(client, self._config.url, conditions, self._patience()) as answer:
                if answer.status_code == HTTPStatus.NOT_MODIFIED:
                    return None
                size = length(answer)
        return HttpSnapshot(self._config, digest, size, self._client, self._patience)

    def _look_up(self, client: httpx2.Client, sums: str) -> str:
        """The digest that the sha256sums file gives for the file at the URL."""
        name, text = file_name(self._config.url), bytearray()
        with web.get(client, sums, {}, self._patience()) as answer:
            try:
                for chunk in answer.iter_raw():
                    text += chunk
                    if len(text) > _SUMS_MAX:
                        raise DataError(
                            f"{redact(sums)} is larger than {_SUMS_MAX} bytes: give the URL of a sha256sums file"
                        )
            except httpx2.TransportError as error:
                raise web.interrupted(sums, error) from error
        for line in text.splitlines():
            if (match := _SUM.fullmatch(line)) and match[2] == name:
                return f"sha256:{match[1].decode()}"
        raise DataError(f"{redact(sums)} has no line for {name!r}: add it with sha256sum, or correct `sha256sums`")


class HttpSnapshot:
    """What the URL serves when it is filled in."""

    def __init__(
        self,
        config: Http,
        digest: str | None,
        size: int | None,
        client: Callable[[], httpx2.Client],
        patience: Callable[[], web.Patience],
    ) -> None:
        self._config = config
        self._digest = digest
        self._client = client
        self._patience = patience
        self.size = size
        self.meta: dict[str, str] = {}

    def fill(self, stage: Stage) -> None:
        """Download and unpack at the same time. What was downloaded stays in the stage's scratch when it fails.

        Raises:
            SourceError: the server cannot be reached for longer than patience lasts.
            DataError: length, digest or archive are wrong; what was downloaded is thrown away.
            UnsafeEntry: the archive holds an entry that would escape, collide or exhaust.
        """
        with (
            self._client() as client,
            Download(client, self._config.url, stage.scratch, self._patience(), digest=self._digest) as download,
        ):
            try:
                self._unpack(download, stage)
                digest = download.finish()
            except UnsafeEntry:  # the bytes are what the server has; fetching them again would change nothing
                raise
            except DataError:
                download.discard()
                raise
            origin = download.origin
        self.meta = {"digest": digest}
        if origin:
            self.meta |= {"etag": origin.etag, "last_modified": origin.last_modified}

    def _unpack(self, download: Download, stage: Stage) -> None:
        kind = self._config.kind
        if kind is Format.FILE:
            stage.file(file_name(self._config.url), _FILE_MODE, _FILE_MTIME, download)
        elif kind is Format.ZIP:
            download.finish()
            with download.path.open("rb") as file:
                unpack_zip(file, stage)
        else:
            unpack_tar(download, kind, stage)


def _conditions(meta: dict[str, str]) -> dict[str, str]:
    """Headers that ask for an answer only when something changed (RFC 9110, 13.1)."""
    if etag := meta.get("etag"):
        return {"If-None-Match": etag}
    if last_modified := meta.get("last_modified"):
        return {"If-Modified-Since": last_modified}
    return {}
