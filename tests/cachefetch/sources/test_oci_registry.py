"""The registry's protocol, with one that can be programmed; the real one is in test_oci.py."""

from __future__ import annotations

import hashlib
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from cachefetch.config import Oci
from cachefetch.errors import ConfigError, DataError, SourceError
from cachefetch.sources.oci_manifest import MANIFEST_MAX
from cachefetch.sources.oci_registry import Absent, Registry
from cachefetch.sources.web import Patience
from tests.servers.faulty import CutOff
from tests.servers.tls import make_certificates
from tests.servers.web import Server, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers.faulty import FaultyProxy
    from tests.servers.web import Request

DATA = bytes(range(256)) * 1000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
OTHER = "sha256:" + "0a" * 32


@dataclass
class Shelf:
    """Answers by path."""

    answers: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    url: str = ""

    def put(self, path: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.answers[path] = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def respond(self, request: Request) -> None:
        self.accepted.append(request.headers.get("Accept", ""))
        request.reply(*self.answers.get(request.path, (404, b"none", {})))

    def open(self, **more: object) -> Registry:
        config = Oci(image=f"{self.url.partition('//')[2]}/team/app:v1", **more)  # type: ignore[arg-type]
        return Registry(config, lambda: Patience(lambda _: None))


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    with serving(shelf.respond) as server:
        shelf.url = server.url
        yield shelf


def test_a_manifest_is_asked_for_in_every_form_and_compared_with_its_digest(shelf: Shelf) -> None:
    shelf.put("/v2/team/app/manifests/v1", DATA)
    shelf.put(f"/v2/team/app/manifests/{DIGEST}", DATA)
    shelf.put(f"/v2/team/app/manifests/{OTHER}", DATA)
    with shelf.open() as registry:
        assert registry.manifest("v1") == (DATA, DIGEST)
        assert registry.manifest(DIGEST) == (DATA, DIGEST)
        with pytest.raises(DataError, match=f"team/app@{OTHER} has digest {DIGEST}"):
            registry.manifest(OTHER)
    forms = shelf.accepted[0].split(", ")
    assert len(forms) == 4
    assert "application/vnd.docker.distribution.manifest.list.v2+json" in forms


@pytest.mark.parametrize(
    ("said", "understood"), [(DIGEST, DIGEST), ("", None), ("sha256:x/../../y", None), ("sha512:00", None)]
)
def test_the_digest_of_a_tag_is_what_the_registry_says_if_it_is_one(
    shelf: Shelf, said: str, understood: str | None
) -> None:
    shelf.put("/v2/team/app/manifests/v1", DATA, Docker_Content_Digest=said)
    with shelf.open() as registry:
        assert registry.digest("v1") == understood


def ignore(_: int) -> None:
    """Nobody listens."""


def test_what_is_not_there_is_named(shelf: Shelf, tmp_path: Path) -> None:
    with shelf.open() as registry:
        with pytest.raises(Absent, match="/team/app:v1 is not in its registry"):
            registry.digest("v1")
        with pytest.raises(Absent, match="/team/app:v1 is not in its registry"):
            registry.manifest("v1")
        with pytest.raises(Absent, match=f"/team/app@{OTHER} is not in its registry"):
            registry.blob(OTHER, 10)
        with pytest.raises(Absent, match=f"/team/app@{OTHER} is not in its registry"):
            registry.download(OTHER, 10, tmp_path, ignore, ignore)


def test_a_manifest_that_breaks_off_is_asked_for_again(shelf: Shelf, faulty: Callable[[str], FaultyProxy]) -> None:
    shelf.put("/v2/team/app/manifests/v1", DATA)
    proxy = faulty(shelf.url)
    proxy.inject(CutOff(after=10), times=1)
    shelf.url = proxy.url
    with shelf.open() as registry:
        assert registry.manifest("v1") == (DATA, DIGEST)
    assert len(proxy.traffic.of()) == 2


def test_what_is_refused_for_another_reason_is_not_absent(shelf: Shelf) -> None:
    shelf.put("/v2/team/app/manifests/v1", b"", status=403)
    with shelf.open() as registry, pytest.raises(SourceError, match="answers 403") as caught:
        registry.manifest("v1")
    assert not isinstance(caught.value, Absent)


def test_nothing_is_read_beyond_what_it_may_be(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("/v2/team/app/manifests/v1", bytes(MANIFEST_MAX + 1))
    shelf.put(f"/v2/team/app/blobs/{DIGEST}", DATA)
    with shelf.open() as registry:
        with pytest.raises(DataError, match="is larger than"):
            registry.manifest("v1")
        with pytest.raises(DataError, match="is larger than"):
            registry.blob(DIGEST, len(DATA) - 1)
        assert registry.blob(DIGEST, len(DATA)) == DATA
        for size in (len(DATA) - 1, len(DATA) + 1, 0):
            with pytest.raises(DataError, match=f"has not the {size} bytes"):
                registry.download(DIGEST, size, tmp_path, ignore, ignore)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_download_is_a_file_and_heard_of_once(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(f"/v2/team/app/blobs/{DIGEST}", DATA)
    heard: list[int] = []
    recalled: list[int] = []
    with shelf.open() as registry:
        for _ in range(2):
            path = registry.download(DIGEST, len(DATA), tmp_path, heard.append, recalled.append)
            assert path.read_bytes() == DATA
    assert (sum(heard), sum(recalled)) == (len(DATA), len(DATA)), "the second time it is there"


def test_whoever_listens_may_end_a_download_and_what_arrived_is_kept(shelf: Shelf, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(_: int) -> None:
        raise StoppedError

    shelf.put(f"/v2/team/app/blobs/{DIGEST}", DATA)
    with shelf.open() as registry, pytest.raises(StoppedError):
        registry.download(DIGEST, len(DATA), tmp_path, stop, ignore)
    assert sum(path.stat().st_size for path in tmp_path.rglob("download")) > 0


def test_a_mirror_that_cannot_be_reached_is_asked_once_and_one_that_has_nothing_again(shelf: Shelf) -> None:
    shelf.put("/v2/team/app/manifests/v1", DATA)
    asked: dict[str, int] = {"busy": 0, "empty": 0}

    def answer(name: str, status: int, request: Request) -> None:
        asked[name] += 1
        request.reply(status)

    with (
        serving(lambda request: answer("busy", 503, request)) as busy,
        serving(lambda request: answer("empty", 404, request)) as empty,
        shelf.open(mirrors=(busy.url, empty.url)) as registry,
    ):
        for _ in range(3):
            assert registry.manifest("v1")[0] == DATA
    assert asked == {"busy": 1, "empty": 3}


def test_a_mirror_may_have_a_path_and_is_told_for_whom_it_stands(shelf: Shelf) -> None:
    name = shelf.url.partition("//")[2]
    paths: list[str] = []

    def answer(request: Request) -> None:
        paths.append(request.path)
        request.reply(200, DATA)

    with serving(answer) as server:
        for path in ("", "/", "/v2", "/v2/", "/proxy", "/proxy/v2"):
            with shelf.open(mirrors=(server.url + path,)) as registry:
                registry.manifest("v1")
    expected = [f"{path}/v2/team/app/manifests/v1?ns={name}" for path in ("", "", "", "", "/proxy", "/proxy")]
    assert paths == expected


@contextmanager
def over_tls(shelf: Shelf, certificate: Path, key: Path) -> Iterator[None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Server(shelf.respond) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        shelf.url = server.url.replace("http:", "https:")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_an_authority_of_one_s_own_is_trusted_where_it_is_named(shelf: Shelf, tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    shelf.put("/v2/team/app/manifests/v1", DATA)
    with over_tls(shelf, made.certificate, made.key):
        with shelf.open(ca=str(made.authority)) as registry:
            assert registry.manifest("v1")[0] == DATA
        with shelf.open(plain_http=False) as registry, pytest.raises(SourceError, match="certificate that is not tru"):
            registry.manifest("v1")
    with pytest.raises(ConfigError, match="cannot be used as `ca`"):
        shelf.open(ca=str(tmp_path / "none.pem"))
