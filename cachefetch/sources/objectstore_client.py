"""Objects of S3, Google Cloud Storage and Azure through obstore: lists, reads, and what a failure means.

What obstore says about a failure holds whole answers and URLs, of which some carry a signature: nothing of it is shown
but the status and the provider's code for it. A store is connected anew for each refresh, so that files with
credentials may change.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, InvalidPathError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from cachefetch import __version__
from cachefetch.buckets import Provider
from cachefetch.errors import ConfigError, SourceError, UnsafeEntry
from cachefetch.paths import show
from cachefetch.sources.base import SourceChanged
from cachefetch.sources.secretfile import read_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore import GetOptions, ObjectMeta
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config
    from obstore.store import ObjectStore as Store

    from cachefetch.buckets import Location
    from cachefetch.sourceconfig import ObjectCredentials, ObjectStore

_PAGE = 1000
"""Objects in one answer of a list; more than that no provider gives."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUS = re.compile(r"non-2xx status code: (\d{3}[A-Za-z -]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_BAD_KEY = re.compile(r'[Pp]ath "(.*?)"', re.DOTALL)
_IDENTITY = ("/latest/api/token", "/computeMetadata/", "/metadata/identity", "169.254.")
"""Where clouds tell a machine who it is."""
_PHRASES = {
    "InvalidCertificate": "its certificate is not trusted: have its CA installed, or name it in `ca`",
    "InvalidMessage": "it does not speak TLS: check `endpoint`",
    "incorrectly configured region": "the bucket is in another region: correct `region`",
    "dns error": "its host name is not known: check `endpoint` and the network",
    "Connection refused": "nothing listens there: check `endpoint`, the service and the network",
    "builder error": "the URL cannot be used: check `endpoint`",
    "TimedOut": "it does not answer in time: check the network between here and the service",
}
_RETRY: RetryConfig = {"max_retries": 6, "retry_timeout": timedelta(minutes=2)}


class Missing(SourceError):
    """There is no such object."""


class Found(NamedTuple):
    """An object as a list tells of it."""

    path: bytes
    """Below the prefix."""
    key: str
    size: int
    etag: str
    """Empty: the store gives none, and changes show in size and time only."""
    mtime_ns: int
    """When it was uploaded: the same on every node."""

    @property
    def state(self) -> bytes:
        """Changes with the object."""
        return f"{self.etag} {self.size} {self.mtime_ns}".encode()

    @property
    def token(self) -> bytes:
        """Proves that nothing changed; empty: nothing does."""
        return self.state if self.etag else b""


class Objects:
    """The objects of one place in a store. Several threads may read at once."""

    def __init__(self, store: Store, location: Location) -> None:
        self._store = store
        self._location = location

    @property
    def url(self) -> str:
        """For messages."""
        return self._location.url

    def list(self) -> Iterator[Found]:
        """The objects below the prefix, page by page, in the order of the store.

        Raises:
            SourceError: the store cannot be reached or refuses.
            UnsafeEntry: a key is no path.
        """
        pages = obstore.list(self._store, self._location.key or None, chunk_size=_PAGE)
        while True:
            try:
                page = next(pages, None)
            except (BaseError, FileNotFoundError) as error:
                raise _failure(error, self.url) from None
            if page is None:
                return
            for meta in page:
                if meta["path"] != self._location.key:  # the marker of the prefix itself
                    yield _found(meta, self._below(meta["path"]))

    def head(self) -> Found:
        """The single object.

        Raises:
            Missing: there is none.
            SourceError: the store cannot be reached or refuses.
        """
        try:
            meta = obstore.head(self._store, self._location.key)
        except (BaseError, FileNotFoundError) as error:
            raise _failure(error, self.url) from None
        return _found(meta, self._location.name)

    def read(self, found: Found, start: int = 0, end: int | None = None) -> bytes:
        """The bytes of an object that is still as it was found, from `start` up to `end`.

        Raises:
            Missing: it is gone.
            SourceChanged: it is another one by now.
            SourceError: the store cannot be reached or refuses.
        """
        options: GetOptions = {}
        if found.etag:
            options["if_match"] = found.etag
        if end is not None:
            options["range"] = (start, end)
        url = f"{self._location.provider}://{self._location.bucket}/{found.key}"
        try:
            answer = obstore.get(self._store, found.key, options=options)
            said, data = _found(answer.meta, found.path), answer.bytes().to_bytes()
        except (BaseError, FileNotFoundError) as error:
            raise _failure(error, url) from None
        expected = (found.size if end is None else end) - start
        if (said.etag, said.size) != (found.etag, found.size) or len(data) != expected:
            raise _changed(url)
        return data

    def _below(self, path: str) -> bytes:
        prefix = f"{self._location.key}/" if self._location.key else ""
        if not path.startswith(prefix):
            raise UnsafeEntry(
                f"{self.url} lists the key {show(path.encode())}, which is not below it: look at the store"
            )
        return path.removeprefix(prefix).encode()


def connect(config: ObjectStore, location: Location, retry: RetryConfig = _RETRY) -> Objects:
    """The objects at `location`, which is that of `config` or in the same bucket; asks for nothing yet.

    Raises:
        ConfigError: a file cannot be used, or something is missing that only the environment could have given.
    """
    client: ClientConfig = {
        "allow_http": config.endpoint is not None and config.endpoint.startswith("http:"),
        "connect_timeout": "10s",
        "read_timeout": "60s",
        "timeout": "10m",  # of one request, which asks for a few MiB
        "user_agent": f"goldlink/{__version__}",
    }
    if config.ca is not None:
        client["root_certificate"] = _read_ca(config.ca)
    make = {Provider.S3: _s3, Provider.GCS: _gcs, Provider.AZURE: _azure}[location.provider]
    try:
        return Objects(make(config, client, retry), location)
    except (BaseError, ValueError) as error:
        # The first line is obstore's own sentence; what it says about files and keys names their places only.
        raise ConfigError(f"{config.url} cannot be set up ({str(error).splitlines()[0]}): correct its source") from None


def _s3(config: ObjectStore, client: ClientConfig, retry: RetryConfig) -> Store:
    given = config.credentials
    in_path = config.endpoint is not None if config.path_style is None else config.path_style
    endpoint = config.endpoint
    if endpoint is not None and not in_path:  # obstore wants the whole host then
        parts = urlsplit(endpoint)
        endpoint = parts._replace(netloc=f"{config.location.bucket}.{parts.netloc}").geturl()
    options = {
        "endpoint": endpoint,
        "region": config.region,
        "virtual_hosted_style_request": not in_path,
        "skip_signature": config.anonymous or None,
        "access_key_id": _secret(given, "accessKeyIdFile"),
        "secret_access_key": _secret(given, "secretAccessKeyFile"),
        "session_token": _secret(given, "sessionTokenFile"),
    }
    given_options = cast("S3Config", _present(options))
    return S3Store(config.location.bucket, config=given_options, client_options=client, retry_config=retry)


def _gcs(config: ObjectStore, client: ClientConfig, retry: RetryConfig) -> Store:
    given = config.credentials
    options = {
        "base_url": config.endpoint,
        "skip_signature": config.anonymous or None,
        "application_credentials": given.service_account_file if given else None,
    }
    given_options = cast("GCSConfig", _present(options))
    return GCSStore(config.location.bucket, config=given_options, client_options=client, retry_config=retry)


def _azure(config: ObjectStore, client: ClientConfig, retry: RetryConfig) -> Store:
    given = config.credentials
    options = {
        "endpoint": config.endpoint,
        "account_name": config.account,
        "skip_signature": config.anonymous or None,
        "account_key": _secret(given, "accountKeyFile"),
        "sas_key": _secret(given, "sasTokenFile"),
    }
    given_options = cast("AzureConfig", _present(options))
    return AzureStore(config.location.bucket, config=given_options, client_options=client, retry_config=retry)


def _present(options: Mapping[str, str | bool | None]) -> dict[str, object]:
    """What is not given is left to the environment, where obstore looks by itself."""
    return {key: value for key, value in options.items() if value is not None}


def _secret(given: ObjectCredentials | None, key: str) -> str | None:
    path = given.given().get(key) if given else None
    return read_secret(path, key) if path else None


def _read_ca(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be used as `ca` ({error}): give a file of certificates in PEM") from error


def _found(meta: ObjectMeta, path: bytes) -> Found:
    mtime = (meta["last_modified"] - _EPOCH) // timedelta(microseconds=1) * 1000
    return Found(path, meta["path"], meta["size"], meta["e_tag"] or "", mtime)


def _changed(url: str) -> SourceChanged:
    return SourceChanged(f"{url} changed while it was read: let writers finish first, or write below another prefix")


def _failure(error: Exception, url: str) -> SourceError | UnsafeEntry:
    """What goldlink says about a failure of obstore."""
    text = str(error)
    if isinstance(error, InvalidPathError):
        key = _BAD_KEY.search(text)
        named = show(key[1].encode()) if key else "that cannot be shown"
        return UnsafeEntry(f"{url} has the key {named}, which is no path inside of a tree: rename or remove the object")
    if isinstance(error, PreconditionError):
        return _changed(url)
    if isinstance(error, FileNotFoundError):
        return Missing(f"{url} does not exist: upload it, or correct the URL")
    if any(place in text for place in _IDENTITY):
        return SourceError(
            f"{url} needs credentials, and neither the environment nor the machine has any: give `credentials`, or "
            "'anonymous: true'"
        )
    if status := _STATUS.search(text):
        code = _CODE.search(text)
        said = f"{status[1].strip()}{f' ({code[1]})' if code else ''}"
        return SourceError(f"{url} answers {said}: {_remedy(int(status[1][:3]))}")
    reason = next((meaning for phrase, meaning in _PHRASES.items() if phrase in text), "")
    return SourceError(f"{url} cannot be read: {reason or 'the connection broke; check the service and the network'}")


def _remedy(status: int) -> str:
    if status in {401, 403}:
        return "give credentials that may list and read it"
    if status in {301, 307, 400, 404}:  # 400 and redirects are what S3 answers in another region
        return "correct the bucket, its `region` or `endpoint`"
    return "look at the service, or wait"
