from __future__ import annotations

import hashlib
import io
import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import ConfigError, DataError, SourceError, UnsafeEntry
from cachefetch.sourceconfig import HuggingFace, RepoType
from cachefetch.sources.huggingface_client import GitBlob, Hub, HubFile
from cachefetch.sources.web import Patience
from tests.servers.faulty import Answer
from tests.servers.hub import Hub as Server
from tests.servers.hub import running_hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FILES = {"config.json": b"{}", "a/b c#%?é.txt": b"text", "model.bin": os.urandom(20_000), "empty": b""}


@pytest.fixture
def server() -> Iterator[Server]:
    with running_hub() as server:
        yield server


def opened(server: Server, repo: str = "owner/name", **more: object) -> Hub:
    config = HuggingFace(repo=repo, endpoint=server.url, **more)  # type: ignore[arg-type]
    return Hub(config, lambda: Patience(lambda _: None))


@pytest.mark.parametrize(("kind", "type_"), [("models", RepoType.MODEL), ("datasets", RepoType.DATASET)])
def test_a_revision_is_a_commit_with_files(server: Server, kind: str, type_: RepoType) -> None:
    first = server.commit("owner/name", FILES, kind=kind)
    second = server.commit("owner/name", {"x": b"y"}, kind=kind, ref="refs/pr/1")
    with opened(server, repo_type=type_) as hub:
        assert hub.commit() == first
        found = {file.name: file for file in hub.files(first)}
        assert {name: file.size for name, file in found.items()} == {name: len(data) for name, data in FILES.items()}
        assert found["model.bin"].sha256 == hashlib.sha256(FILES["model.bin"]).hexdigest()
        assert {name: hub.read(first, file) for name, file in found.items()} == FILES
    with opened(server, repo_type=type_, revision="refs/pr/1") as hub:
        assert hub.commit() == second
    with opened(server, repo_type=type_, revision=first) as hub:
        assert hub.commit() == first


@pytest.mark.parametrize("page", [1, 3, 5, 1000])
def test_a_list_has_as_many_pages_as_it_needs(server: Server, page: int) -> None:
    server.page = page
    commit = server.commit("owner/name", {f"d{number % 3}/{number}": b"x" for number in range(10)})
    with opened(server) as hub:
        assert {file.name for file in hub.files(commit)} == {f"d{number % 3}/{number}" for number in range(10)}


@pytest.fixture
def token(server: Server, tmp_path: Path) -> str:
    (tmp_path / "token").write_text(f"{server.token}\n")
    return str(tmp_path / "token")


def test_a_token_opens_what_is_private_and_stays_with_the_hub(server: Server, token: str) -> None:
    """The other host of the hub's storage answers 400 to a request with a token."""
    commit = server.commit("owner/name", FILES, private=True)
    with opened(server, token_file=token) as hub:
        assert {file.name: hub.read(commit, file) for file in hub.files(hub.commit())} == FILES
    with (
        opened(server) as hub,
        pytest.raises(SourceError, match=r"answers 401 to who has no token: .* accept its terms"),
    ):
        hub.commit()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "RepoNotFound", "answers 401 to who has the token of `tokenFile`: it is private, gated or not there"),
        (403, "GatedRepo", "answers 403 to who has the token of `tokenFile`: it is private, gated or not there"),
        (404, "RepoNotFound", "is not there, or has no revision 'main': correct `repo`, `repoType` or `revision`"),
        (429, "", "answers 429"),
        (400, "", "answers 400"),
    ],
)
def test_a_refusal_says_what_to_do_and_no_token(
    server: Server, token: str, status: int, code: str, expected: str
) -> None:
    server.commit("owner/name", FILES)
    server.proxy.inject(Answer(status, {"X-Error-Code": code}))
    with opened(server, token_file=token) as hub, pytest.raises(SourceError) as caught:
        hub.commit()
    assert expected in str(caught.value)
    assert server.token not in str(caught.value) + repr(hub)


def test_a_missing_revision_and_a_missing_token_are_named(server: Server, tmp_path: Path) -> None:
    server.commit("owner/name", FILES)
    with opened(server, revision="v9") as hub, pytest.raises(SourceError, match="has no revision 'v9'"):
        hub.commit()
    with pytest.raises(ConfigError, match=r"none cannot be read: .* correct `tokenFile`"):
        opened(server, token_file=str(tmp_path / "none"))


def test_a_busy_hub_is_asked_again(server: Server) -> None:
    commit = server.commit("owner/name", FILES)
    server.proxy.inject(Answer(503), times=2)
    with opened(server) as hub:
        assert hub.commit() == commit


GIT, SHA = "a" * 40, "b" * 64


@pytest.mark.parametrize(
    ("answer", "error", "expected"),
    [
        (b"<html>", DataError, "does not answer as a hub does"),
        (b'[{"path": "\xff"}]', DataError, "does not answer as a hub does"),
        (b'[{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]", DataError, "does not answer as a hub does"),
        (b'[{"type": "file"}]', DataError, "does not answer as a hub does"),
        ([{"type": "file", "path": "a", "oid": GIT, "size": -1}], DataError, "does not answer as a hub does"),
        ([{"type": "file", "path": "a", "oid": "x", "size": 1}], DataError, "lists 'a' in a way that no hub does"),
        ([{"type": "unknown", "path": "a", "oid": GIT, "size": 1}], DataError, "in a way that no hub does"),
        (
            [{"type": "file", "path": "a", "oid": GIT, "size": 1, "lfs": {"oid": "../x"}}],
            DataError,
            "in a way that no hub does",
        ),
        ([{"type": "file", "path": "../a", "oid": GIT, "size": 1}], UnsafeEntry, "'../a' is refused"),
        ([{"type": "file", "path": "/etc/passwd", "oid": GIT, "size": 1}], UnsafeEntry, "its path is absolute"),
    ],
)
def test_nothing_in_a_list_is_believed(server: Server, answer: object, error: type[Exception], expected: str) -> None:
    commit = server.commit("owner/name", FILES)
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    server.proxy.inject(Answer(200, body=body))
    with opened(server) as hub, pytest.raises(error, match=expected):
        list(hub.files(commit))


def test_a_list_that_leads_back_to_itself_ends(server: Server) -> None:
    commit = server.commit("owner/name", FILES)
    with opened(server) as hub:
        here = f"{server.url}/api/models/owner/name/tree/{commit}?recursive=true&expand=false"
        server.proxy.inject(Answer(200, {"Link": f'<{here}>; rel="next"'}, b"[]"))
        with pytest.raises(DataError, match="leads back to itself"):
            list(hub.files(commit))


@pytest.mark.parametrize("commit", ["../../x", "main", "A" * 40])
def test_what_is_no_commit_is_refused(server: Server, commit: str) -> None:
    server.proxy.inject(Answer(200, body=json.dumps({"sha": commit}).encode()))
    with opened(server) as hub, pytest.raises(DataError, match="which is no commit"):
        hub.commit()


def test_a_file_that_is_larger_than_announced_is_not_read_to_its_end(server: Server) -> None:
    commit = server.commit("owner/name", {"a": bytes(9000)})
    with opened(server) as hub:
        (file,) = hub.files(commit)
        with pytest.raises(DataError, match="is larger than 100 bytes"):
            hub.read(commit, file._replace(size=100))


def blob(content: bytes, size: int | None = None) -> GitBlob:
    size = len(content) if size is None else size
    made = hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
    return GitBlob(io.BytesIO(content), HubFile("a", size, made, ""))


def read(content: GitBlob, piece: int) -> bytes:
    pieces: Callable[[], bytes] = lambda: content.read(piece)  # noqa: E731  (the two-argument iter wants a function)
    return b"".join(iter(pieces, b""))


@given(st.binary(max_size=2000), st.integers(1, 700))
def test_the_right_bytes_of_a_blob_arrive_and_wrong_ones_do_not(content: bytes, piece: int) -> None:
    assert read(blob(content), piece) == content
    for wrong in (blob(content + b"x"), blob(content)):
        wrong._file = wrong._file._replace(git=GIT)
        with pytest.raises(DataError, match=f"'a' is not git blob {GIT}"):
            read(wrong, piece)
    with pytest.raises(DataError):
        read(blob(content, len(content) + 1), piece)
