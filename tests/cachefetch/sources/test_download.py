from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachefetch.errors import DataError, SourceError
from cachefetch.sources.download import Download, Origin
from cachefetch.sources.web import Patience, make_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cachefetch.httpd import Httpd, Resource
CONTENT = os.urandom(300_000)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
FIRST = 100_000
"""Where a first try breaks off."""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return scratch


def download(httpd: Httpd, scratch: Path, digest: str | None = None, waits: list[float] | None = None) -> bytes:
    """Read all, in pieces of odd size, as one process would."""
    got = b""
    with (
        make_client() as client,
        Download(
            client, httpd.url("/f"), scratch, Patience((waits if waits is not None else []).append), digest=digest
        ) as file,
    ):
        while chunk := file.read(7777):
            got += chunk
        file.finish()
    return got


def broken_off(httpd: Httpd, scratch: Path, **more: object) -> Resource:
    """A first process that got FIRST bytes, then the server went away for good."""
    resource = httpd.serve("/f", CONTENT, cut_after=[FIRST], **more)
    resource.statuses = [0] + [503] * 100
    with pytest.raises(SourceError, match="503"):
        download(httpd, scratch, digest=DIGEST if more.get("etag") == "" and not more.get("last_modified") else None)
    resource.statuses = []
    httpd.requests.clear()
    return resource


def test_a_download_is_one_request(httpd: Httpd, scratch: Path) -> None:
    httpd.serve("/f", CONTENT)
    assert download(httpd, scratch) == CONTENT
    assert [(seen.status, seen.headers.get("Range")) for seen in httpd.requests] == [(200, None)]


def test_an_empty_file_is_a_file(httpd: Httpd, scratch: Path) -> None:
    httpd.serve("/f", b"")
    assert download(httpd, scratch) == b""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 120_000), max_size=4), ranges=st.booleans(), chunked=st.booleans())
def test_wherever_it_breaks_the_bytes_arrive(
    httpd: Httpd, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], ranges: bool, chunked: bool
) -> None:
    """With ranges no byte is sent twice; without, those that were read already are passed over."""
    httpd.requests.clear()
    httpd.serve("/f", CONTENT, cut_after=cuts, ranges=ranges, chunked=chunked)
    waits: list[float] = []
    assert download(httpd, tmp_path_factory.mktemp("scratch"), waits=waits) == CONTENT
    if ranges:
        assert httpd.sent == len(CONTENT)
        assert all(seen.status == 206 for seen in httpd.requests if "Range" in seen.headers)
        assert all(seen.headers.get("If-Range") for seen in httpd.requests if "Range" in seen.headers)


def test_another_process_goes_on_where_the_first_broke_off(httpd: Httpd, scratch: Path) -> None:
    broken_off(httpd, scratch)
    assert download(httpd, scratch) == CONTENT
    assert httpd.sent == len(CONTENT) - FIRST


def test_a_complete_partial_file_costs_no_bytes(httpd: Httpd, scratch: Path) -> None:
    """As after a failure to unpack for want of space."""
    httpd.serve("/f", CONTENT)
    download(httpd, scratch)
    httpd.requests.clear()
    assert download(httpd, scratch) == CONTENT
    assert (httpd.sent, httpd.requests[0].status) == (0, 416)


@pytest.mark.parametrize("change", ["longer", "same length", "shorter than the part"])
def test_a_file_that_was_replaced_between_two_tries_is_fetched_anew(httpd: Httpd, scratch: Path, change: str) -> None:
    broken_off(httpd, scratch)
    new = {"longer": CONTENT + b"x", "same length": CONTENT[::-1], "shorter than the part": CONTENT[:50_000]}[change]
    httpd.serve("/f", new)
    assert download(httpd, scratch) == new
    assert httpd.requests[0].headers["Range"] == f"bytes={FIRST}-"


def test_a_file_that_is_replaced_while_it_is_read_is_an_error_and_nothing_is_kept(httpd: Httpd, scratch: Path) -> None:
    resource = httpd.serve("/f", CONTENT, cut_after=[FIRST])

    def replace(_wait: float) -> None:
        resource.content = CONTENT[::-1]

    with pytest.raises(SourceError, match="replaced while it was downloaded"):
        read_all(httpd, scratch, replace)
    assert list(scratch.iterdir()) == []
    assert download(httpd, scratch) == CONTENT[::-1]


def read_all(httpd: Httpd, scratch: Path, on_wait: Callable[[float], None], digest: str | None = None) -> None:
    with (
        make_client() as client,
        Download(client, httpd.url("/f"), scratch, Patience(on_wait), digest=digest) as file,
    ):
        file.finish()


@pytest.mark.parametrize("weak", [True, False])
def test_without_a_strong_validator_nothing_is_pieced_together(httpd: Httpd, scratch: Path, weak: bool) -> None:
    httpd.serve("/f", CONTENT, cut_after=[FIRST], etag='W/"1"' if weak else "")
    with pytest.raises(SourceError, match="or its server cannot tell"):
        download(httpd, scratch)
    assert all("Range" not in seen.headers for seen in httpd.requests)
    assert download(httpd, scratch) == CONTENT


def test_a_digest_stands_in_for_a_validator(httpd: Httpd, scratch: Path) -> None:
    httpd.serve("/f", CONTENT, cut_after=[FIRST], etag="")
    assert download(httpd, scratch, DIGEST) == CONTENT
    assert httpd.sent == len(CONTENT)


def test_last_modified_is_a_validator(httpd: Httpd, scratch: Path) -> None:
    httpd.serve("/f", CONTENT, cut_after=[FIRST], etag="", last_modified="Wed, 21 Oct 2015 07:28:00 GMT")
    assert download(httpd, scratch) == CONTENT
    assert httpd.requests[1].headers["If-Range"] == "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize("known", [True, False])
def test_a_partial_file_of_an_earlier_boot_needs_a_digest(httpd: Httpd, scratch: Path, known: bool) -> None:
    digest = DIGEST if known else None
    httpd.serve("/f", CONTENT)
    download(httpd, scratch, digest)
    note = scratch / "download.json"
    origin = msgspec.json.decode(note.read_bytes(), type=Origin)
    note.write_bytes(msgspec.json.encode(msgspec.structs.replace(origin, boot="another")))
    httpd.requests.clear()
    assert download(httpd, scratch, digest) == CONTENT
    assert httpd.sent == (0 if known else len(CONTENT))


@pytest.mark.parametrize("note", [None, b"", b"{", b'{"size": "x"}', b"[]"])
def test_a_partial_file_without_a_readable_note_is_not_used(httpd: Httpd, scratch: Path, note: bytes | None) -> None:
    httpd.serve("/f", CONTENT)
    (scratch / "download").write_bytes(b"something else entirely" * 20_000)
    if note is not None:
        (scratch / "download.json").write_bytes(note)
    assert download(httpd, scratch) == CONTENT


def test_a_wrong_digest_throws_the_partial_file_away_only_when_told(httpd: Httpd, scratch: Path) -> None:
    wrong = "sha256:" + "0" * 64
    httpd.serve("/f", CONTENT)
    with pytest.raises(DataError, match=f"has digest {DIGEST}, expected was {wrong}"):
        read_all(httpd, scratch, lambda _: None, wrong)


def test_a_damaged_partial_file_is_found_out_by_the_digest(httpd: Httpd, scratch: Path) -> None:
    httpd.serve("/f", CONTENT)
    download(httpd, scratch, DIGEST)
    with (scratch / "download").open("r+b") as file:
        file.write(b"damage")
    with pytest.raises(DataError, match="has digest"):
        read_all(httpd, scratch, lambda _: None, DIGEST)


def test_a_longer_length_than_served_is_an_error_of_the_data(httpd: Httpd, scratch: Path) -> None:
    httpd.serve("/f", CONTENT, announced=len(CONTENT) + 5)
    with pytest.raises(DataError, match=rf"announced {len(CONTENT) + 5} bytes and served {len(CONTENT)}"):
        read_all(httpd, scratch, lambda _: None)


def test_patience_has_an_end_and_what_arrived_stays(httpd: Httpd, scratch: Path) -> None:
    httpd.serve("/f", CONTENT, cut_after=[FIRST] + [0] * 100)
    waits: list[float] = []
    with pytest.raises(SourceError, match=r"cannot be fetched \(peer closed connection"):
        read_all(httpd, scratch, waits.append)
    assert len(waits) == 5
    assert (scratch / "download").stat().st_size == FIRST


def test_fetching_again_what_was_read_is_no_progress(httpd: Httpd, scratch: Path) -> None:
    """A server without ranges that always breaks at the same place must not be asked for ever."""
    httpd.serve("/f", CONTENT, cut_after=[FIRST] * 100, ranges=False)
    with pytest.raises(SourceError):
        read_all(httpd, scratch, lambda _: None)
    assert len(httpd.requests) == 6


def test_a_range_that_was_not_asked_for_is_refused(httpd: Httpd, scratch: Path) -> None:
    resource = broken_off(httpd, scratch)
    resource.statuses = [206]
    resource.headers = {"Content-Range": "bytes 5-9/10"}
    with pytest.raises(SourceError, match="range that was not asked for"):
        download(httpd, scratch)


def test_a_part_of_a_file_of_another_size_is_not_joined(httpd: Httpd, scratch: Path) -> None:
    """Two mirrors behind one name with the same time but other bytes."""
    broken_off(httpd, scratch, etag="", last_modified="Wed, 21 Oct 2015 07:28:00 GMT")
    note = scratch / "download.json"
    note.write_bytes(msgspec.json.encode(Origin(last_modified="Wed, 21 Oct 2015 07:28:00 GMT", size=7, boot=boot())))
    assert download(httpd, scratch) == CONTENT


@pytest.mark.parametrize("validator", ["etag", "last_modified"])
def test_a_part_of_another_file_is_not_joined_by_a_server_that_knows_no_if_range(
    httpd: Httpd, scratch: Path, validator: str
) -> None:
    def said(day: int) -> dict[str, str]:
        return {"etag": "", "last_modified": "", validator: f'"{day}"'}

    broken_off(httpd, scratch, **said(1))
    httpd.serve("/f", CONTENT[::-1], if_range=False, **said(2))
    assert download(httpd, scratch) == CONTENT[::-1]
    assert [seen.status for seen in httpd.requests] == [206, 200]


def test_a_server_that_has_no_more_bytes_is_believed_only_when_it_has_said_how_many_there_are(
    httpd: Httpd, scratch: Path
) -> None:
    broken_off(httpd, scratch, chunked=True).statuses = [416]
    assert download(httpd, scratch) == CONTENT


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 9 << 20), max_size=3), size=st.sampled_from([77_777, 1 << 18, 1 << 19, 2 << 20]))
def test_a_long_download_is_the_same_in_the_file_and_to_its_reader(
    httpd: Httpd, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], size: int
) -> None:
    """Long enough to be read from the connection itself, with pieces that are larger or smaller than what is asked."""
    httpd.requests.clear()
    content = CONTENT * 40
    httpd.serve("/f", content, cut_after=cuts)
    scratch = tmp_path_factory.mktemp("scratch")
    with make_client() as client, Download(client, httpd.url("/f"), scratch, Patience(lambda _: None)) as file:
        got = b"".join(iter(lambda: file.read(size), b""))
        file.finish()
    assert got == content == (scratch / "download").read_bytes()
    assert httpd.sent == len(content)


def test_descriptors_are_given_back(httpd: Httpd, scratch: Path) -> None:
    httpd.serve("/f", CONTENT)
    download(httpd, scratch)
    assert list(descriptors(scratch)) == []


def descriptors(place: Path) -> Iterator[str]:
    """Open files below `place`."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            if link.readlink().is_relative_to(place):
                yield link.name
