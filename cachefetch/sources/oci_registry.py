"""Reading from a registry and its mirrors: manifests and blobs, each checked against its digest.

Protocol: OCI distribution-spec 1.1, "Pull". A mirror is asked first, in the way containerd does (`?ns=` has the name of
the registry it stands for); one that does not have something, or has the wrong bytes, is passed over.
"""

from __future__ import annotations

import hashlib
import logging
import re
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import httpx2

from cachefetch.errors import DataError, SourceError
from cachefetch.logs import fields
from cachefetch.sources import web
from cachefetch.sources.download import Download
from cachefetch.sources.oci_credentials import DockerConfig, Logins, Nobody
from cachefetch.sources.oci_login import RegistryLogin
from cachefetch.sources.oci_manifest import ACCEPT, MANIFEST_MAX
from cachefetch.urls import redact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from cachefetch.config import Oci

_log = logging.getLogger(__name__)

T = TypeVar("T")
_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Absent(SourceError):
    """The registry does not have it."""


class _Endpoint(NamedTuple):
    """A registry or a mirror of it."""

    base: str
    """URL up to and with `/v2`."""
    query: str
    mirror: bool


class _NoPatience(web.Patience):
    """A mirror is asked once: there is somebody else to ask."""

    def wait(self, failure: web.Interrupted) -> None:
        """Raise `failure`."""
        raise failure


class Registry:
    """The repository that an image is in. Use it as a context."""

    def __init__(self, config: Oci, patience: Callable[[], web.Patience] = web.Patience) -> None:
        """Connects to nothing yet.

        Raises:
            ConfigError: the authorities of `ca` cannot be used.
        """
        self._reference = reference = config.reference
        self._origin = _Endpoint(f"{config.base}/v2", "", mirror=False)
        self._mirrors = [_Endpoint(_api(mirror), f"?ns={reference.registry}", mirror=True) for mirror in config.mirrors]
        names = {mirror.base: httpx2.URL(mirror.base).netloc.decode() for mirror in self._mirrors}
        logins: Logins = DockerConfig(config.auth.docker_config) if config.auth else Nobody()
        login = RegistryLogin(logins, reference.repository, names | {self._origin.base: reference.registry})
        self._client = web.make_client(ca=config.ca, auth=login)
        self._patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._client.close()

    def digest(self, tag: str) -> str | None:
        """The digest that a tag names now; None when the registry does not say without sending everything.

        Raises:
            Absent: there is no such tag.
            SourceError: the registry cannot be reached or refuses.
        """

        def ask(endpoint: _Endpoint, patience: web.Patience) -> str | None:
            url = self._url(endpoint, "manifests", tag)
            with web.get(self._client, url, {"Accept": ACCEPT}, patience, method="HEAD") as answer:
                said = str(answer.headers.get("Docker-Content-Digest", ""))
                return said if _DIGEST.fullmatch(said) else None

        return self._first(ask, tag)

    def manifest(self, wanted: str) -> tuple[bytes, str]:
        """The manifest or index that a tag or a digest names, and its digest.

        Raises:
            Absent: there is none.
            SourceError: the registry cannot be reached or refuses.
            DataError: it is not what its digest says.
        """

        def ask(endpoint: _Endpoint, patience: web.Patience) -> bytes:
            data = self._read(self._url(endpoint, "manifests", wanted), ACCEPT, MANIFEST_MAX, patience)
            if ":" in wanted:
                self._compare(data, wanted)
            return data

        data = self._first(ask, wanted)
        return data, _sha256(data)

    def blob(self, digest: str, limit: int) -> bytes:
        """A small blob of at most `limit` bytes.

        Raises:
            Absent: there is none.
            SourceError: the registry cannot be reached or refuses.
            DataError: it is larger, or not what its digest says.
        """

        def ask(endpoint: _Endpoint, patience: web.Patience) -> bytes:
            data = self._read(self._url(endpoint, "blobs", digest), "*/*", limit, patience)
            self._compare(data, digest)
            return data

        return self._first(ask, digest)

    def download(
        self, digest: str, size: int, scratch: Path, on_bytes: Callable[[int], None], on_recalled: Callable[[int], None]
    ) -> Path:
        """The file that holds a blob, below `scratch`, where an earlier try may have left a part of it.

        `on_bytes` hears how many bytes arrived, `on_recalled` how many an earlier try has left.

        Raises:
            Absent: there is none.
            SourceError: the registry cannot be reached or refuses; what arrived is kept.
            DataError: it is not what its digest and size say.
        """
        place = scratch / digest.removeprefix("sha256:")
        place.mkdir(mode=0o700, exist_ok=True)
        heard = 0

        def arrived(total: int, recalled: int) -> None:
            """A second registry goes on where the first one broke off, and what is there is read again."""
            nonlocal heard
            left = max(0, min(recalled, total) - heard)
            if left:
                on_recalled(left)
            on_bytes(max(0, total - heard - left))
            heard = max(heard, total)

        def ask(endpoint: _Endpoint, patience: web.Patience) -> Path:
            """The whole blob from one registry; what is not the blob is thrown away, what is a part of it stays."""
            url = self._url(endpoint, "blobs", digest)
            with Download(self._client, url, place, patience, digest=digest) as download:
                try:
                    _drain(download, size, arrived, self._shown(digest))
                except DataError:
                    download.discard()
                    raise
                return download.path

        return self._first(ask, digest)

    def _first(self, ask: Callable[[_Endpoint, web.Patience], T], wanted: str) -> T:
        """The answer of the first mirror that has a good one, or that of the registry itself."""
        for mirror in list(self._mirrors):
            try:
                return ask(mirror, _NoPatience())
            except (SourceError, DataError) as error:
                _log.info("mirror_passed_over", extra=fields(mirror=redact(mirror.base), error=error))
                if isinstance(error, web.Interrupted):  # for as long as this registry is open: it would cost time
                    self._mirrors.remove(mirror)
        try:
            return ask(self._origin, self._patience())
        except web.Refused as error:
            if error.status != httpx2.codes.NOT_FOUND:
                raise
            raise Absent(
                f"{self._shown(wanted)} is not in its registry: push it, or correct the name of the image"
            ) from error

    def _read(self, url: str, accept: str, limit: int, patience: web.Patience) -> bytes:
        data, _ = web.read(self._client, url, {"Accept": accept}, patience, limit=limit)
        return data

    def _compare(self, data: bytes, digest: str) -> None:
        if (found := _sha256(data)) != digest:
            raise DataError(f"{self._shown(digest)} has digest {found}: the registry is damaged, push it again")

    def _url(self, endpoint: _Endpoint, kind: str, wanted: str) -> str:
        return f"{endpoint.base}/{self._reference.repository}/{kind}/{wanted}{endpoint.query}"

    def _shown(self, wanted: str) -> str:
        place = f"{self._reference.registry}/{self._reference.repository}"
        return f"{place}@{wanted}" if ":" in wanted else f"{place}:{wanted}"


def _drain(download: Download, size: int, arrived: Callable[[int, int], None], name: str) -> None:
    """Read a download to its end, and no further than it may go; `arrived` hears how far, and how far it was."""
    seen = 0
    while chunk := download.read(_CHUNK):
        seen += len(chunk)
        if seen > size:
            break
        arrived(seen, download.recalled)
    if seen != size:
        raise DataError(f"{name} has not the {size} bytes that its manifest announces: push the image again")
    download.finish()


def _api(mirror: str) -> str:
    """Where the API of a mirror is: below `/v2`, which may be written or not."""
    mirror = mirror.rstrip("/")
    return mirror if mirror.endswith("/v2") else f"{mirror}/v2"


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
