from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import SourceError
from cachefetch.sourceconfig import ObjectStore
from cachefetch.sources.base import SourceChanged
from cachefetch.sources.objectstore_client import Objects, connect
from cachefetch.sources.objectstore_read import RANGE, ObjectDownload
from tests.cachefetch.sources.bucket import QUICK, Bucket, running_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.web import Request

CONTENT = os.urandom(5 * RANGE + 12345)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with running_bucket() as server:
        server.objects["a"] = CONTENT
        yield server


def objects(bucket: Bucket) -> Objects:
    config = ObjectStore(url="s3://bucket/a", endpoint=bucket.url, anonymous=True)
    return connect(config, config.location, QUICK)


def opened(bucket: Bucket, scratch: Path) -> ObjectDownload:
    store = objects(bucket)
    return ObjectDownload(store, store.head(), scratch)


def ranges(bucket: Bucket) -> list[str]:
    """The ranges that were asked for, in any order."""
    assert bucket.traffic is not None
    return sorted(exchange.range for exchange in bucket.traffic.of("/bucket/a") if exchange.method == "GET")


def test_ranges_are_read_as_one_file(bucket: Bucket, tmp_path: Path) -> None:
    with opened(bucket, tmp_path) as download:
        pieces = iter(lambda: download.read(1 << 20), b"")
        assert b"".join(pieces) == CONTENT
        download.finish()
    assert len(ranges(bucket)) == 6
    assert download.path.read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"", b"x", bytes(RANGE)])
def test_small_objects_need_one_range_at_most(bucket: Bucket, tmp_path: Path, content: bytes) -> None:
    bucket.objects["a"] = content
    with opened(bucket, tmp_path) as download:
        download.finish()
    assert len(ranges(bucket)) == bool(content)


def fail_at(bucket: Bucket, start: int) -> None:
    def refuse(request: Request) -> bool:
        if request.headers.get("Range", "").startswith(f"bytes={start}-"):
            request.reply(503)
            return True
        return False

    bucket.before = refuse


def test_another_try_asks_for_what_is_missing(bucket: Bucket, tmp_path: Path) -> None:
    fail_at(bucket, 3 * RANGE)
    with opened(bucket, tmp_path) as download, pytest.raises(SourceError, match="answers 503"):
        download.finish()
    assert download.path.read_bytes() == CONTENT[: 3 * RANGE]
    assert bucket.traffic is not None
    bucket.traffic.clear()
    bucket.before = lambda _: False
    with opened(bucket, tmp_path) as download:
        assert b"".join(iter(lambda: download.read(1 << 20), b"")) == CONTENT
        download.finish()
    size = len(CONTENT)
    assert ranges(bucket) == sorted(
        f"bytes={start}-{min(start + RANGE, size) - 1}" for start in range(3 * RANGE, size, RANGE)
    )
    bucket.traffic.clear()
    with opened(bucket, tmp_path) as download:
        assert b"".join(iter(lambda: download.read(1 << 20), b"")) == CONTENT
        download.finish()
    assert ranges(bucket) == []


@pytest.mark.parametrize("damage", ["other object", "other boot", "no note", "broken note"])
def test_a_part_that_may_be_of_something_else_is_not_used(bucket: Bucket, tmp_path: Path, damage: str) -> None:
    fail_at(bucket, 3 * RANGE)
    with opened(bucket, tmp_path) as download, pytest.raises(SourceError):
        download.finish()
    bucket.before = lambda _: False
    note = tmp_path / "object.json"
    wrong = CONTENT
    if damage == "other object":
        wrong = bucket.objects["a"] = CONTENT[:-1] + b"x"
    elif damage == "other boot":
        note.write_bytes(note.read_bytes().replace(b'"boot":"', b'"boot":"0'))
    elif damage == "no note":
        note.unlink()
    else:
        note.write_bytes(note.read_bytes()[:-5])
    with opened(bucket, tmp_path) as download:
        assert b"".join(iter(lambda: download.read(1 << 20), b"")) == wrong
        download.finish()
    assert download.path.read_bytes() == wrong


def test_an_object_that_is_replaced_meanwhile_is_noticed(bucket: Bucket, tmp_path: Path) -> None:
    def replace(request: Request) -> bool:
        """Before the range in the middle is answered."""
        if request.headers.get("Range", "").startswith(f"bytes={3 * RANGE}-"):
            bucket.objects["a"] = os.urandom(len(CONTENT))
        return False

    bucket.before = replace
    with opened(bucket, tmp_path) as download, pytest.raises(SourceChanged, match="changed while it was read"):
        download.finish()


def test_what_is_discarded_is_gone(bucket: Bucket, tmp_path: Path) -> None:
    with opened(bucket, tmp_path) as download:
        download.read(1)
        download.discard()
        download.discard()
    assert list(tmp_path.iterdir()) == []
