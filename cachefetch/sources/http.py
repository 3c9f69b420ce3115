"""The `http` source: an archive or a single file behind an http or https URL."""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from cachefetch.errors import DataError
from cachefetch.sources import web
from cachefetch.sources.download import Download, whole
from cachefetch.sources.http_auth import make_auth
from cachefetch.sources.readahead import ReadAhead
from cachefetch.sources.single import Single, stage_single
from cachefetch.urls import Format, file_name, redact

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from cachefetch.sourceconfig import Http
    from cachefetch.sources.base import Known
    from cachefetch.sources.minisign import Proof
    from cachefetch.stage import Stage

_SUMS_MAX = 16 << 20
_SUM = re.compile(rb"([0-9a-f]{64}) [ *](?:.*/)?([^/]+)")
_FILE_MTIME = 0
"""A single file has no time of its own; the server's Last-Modified would give each mirror another version."""


def connect(config: Http) -> httpx2.Client:
    """A client with the authorities and the login of `config`, whose files are read now.

    Raises:
        ConfigError: one of them cannot be used.
    """
    return web.make_client(ca=config.ca, auth=make_auth(config.auth, config.url) if config.auth else None)


class HttpSource:
    """One URL. A digest, configured or in a sha256sums file, decides; otherwise the server's validators do."""

    def __init__(
        self,
        config: Http,
        patience: Callable[[], web.Patience] = web.Patience,
    ) -> None:
        self._config = config
        self._client = partial(connect, config)
        self._patience = patience

    def resolve(self, known: Known | None) -> HttpSnapshot | None:
        """What the URL holds now. No request at all when the configured digest is the known one.

        Raises:
            ConfigError: a file that `auth` or `ca` names cannot be used.
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
            # One byte: whatever the server sends ahead before we hang up is transferred for nothing. A HEAD would do
            # without, but a signed URL is often signed for GET only.
            look = {"Range": "bytes=0-0", **conditions}
            with web.get(client, self._config.url, look, self._patience()) as answer:
                if answer.status_code == HTTPStatus.NOT_MODIFIED:
                    return None
                size = whole(answer)
        return HttpSnapshot(self._config, digest, size, self._client, self._patience)

    def _look_up(self, client: httpx2.Client, sums: str) -> str:
        """The digest that the sha256sums file gives for the file at the URL."""
        name = file_name(self._config.url)
        text, _ = web.read(client, sums, {}, self._patience(), limit=_SUMS_MAX)
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

        A file that must be signed is downloaded and checked before anything of it is unpacked.

        Raises:
            SourceError: the server cannot be reached for longer than patience lasts.
            DataError: length, digest, signature or archive are wrong; what was downloaded is thrown away.
            UnsafeEntry: the archive holds an entry that would escape, collide or exhaust.
        """
        config = self._config
        with self._client() as client:
            proof = self._obtain(client)
            name = file_name(config.url) if config.kind is Format.FILE else b""
            download = Download(client, config.url, stage.scratch, self._patience(), digest=self._digest)
            with download, ReadAhead(download) as arriving:
                stage_single(arriving, Single(config.kind, name, _FILE_MTIME), stage, proof)
            origin = download.origin
        self.meta = {"digest": self._digest} if self._digest else {}
        if origin:
            self.meta |= {"etag": origin.etag, "last_modified": origin.last_modified}

    def _obtain(self, client: httpx2.Client) -> Proof | None:
        """What the file must match; asked for first, because without a signature nothing need be downloaded."""
        config = self._config
        if config.verify is None:
            return None
        from cachefetch.sources import minisign  # noqa: PLC0415  (late: cryptography takes 0.1 s to import)

        def fetch() -> bytes | None:
            try:
                return web.read(client, config.signature, {}, self._patience(), limit=minisign.SIGNATURE_MAX)[0]
            except web.Refused as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                return None

        return minisign.obtain(config.verify, redact(config.url), fetch)


def _conditions(meta: dict[str, str]) -> dict[str, str]:
    """Headers that ask for an answer only when something changed (RFC 9110, 13.1)."""
    if etag := meta.get("etag"):
        return {"If-None-Match": etag}
    if last_modified := meta.get("last_modified"):
        return {"If-Modified-Since": last_modified}
    return {}
