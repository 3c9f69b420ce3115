"""A model hub that speaks the Hugging Face hub's routes, and the other host to which it sends for large files.

Source: the hub's OpenAPI description and its client `huggingface_hub`, which downloads from here as from the real one.
What matters to a fetcher is kept: commits behind branches, pages of listings, ETags that are git ids or sha256,
redirects to signed URLs that expire and that refuse a token, and error codes in headers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tests.servers.faulty import FaultyProxy, faulty_proxy
from tests.servers.ranges import reply_range
from tests.servers.web import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.servers.web import Request

_API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)(?P<rest>/.*)?")
_RESOLVE = re.compile(r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_SECRET = b"shared by the hub and its storage"


@dataclass(frozen=True)
class File:
    """A file of a commit."""

    data: bytes
    large: bool
    """Kept by LFS: known by its sha256, and served by the other host."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git keeps of a large file (git-lfs, docs/spec.md)."""
        lines = "version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {len(self.data)}", ""
        return "\n".join(lines).encode()

    @property
    def git_id(self) -> str:
        """The id of the git blob."""
        kept = self.pointer if self.large else self.data
        return hashlib.sha1(b"blob %d\0%b" % (len(kept), kept)).hexdigest()


@dataclass
class Repository:
    """Commits by their ids, and the branches and tags that name them; kind is `models` or `datasets`."""

    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)


class Hub:
    """The hub's content and its two faces."""

    def __init__(self) -> None:
        self.token = "hf_goldlinkTestsToken"
        self.page = 1000
        """Entries in one answer of a listing."""
        self.link_lifetime = 3600
        """Seconds for which the next redirects to the other host are good."""
        self.proxy: FaultyProxy
        """In front of the hub."""
        self.storage: FaultyProxy
        """In front of the other host."""
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._objects: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        """The endpoint."""
        return self.proxy.url

    def commit(
        self,
        repo: str,
        files: Mapping[str, bytes],
        *,
        large: int = 10_000,
        kind: str = "models",
        ref: str = "main",
        private: bool = False,
    ) -> str:
        """Make these files (from `large` bytes on in LFS) the content of a branch or tag; the commit's id."""
        repository = self._repositories.setdefault((kind, repo), Repository())
        repository.private = private
        content = {path: File(data, len(data) >= large) for path, data in sorted(files.items())}
        names = "".join(f"{path} {file.git_id}\n" for path, file in content.items())
        commit = hashlib.sha1(f"{repo} {len(repository.commits)}\n{names}".encode()).hexdigest()
        repository.commits[commit] = content
        repository.refs[ref] = commit
        self._objects |= {file.sha256: file.data for file in content.values() if file.large}
        return commit

    def respond(self, request: Request) -> None:
        """Answer as the hub."""
        path = urlsplit(request.path).path  # still quoted: a revision may contain a slash
        if match := _API.fullmatch(path):
            repository = self._visible(request, match["kind"], match["repo"])
            if repository:
                self._api(request, repository, match["repo"], match["rest"] or "")
        elif match := _RESOLVE.fullmatch(path):
            repository = self._visible(request, match["kind"] or "models", match["repo"])
            if repository:
                self._resolve(request, repository, unquote(match["revision"]), unquote(match["path"]))
        else:
            _refuse(request, 404, "", "no such route")

    def respond_storage(self, request: Request) -> None:
        """Answer as the other host, which believes signatures and nothing else."""
        url = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if "Authorization" in request.headers:
            request.reply(400, b"only one way to authenticate is allowed")
        elif query.get("Signature") != _sign(url.path, query.get("Expires", "")) or int(query["Expires"]) < time.time():
            request.reply(403, b"access denied")
        else:
            digest = url.path.rpartition("/")[2]
            reply_range(request, self._objects[digest], etag=f'"{digest[:32]}"')

    def _visible(self, request: Request, kind: str, repo: str) -> Repository | None:
        """The repository, if the request may know of it; otherwise the answer is given."""
        given = request.headers.get("Authorization")
        repository = self._repositories.get((kind, repo))
        if given not in {None, f"Bearer {self.token}"}:
            _refuse(request, 401, "", "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and not given):
            # Who is not logged in does not learn whether it exists.
            _refuse(request, 404 if given else 401, "RepoNotFound", "Repository not found")
        else:
            return repository
        return None

    def _api(self, request: Request, repository: Repository, repo: str, rest: str) -> None:
        _, action, revision, path = (unquote(part) for part in (*rest.split("/", 3), "", "", "", "")[:4])
        commit = _commit(repository, revision or "main")
        if action not in {"", "revision", "tree"}:
            _refuse(request, 404, "", "no such route")
        elif commit is None:
            _refuse(request, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif action == "tree":
            self._tree(request, repository.commits[commit], path)
        else:
            siblings = [{"rfilename": name} for name in repository.commits[commit]]
            about = {"id": repo, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []}
            _reply_json(request, about)

    def _tree(self, request: Request, files: Mapping[str, File], directory: str) -> None:
        query = parse_qs(urlsplit(request.path).query)
        entries = _listing(files, directory, recursive=query.get("recursive", [""])[0].lower() in {"true", "1"})
        if directory and not entries:
            _refuse(request, 404, "EntryNotFound", f"{directory} does not exist")
            return
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.page < len(entries):
            here = f"http://{request.headers['Host']}{urlsplit(request.path).path}"
            following = urlencode({**{name: values[0] for name, values in query.items()}, "cursor": start + self.page})
            headers["Link"] = f'<{here}?{following}>; rel="next"'
        _reply_json(request, entries[start : start + self.page], headers)

    def _resolve(self, request: Request, repository: Repository, revision: str, path: str) -> None:
        commit = _commit(repository, revision)
        file = repository.commits[commit].get(path) if commit else None
        if file is None:
            code = "EntryNotFound" if commit else "RevisionNotFound"
            _refuse(request, 404, code, f"{path} of {revision} does not exist")
            return
        headers = {"X-Repo-Commit": str(commit)}
        if not file.large:
            reply_range(request, file.data, etag=f'"{file.git_id}"', headers=headers)
            return
        where, expires = f"/storage/{file.sha256}", str(int(time.time()) + self.link_lifetime)
        signed = urlencode({"Expires": expires, "Signature": _sign(where, expires)})
        headers["Location"] = f"{self.storage.url}{where}?{signed}"
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
        request.reply(302, b"Found. Redirecting", headers)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """An empty hub until the end of the block."""
    hub = Hub()
    with (
        serving(hub.respond) as server,
        serving(hub.respond_storage) as storage,
        faulty_proxy(server.url) as hub.proxy,
        faulty_proxy(storage.url) as hub.storage,
    ):
        yield hub


def _commit(repository: Repository, revision: str) -> str | None:
    commit = repository.refs.get(revision, revision)
    return commit if commit in repository.commits else None


def _listing(files: Mapping[str, File], directory: str, *, recursive: bool) -> list[dict[str, object]]:
    """The entries of a directory (or of all below it), those of directories included."""
    top = PurePosixPath(directory)
    below = {PurePosixPath(path): file for path, file in files.items() if PurePosixPath(path).is_relative_to(top)}
    parents = {parent for path in below for parent in path.parents if parent != top and parent.is_relative_to(top)}
    entries: dict[PurePosixPath, dict[str, object]] = {
        path: {"type": "directory", "oid": hashlib.sha1(str(path).encode()).hexdigest(), "size": 0, "path": str(path)}
        for path in parents
    }
    for path, file in below.items():
        entries[path] = {"type": "file", "oid": file.git_id, "size": len(file.data), "path": str(path)}
        if file.large:
            lfs = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
            entries[path]["lfs"] = lfs
    return [entries[path] for path in sorted(entries) if recursive or path.parent == top]


def _sign(path: str, expires: str) -> str:
    return hmac.new(_SECRET, f"{path} {expires}".encode(), "sha256").hexdigest()


def _reply_json(request: Request, value: object, headers: Mapping[str, str] | None = None) -> None:
    request.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def _refuse(request: Request, status: int, code: str, message: str) -> None:
    headers = {"X-Error-Message": quote(message, safe=" :/"), **({"X-Error-Code": code} if code else {})}
    request.reply(status, json.dumps({"error": message}).encode(), {"Content-Type": "application/json", **headers})
