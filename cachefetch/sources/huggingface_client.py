"""Reading from the Hugging Face hub: commits, lists of files, and files.

Routes: `/api/{models,datasets,spaces}/REPO/revision/REV`, `…/tree/COMMIT`, `/REPO/resolve/COMMIT/PATH`, as the hub's
OpenAPI description and its own client libraries have them. Large files are served by another host, to which the hub
sends with a signed URL; the token is for the hub alone.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar
from urllib.parse import quote, urljoin

import msgspec

from cachefetch.decoding import UNREADABLE
from cachefetch.errors import DataError, SourceError
from cachefetch.paths import check_entry_path, show
from cachefetch.sources import web
from cachefetch.sources.download import Download
from cachefetch.sources.http_auth import bearer
from cachefetch.urls import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

    from cachefetch.content import Readable
    from cachefetch.sourceconfig import HuggingFace

_ANSWER_MAX = 64 << 20
"""Bytes of one answer of the API: a page has 1000 files, but a repository's own answer names all of them."""
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')
T = TypeVar("T")
_TYPES = {"model": ("models", ""), "dataset": ("datasets", "datasets/"), "space": ("spaces", "spaces/")}
"""How each kind of repository is called in routes of the API and of files."""


class HubFile(NamedTuple):
    """A file of a commit."""

    name: str
    """Its path, as text."""
    size: int
    git: str
    """Id of the git blob, which for a large file is only a pointer to it."""
    sha256: str
    """Of a large file's bytes; empty for a small one, which git keeps itself."""

    @property
    def path(self) -> bytes:
        """Its path."""
        return self.name.encode()

    @property
    def token(self) -> bytes:
        """Names the content."""
        return f"sha256 {self.sha256}".encode() if self.sha256 else f"git {self.git}".encode()


class _About(msgspec.Struct, frozen=True):
    sha: str


class _Lfs(msgspec.Struct, frozen=True):
    oid: str


class _Entry(msgspec.Struct, frozen=True):
    type: str
    path: str
    oid: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    lfs: _Lfs | None = None


class Hub:
    """One repository of the hub. Use it as a context; several threads may read at once."""

    def __init__(self, config: HuggingFace, patience: Callable[[], web.Patience] = web.Patience) -> None:
        """Connects to nothing yet; the file with the token is read now.

        Raises:
            ConfigError: it cannot be used, or that of `ca`.
        """
        self._config = config
        self._endpoint = config.endpoint.rstrip("/")
        api, prefix = _TYPES[config.repo_type]
        self._api = f"{self._endpoint}/api/{api}/{config.repo}"
        self._page = f"{self._endpoint}/{prefix}{config.repo}"
        login = bearer(self._endpoint, config.token_file, "tokenFile") if config.token_file else None
        self._client = web.make_client(ca=config.ca, auth=login)
        self._patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._client.close()

    def commit(self) -> str:
        """The commit that the revision names now.

        Raises:
            SourceError: there is none, or the hub cannot be reached or refuses.
            DataError: it answers something else.
        """
        url = f"{self._api}/revision/{quote(self._config.revision, safe='')}?expand=sha"
        commit = self._ask(url, _About)[0].sha
        if not _SHA1.fullmatch(commit):
            raise DataError(f"{redact(url)} names {commit[:80]!r}, which is no commit: check `endpoint`")
        return commit

    def files(self, commit: str) -> Iterator[HubFile]:
        """All files of a commit, page by page.

        Raises:
            SourceError: the hub cannot be reached or refuses.
            DataError: it answers something else.
        """
        url: str | None = f"{self._api}/tree/{commit}?recursive=true&expand=false"
        seen: set[str] = set()
        while url:
            if url in seen:
                raise DataError(f"{redact(url)} leads back to itself: check `endpoint`")
            seen.add(url)
            entries, url = self._ask(url, list[_Entry])
            for entry in entries:
                if entry.type != "directory":  # git has none without files
                    yield _file(entry, self._page)

    def read(self, commit: str, file: HubFile) -> bytes:
        """The bytes of a small file.

        Raises:
            SourceError: the hub cannot be reached or refuses.
            DataError: it is larger than was announced.
        """
        with self.refusals():
            return web.read(self._client, self._url(commit, file), {}, self._patience(), limit=file.size)[0]

    def download(self, commit: str, file: HubFile, scratch: Path) -> Download:
        """A large file, of which an earlier try may have left a part in `scratch`."""
        digest = f"sha256:{file.sha256}" if file.sha256 else None
        return Download(self._client, self._url(commit, file), scratch, self._patience(), digest=digest)

    def _url(self, commit: str, file: HubFile) -> str:
        return f"{self._page}/resolve/{commit}/{quote(file.path)}"

    def _ask(self, url: str, type_: type[T]) -> tuple[T, str | None]:
        """An answer of the API, and the URL of the next page if there is one (RFC 8288)."""
        with self.refusals():
            body, headers = web.read(self._client, url, {}, self._patience(), limit=_ANSWER_MAX)
        try:
            answer = msgspec.json.decode(body, type=type_)
        except UNREADABLE as error:
            raise DataError(f"{redact(url)} does not answer as a hub does ({error}): check `endpoint`") from error
        following = _NEXT.search(headers.get("Link", ""))
        return answer, urljoin(url, following[1]) if following else None

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Say what the hub's refusals mean. It does not tell who may not see a repository whether there is one."""
        try:
            yield
        except web.Refused as error:
            page = redact(self._page)
            if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                with_what = "the token of `tokenFile`" if self._config.token_file else "no token"
                raise SourceError(
                    f"{page} answers {error.status} to who has {with_what}: it is private, gated or not there; accept "
                    "its terms on that page, give a `tokenFile` that may read it, or correct `repo`"
                ) from error
            if error.status == HTTPStatus.NOT_FOUND:
                raise SourceError(
                    f"{page} is not there, or has no revision {self._config.revision!r}: correct `repo`, `repoType` or "
                    "`revision`"
                ) from error
            raise


class GitBlob:
    """The bytes of a file that git keeps itself, compared at their end with the id that git gave them."""

    def __init__(self, content: Readable, file: HubFile) -> None:
        self._content = content
        self._file = file
        self._sha1 = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; empty at the end.

        Raises:
            DataError: they are not those that the id names.
        """
        chunk = self._content.read(size)
        self._sha1.update(chunk)
        if size and not chunk and self._sha1.hexdigest() != self._file.git:
            raise DataError(
                f"file {show(self._file.path)} is not git blob {self._file.git}: the hub or the network is damaged"
            )
        return chunk


def _file(entry: _Entry, page: str) -> HubFile:
    """What a list says about a file; nothing of it is believed."""
    sha256 = entry.lfs.oid if entry.lfs else ""
    if entry.type != "file" or not _SHA1.fullmatch(entry.oid) or not _SHA256.fullmatch(sha256 or "0" * 64):
        raise DataError(f"{redact(page)} lists {entry.path!r} in a way that no hub does: check `endpoint`")
    check_entry_path(entry.path.encode())  # JSON that was decoded is text: it can be encoded
    return HubFile(entry.path, entry.size, entry.oid, sha256)
