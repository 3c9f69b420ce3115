from __future__ import annotations

import hashlib
import io
import os
import subprocess
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from cachefetch.config import Directory, Http
from cachefetch.errors import ConfigError, DataError, SourceError, UnsafeEntry
from cachefetch.sourceconfig import FileVerify, HttpAuth, Minisign
from cachefetch.sources import open_source
from cachefetch.sources.directory import DirectorySource
from cachefetch.sources.http import HttpSource
from cachefetch.sources.web import Patience
from cachefetch.urls import Format
from tests.cachefetch.httpd import running
from tests.cachefetch.sources.signer import Signer
from tests.cachefetch.sources.test_tar import entry, tar

if TYPE_CHECKING:
    from pathlib import Path

    from cachefetch.refresh import Refreshed
    from tests.cachefetch.httpd import Httpd
    from tests.cachefetch.sources.conftest import Fetched

ARCHIVE = tar(*[entry(f"d/{number}", os.urandom(3000), mtime=number) for number in range(50)])
ZST = subprocess.run(["zstd", "-q"], input=ARCHIVE, check=True, capture_output=True).stdout


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def refresh(fetched: Fetched, url: str, **more: Any) -> Refreshed:
    config = Http(url=url, **more)
    return fetched.refresh(config, HttpSource(config, patience=lambda: Patience(lambda _: None)))


def test_each_kind_has_its_source(tmp_path: Path) -> None:
    assert isinstance(open_source(Directory(path=str(tmp_path))), DirectorySource)
    assert isinstance(open_source(Http(url="http://h/x")), HttpSource)


@pytest.mark.parametrize("format_", [None, Format.TAR_ZST])
def test_an_archive_is_unpacked(httpd: Httpd, fetched: Fetched, format_: Format | None) -> None:
    path = "/a.tar.zst" if format_ is None else "/download"
    httpd.serve(path, ZST)
    refresh(fetched, httpd.url(path), format=format_)
    assert len(fetched.entries()) == 51
    assert fetched.entries()[b"d/7"].mtime_ns == 7 * 10**9


def test_a_zip_is_unpacked(httpd: Httpd, fetched: Fetched) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/b", b"content")
    httpd.serve("/a.zip", out.getvalue())
    refresh(fetched, httpd.url("/a.zip"))
    assert (fetched.tree / "a" / "b").read_bytes() == b"content"


def test_a_single_file_has_the_name_of_the_url_and_the_same_version_everywhere(httpd: Httpd, fetched: Fetched) -> None:
    httpd.serve("/model v1.bin", b"weights", last_modified="Wed, 21 Oct 2015 07:28:00 GMT")
    httpd.resources["/model%20v1.bin"] = httpd.resources.pop("/model v1.bin")
    refresh(fetched, httpd.url("/model%20v1.bin?sig=1"))
    (found,) = fetched.entries().values()
    assert (found.path, found.mode, found.mtime_ns) == (b"model v1.bin", 0o444, 0)
    assert (fetched.tree / "model v1.bin").read_bytes() == b"weights"


@pytest.mark.parametrize(
    "validators", [{}, {"etag": 'W/"1"'}, {"etag": "", "last_modified": "Wed, 21 Oct 2015 07:28:00 GMT"}]
)
def test_what_did_not_change_is_not_sent_again(httpd: Httpd, fetched: Fetched, validators: dict[str, str]) -> None:
    httpd.serve("/a.tar", ARCHIVE, **validators)
    refresh(fetched, httpd.url("/a.tar"))
    httpd.requests.clear()
    assert not refresh(fetched, httpd.url("/a.tar")).changed
    assert [(seen.status, seen.sent) for seen in httpd.requests] == [(304, 0)]


def test_without_validators_everything_is_fetched_and_the_version_stays(httpd: Httpd, fetched: Fetched) -> None:
    httpd.serve("/a.tar", ARCHIVE, etag="")
    refresh(fetched, httpd.url("/a.tar"))
    assert not refresh(fetched, httpd.url("/a.tar")).changed


def test_a_change_is_a_new_version_that_shares_what_is_equal(httpd: Httpd, fetched: Fetched) -> None:
    httpd.serve("/a.tar", tar(entry("same", b"1"), entry("other", b"2")))
    refresh(fetched, httpd.url("/a.tar"))
    before = {name: (fetched.tree / name).stat().st_ino for name in ("same", "other")}
    httpd.serve("/a.tar", tar(entry("same", b"1"), entry("other", b"3")))
    assert refresh(fetched, httpd.url("/a.tar")).changed
    assert (fetched.tree / "same").stat().st_ino == before["same"]
    assert (fetched.tree / "other").stat().st_ino != before["other"]
    assert (fetched.tree / "other").read_bytes() == b"3"


def test_a_known_digest_needs_no_request(httpd: Httpd, fetched: Fetched) -> None:
    httpd.serve("/a.tar.zst", ZST)
    refresh(fetched, httpd.url("/a.tar.zst"), digest=digest(ZST))
    httpd.requests.clear()
    assert not refresh(fetched, httpd.url("/a.tar.zst"), digest=digest(ZST)).changed
    assert httpd.requests == []


def test_a_wrong_digest_publishes_nothing_and_keeps_nothing(httpd: Httpd, fetched: Fetched, tmp_path: Path) -> None:
    httpd.serve("/a.tar", ARCHIVE)
    with pytest.raises(DataError, match="expected was sha256:0000"):
        refresh(fetched, httpd.url("/a.tar"), digest="sha256:" + "0" * 64)
    assert fetched.version == ""
    assert partial(tmp_path) == []


def partial(tmp_path: Path) -> list[int]:
    """Sizes of the partial downloads that a store keeps."""
    return [path.stat().st_size for path in tmp_path.glob("state/staging/*/*/download")]


def test_a_broken_download_is_resumed_by_the_next_refresh(httpd: Httpd, fetched: Fetched, tmp_path: Path) -> None:
    resource = httpd.serve("/a.tar.zst", ZST, cut_after=[20_000], statuses=[])
    url = httpd.url("/a.tar.zst")
    resource.statuses = [0] + [503] * 10  # the only answer is cut off
    with pytest.raises(SourceError, match="503"):
        refresh(fetched, url, digest=digest(ZST))
    resource.statuses, resource.cut_after = [0, 0] + [503] * 10, [20_000, 20_000]
    with pytest.raises(SourceError, match="503"):
        refresh(fetched, url, digest=digest(ZST))
    resource.statuses, resource.cut_after = [], []
    have = sum(partial(tmp_path))
    assert have
    httpd.requests.clear()
    refresh(fetched, url, digest=digest(ZST))
    assert len(fetched.entries()) == 51
    assert [seen.headers.get("Range") for seen in httpd.requests] == ["bytes=0-0", f"bytes={have}-"]
    assert httpd.requests[1].sent == len(ZST) - have
    assert partial(tmp_path) == []


def test_a_damaged_archive_is_not_resumed_for_ever(httpd: Httpd, fetched: Fetched, tmp_path: Path) -> None:
    httpd.serve("/a.tar.zst", ZST[:5000] + b"damage" + ZST[5006:])
    with pytest.raises(DataError, match=r"not tar\.zst, or damaged"):
        refresh(fetched, httpd.url("/a.tar.zst"))
    assert partial(tmp_path) == []


def test_an_unsafe_archive_is_not_downloaded_again(httpd: Httpd, fetched: Fetched) -> None:
    data = tar(entry("a", b"1" * 200_000), entry("../x", b"2"))
    httpd.serve("/a.tar", data)
    for _ in range(2):
        with pytest.raises(UnsafeEntry):
            refresh(fetched, httpd.url("/a.tar"))
        sent = [seen.sent for seen in httpd.requests if seen.headers.get("Range", "bytes=0-0") != "bytes=0-0"]
    assert sent
    assert max(sent) < len(data)


def test_the_rest_after_the_end_marker_counts_for_the_digest(httpd: Httpd, fetched: Fetched) -> None:
    data = ARCHIVE + b"trailer" * 300_000
    httpd.serve("/a.tar", data)
    refresh(fetched, httpd.url("/a.tar"), digest=digest(data))
    httpd.serve("/a.tar", data[:-1] + b"X")
    with pytest.raises(DataError, match="has digest"):
        refresh(fetched, httpd.url("/a.tar"), digest=digest(data[:-1] + b"Y"))


def sums(*items: tuple[bytes, str]) -> bytes:
    return "".join(f"{hashlib.sha256(data).hexdigest()}{name}\n" for data, name in items).encode()


@pytest.mark.parametrize("mark", ["  a.tar", " *a.tar", "  ./dist/a.tar"])
def test_a_sha256sums_file_gives_the_digest(httpd: Httpd, fetched: Fetched, mark: str) -> None:
    httpd.serve("/a.tar", ARCHIVE)
    httpd.serve("/SUMS", sums((b"other", "  xa.tar"), (ARCHIVE, mark), (b"other", "  b.tar")))
    refresh(fetched, httpd.url("/a.tar"), sha256sums=httpd.url("/SUMS"))
    httpd.requests.clear()
    assert not refresh(fetched, httpd.url("/a.tar"), sha256sums=httpd.url("/SUMS")).changed
    assert [seen.path for seen in httpd.requests] == ["/SUMS"]


def test_a_sha256sums_file_that_disagrees_or_does_not_know_the_file(httpd: Httpd, fetched: Fetched) -> None:
    httpd.serve("/a.tar", ARCHIVE)
    httpd.serve("/SUMS", sums((b"other", "  a.tar")))
    with pytest.raises(DataError, match="has digest"):
        refresh(fetched, httpd.url("/a.tar"), sha256sums=httpd.url("/SUMS"))
    httpd.serve("/SUMS", sums((ARCHIVE, "  b.tar")))
    with pytest.raises(DataError, match="has no line for"):
        refresh(fetched, httpd.url("/a.tar"), sha256sums=httpd.url("/SUMS"))
    httpd.serve("/SUMS", bytes(17 << 20))
    with pytest.raises(DataError, match="is larger than"):
        refresh(fetched, httpd.url("/a.tar"), sha256sums=httpd.url("/SUMS"))
    httpd.serve("/SUMS", bytes(100), cut_after=[10] * 6)
    with pytest.raises(SourceError, match="cannot be fetched"):
        refresh(fetched, httpd.url("/a.tar"), sha256sums=httpd.url("/SUMS"))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "keys")


def verify(signer: Signer, **more: Any) -> FileVerify:
    signature = more.pop("signature", None)
    return FileVerify(minisign=Minisign(keys=(signer.key,), signature=signature), **more)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_signed_archive_is_unpacked(httpd: Httpd, fetched: Fetched, signer: Signer, legacy: bool) -> None:
    httpd.serve("/a.tar.zst", ZST)
    httpd.serve("/a.tar.zst.minisig", signer.sign(ZST, legacy=legacy))
    refresh(fetched, httpd.url("/a.tar.zst"), verify=verify(signer))
    assert len(fetched.entries()) == 51
    httpd.requests.clear()
    assert not refresh(fetched, httpd.url("/a.tar.zst"), verify=verify(signer)).changed
    assert [seen.status for seen in httpd.requests] == [304]


def test_without_a_signature_nothing_is_downloaded(httpd: Httpd, fetched: Fetched, signer: Signer) -> None:
    httpd.serve("/a.tar.zst", ZST)
    with pytest.raises(DataError, match=r"/a\.tar\.zst has no signature beside it"):
        refresh(fetched, httpd.url("/a.tar.zst"), verify=verify(signer))
    assert [seen.path for seen in httpd.requests] == ["/a.tar.zst", "/a.tar.zst.minisig"]
    assert fetched.version == ""


def test_a_wrong_signature_publishes_and_keeps_nothing(
    httpd: Httpd, fetched: Fetched, signer: Signer, tmp_path: Path
) -> None:
    httpd.serve("/a.tar.zst", ZST)
    httpd.serve("/a.sig", signer.sign(ZST[:-1] + b"x"))
    more = {"verify": verify(signer, signature=httpd.url("/a.sig"))}
    with pytest.raises(DataError, match="is not what key"):
        refresh(fetched, httpd.url("/a.tar.zst"), **more)
    assert fetched.version == ""
    assert partial(tmp_path) == []
    httpd.serve("/a.sig", signer.sign(ZST))
    assert refresh(fetched, httpd.url("/a.tar.zst"), **more).changed


def test_a_signature_that_is_not_required_is_not_waited_for(httpd: Httpd, fetched: Fetched, signer: Signer) -> None:
    httpd.serve("/a.tar.zst", ZST)
    assert refresh(fetched, httpd.url("/a.tar.zst"), verify=verify(signer, require=False)).changed


def test_a_server_that_is_down_is_no_missing_signature(httpd: Httpd, fetched: Fetched, signer: Signer) -> None:
    httpd.serve("/a.tar.zst", ZST)
    httpd.serve("/a.tar.zst.minisig", b"", statuses=[403])
    with pytest.raises(SourceError, match="answers 403"):
        refresh(fetched, httpd.url("/a.tar.zst"), verify=verify(signer, require=False))
    assert fetched.version == ""


def test_a_login_goes_to_the_server_of_the_url_and_to_no_other(
    httpd: Httpd, fetched: Fetched, signer: Signer, tmp_path: Path
) -> None:
    """Neither to that of the digests, nor to that of the signature, nor after a redirect."""
    (tmp_path / "token").write_text("hunter2")
    with running() as other:
        httpd.serve("/a.tar", b"", redirect=other.url("/b.tar"))
        other.serve("/b.tar", ARCHIVE)
        other.serve("/sums", sums((ARCHIVE, "  a.tar")))
        other.serve("/sig", signer.sign(ARCHIVE))
        refresh(
            fetched,
            httpd.url("/a.tar"),
            auth=HttpAuth(bearer_file=str(tmp_path / "token")),
            sha256sums=other.url("/sums"),
            verify=verify(signer, signature=other.url("/sig")),
        )
        assert {seen.path for seen in other.requests} == {"/b.tar", "/sums", "/sig"}
        assert all("Authorization" not in seen.headers for seen in other.requests)
    assert [seen.headers["Authorization"] for seen in httpd.requests] == ["Bearer hunter2"] * 2
    assert len(fetched.entries()) == 51


def test_a_netrc_file_of_the_user_is_not_read_behind_ones_back(
    httpd: Httpd, fetched: Fetched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    httpd.serve("/a.tar", ARCHIVE)
    refresh(fetched, httpd.url("/a.tar"))
    assert all("Authorization" not in seen.headers for seen in httpd.requests)
    refresh(fetched, httpd.url("/a.tar"), auth=HttpAuth(netrc_file=str(tmp_path / ".netrc")))
    assert "Authorization" in httpd.requests[-1].headers


def test_a_secret_is_read_anew_at_each_refresh(httpd: Httpd, fetched: Fetched, tmp_path: Path) -> None:
    httpd.serve("/a.tar", ARCHIVE)
    more = {"auth": HttpAuth(username="me", password_file=str(tmp_path / "p"))}
    with pytest.raises(ConfigError, match=r"/p cannot be read: .* correct `passwordFile`"):
        refresh(fetched, httpd.url("/a.tar"), **more)
    for password in ("one", "two"):
        (tmp_path / "p").write_text(password)
        refresh(fetched, httpd.url("/a.tar"), **more)
    assert httpd.requests[0].headers["Authorization"] != httpd.requests[-1].headers["Authorization"]
