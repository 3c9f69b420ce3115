from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore

from cachefetch.config import ObjectStore
from cachefetch.errors import DataError, SourceError, UnsafeEntry
from cachefetch.sourceconfig import FileVerify, Minisign
from cachefetch.sources import open_source
from cachefetch.sources.objectstore import ObjectStoreSource
from cachefetch.sources.objectstore_client import Objects, connect
from cachefetch.sources.objectstore_read import RANGE
from cachefetch.urls import Format
from tests.cachefetch.sources.bucket import QUICK, Bucket, running_bucket
from tests.cachefetch.sources.signer import Signer
from tests.cachefetch.sources.test_tar import entry, tar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cachefetch.buckets import Location
    from cachefetch.refresh import Refreshed
    from tests.cachefetch.sources.conftest import Fetched
    from tests.servers.web import Request

PREFIX = "s3://bucket/p/"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with running_bucket() as server:
        yield server


@pytest.fixture(params=["memory", "local"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | LocalStore:
    """Stores of obstore's own: another order of lists, other ETags."""
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "objects", mkdir=True)


def refresh(fetched: Fetched, where: Bucket | MemoryStore | LocalStore, url: str = PREFIX, **more: Any) -> Refreshed:
    if isinstance(where, Bucket):
        config = ObjectStore(url=url, endpoint=where.url, anonymous=True, **more)
        return fetched.refresh(
            config, ObjectStoreSource(config, lambda config, location: connect(config, location, QUICK))
        )
    config = ObjectStore(url=url, **more)

    def open_in(_: ObjectStore, location: Location) -> Objects:
        return Objects(where, location)

    return fetched.refresh(config, ObjectStoreSource(config, open_in))


def inodes(fetched: Fetched) -> dict[str, int]:
    return {str(path.relative_to(fetched.tree)): path.stat().st_ino for path in fetched.tree.rglob("*")}


def test_the_kind_has_its_source() -> None:
    assert isinstance(open_source(ObjectStore(url=PREFIX)), ObjectStoreSource)


def test_a_prefix_is_a_tree(origin: MemoryStore | LocalStore, fetched: Fetched) -> None:
    content = {f"p/d{number % 3}/f{number}": os.urandom(number * 10) for number in range(40)}
    for key, data in content.items():
        obstore.put(origin, key, data)
    obstore.put(origin, "q/other", b"x")
    assert refresh(fetched, origin).changed
    entries = {path: entry for path, entry in fetched.entries().items() if entry.digest}
    assert {b"p/" + path for path in entries} == {key.encode() for key in content}
    for key, data in content.items():
        assert (fetched.tree / key.removeprefix("p/")).read_bytes() == data
        uploaded = obstore.head(origin, key)["last_modified"].timestamp()
        assert abs(entries[key.removeprefix("p/").encode()].mtime_ns / 1e9 - uploaded) < 1e-5
    assert {entry.mode for entry in entries.values()} == {0o444}


def test_what_did_not_change_is_neither_read_nor_copied(origin: MemoryStore | LocalStore, fetched: Fetched) -> None:
    for number in range(20):
        obstore.put(origin, f"p/f{number}", b"%d" % number)
    first = refresh(fetched, origin)
    before = inodes(fetched)
    again = refresh(fetched, origin)
    assert (again.changed, again.version, again.fetched_bytes) == (False, first.version, 0)
    obstore.put(origin, "p/f7", b"changed")
    obstore.delete(origin, "p/f8")
    obstore.put(origin, "p/new", b"new")
    changed = refresh(fetched, origin)
    assert (changed.changed, changed.fetched_bytes) == (True, len(b"changed") + len(b"new"))
    after = inodes(fetched)
    assert set(before) ^ set(after) == {"f8", "new"}
    assert {name for name in set(before) & set(after) if before[name] != after[name]} == {"f7"}


def test_only_lists_are_asked_for_when_nothing_changed(bucket: Bucket, fetched: Fetched) -> None:
    bucket.objects = {f"p/{number:05}": b"x" for number in range(1500)}
    refresh(fetched, bucket)
    assert bucket.traffic is not None
    bucket.traffic.clear()
    assert not refresh(fetched, bucket).changed
    assert [exchange.path.partition("?")[0] for exchange in bucket.traffic.of()] == ["/bucket"] * 2


def test_a_key_that_ends_in_a_slash_is_a_directory(bucket: Bucket, fetched: Fetched) -> None:
    bucket.objects = {"p/": b"", "p/empty/": b"", "p/d/": b"", "p/d/x": b"1", "p/file": b""}
    refresh(fetched, bucket)
    found = {path: entry.type.value for path, entry in fetched.entries().items()}
    assert found == {b"d": "d", b"d/x": "f", b"empty": "d", b"file": "f"}
    assert fetched.entries()[b"empty"].mtime_ns == 1704067200 * 10**9
    assert not refresh(fetched, bucket).changed


@pytest.mark.parametrize("keys", [["p/a", "p/a/b"], ["p/a/b", "p/a"], ["p/a/b", "p/a", "p/c"], ["p/dir", "p/dir/"]])
def test_keys_that_exclude_each_other_are_refused_by_name(bucket: Bucket, fetched: Fetched, keys: list[str]) -> None:
    bucket.objects = dict.fromkeys(keys, b"")
    with pytest.raises(UnsafeEntry, match=r"entry '(a|a/b|dir)' is refused"):
        refresh(fetched, bucket)
    assert fetched.version == ""


@pytest.mark.parametrize("key", ["p/../x", "p/a//b", "!../../etc/passwd"])
def test_a_key_that_is_no_path_stops_the_refresh(bucket: Bucket, fetched: Fetched, key: str) -> None:
    bucket.objects = {"p/good": b"x", key: b"x"}
    with pytest.raises(UnsafeEntry, match="which is no path inside of a tree: rename or remove the object"):
        refresh(fetched, bucket)
    assert fetched.version == ""


def test_an_empty_prefix_does_not_replace_a_version(bucket: Bucket, fetched: Fetched) -> None:
    bucket.objects = {"p/a": b"x"}
    version = refresh(fetched, bucket).version
    bucket.objects = {"p/": b""}
    with pytest.raises(SourceError, match="s3://bucket/p/ has no objects: upload some, or correct the prefix"):
        refresh(fetched, bucket)
    assert fetched.version == version.id


def test_a_change_under_way_never_gives_a_mixture(bucket: Bucket, fetched: Fetched) -> None:
    """A writer replaces all objects one by one while they are read: the version has old ones or new ones only."""
    old, new = ({f"p/{number:03}": b"%d %b" % (number, word) for number in range(100)} for word in (b"old", b"new"))
    bucket.objects = dict(old)
    pending = list(new.items())
    reads = 0

    def write(request: Request) -> bool:
        nonlocal reads
        reads += request.path.startswith("/bucket/")
        if reads > 30:
            bucket.objects |= dict(pending[:20])
            del pending[:20]
        return False

    bucket.before = write
    refresh(fetched, bucket)
    found = {f"p/{path.name}": path.read_bytes() for path in fetched.tree.iterdir()}
    assert found in (old, new)
    assert not pending


def test_a_writer_that_never_rests_is_told_so(bucket: Bucket, fetched: Fetched) -> None:
    bucket.objects = {"p/a": b"0", "p/b": b"0"}
    count = 0

    def write(request: Request) -> bool:
        nonlocal count
        count += 1
        bucket.objects["p/b"] = b"%d" % count
        return False

    bucket.before = write
    with pytest.raises(SourceError, match="changed while it was read: let writers finish first"):
        refresh(fetched, bucket)
    assert fetched.version == ""


def test_an_object_that_is_deleted_meanwhile_is_a_change(bucket: Bucket, fetched: Fetched) -> None:
    bucket.objects = {"p/a": b"1", "p/b": b"2", "p/large": bytes(RANGE + 1)}

    def delete(request: Request) -> bool:
        if request.path in {"/bucket/p/a", "/bucket/p/large"}:
            bucket.objects.pop(request.path.removeprefix("/bucket/"), None)
        return False

    bucket.before = delete
    refresh(fetched, bucket)
    assert set(fetched.entries()) == {b"b"}


def test_a_large_object_is_resumed_by_the_next_refresh(bucket: Bucket, fetched: Fetched) -> None:
    large = os.urandom(4 * RANGE)
    bucket.objects = {"p/a": b"small", "p/large": large, "p/z": b"small"}

    def refuse(request: Request) -> bool:
        if request.headers.get("Range", "").startswith(f"bytes={2 * RANGE}-"):
            request.reply(503)
            return True
        return False

    bucket.before = refuse
    with pytest.raises(SourceError, match="s3://bucket/p/large answers 503"):
        refresh(fetched, bucket)
    bucket.before = lambda _: False
    assert bucket.traffic is not None
    bucket.traffic.clear()
    refresh(fetched, bucket)
    assert (fetched.tree / "large").read_bytes() == large
    assert bucket.traffic.sent("/bucket/p/large") == 2 * RANGE


ARCHIVE = tar(*[entry(f"d/{number}", os.urandom(3000), mtime=number) for number in range(50)])


@pytest.mark.parametrize("key", ["a.tar", "download"])
def test_an_archive_is_unpacked_and_noticed_when_it_changes(bucket: Bucket, fetched: Fetched, key: str) -> None:
    bucket.objects["d/a.tar"] = bucket.objects["d/download"] = ARCHIVE
    more = {"format": Format.TAR} if key == "download" else {}
    url = f"s3://bucket/d/{key}"
    refresh(fetched, bucket, url, **more)
    assert len(fetched.entries()) == 51
    assert bucket.traffic is not None
    bucket.traffic.clear()
    assert not refresh(fetched, bucket, url, **more).changed
    assert bucket.traffic.sent() == 0
    bucket.objects[f"d/{key}"] = tar(entry("other", b"x"))
    assert refresh(fetched, bucket, url, **more).changed
    assert set(fetched.entries()) == {b"other"}


def test_a_single_file_has_the_name_of_its_key(bucket: Bucket, fetched: Fetched) -> None:
    bucket.objects["d/model v1?.bin"] = b"weights"
    refresh(fetched, bucket, "s3://bucket/d/model v1?.bin")
    (found,) = fetched.entries().values()
    assert (found.path, found.mode, found.mtime_ns) == (b"model v1?.bin", 0o444, 1704067200 * 10**9)


def test_a_replaced_archive_is_read_anew_from_its_start(bucket: Bucket, fetched: Fetched) -> None:
    """It is replaced after it was found: the parts that arrived are of no use."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("big")
        info.size = 3 * RANGE
        archive.addfile(info, io.BytesIO(os.urandom(3 * RANGE)))
    bucket.objects["a.tar"] = out.getvalue()

    def replace(request: Request) -> bool:
        if request.headers.get("Range", "").startswith(f"bytes={2 * RANGE}-"):
            bucket.objects["a.tar"] = ARCHIVE
        return False

    bucket.before = replace
    refresh(fetched, bucket, "s3://bucket/a.tar")
    assert len(fetched.entries()) == 51


def test_a_damaged_archive_is_not_resumed_for_ever(bucket: Bucket, fetched: Fetched, tmp_path: Path) -> None:
    bucket.objects["a.tar.gz"] = os.urandom(5000)
    with pytest.raises(DataError, match=r"is not tar\.gz, or damaged"):
        refresh(fetched, bucket, "s3://bucket/a.tar.gz")
    assert list(tmp_path.glob("state/staging/*/*/object*")) == []


def test_an_object_must_be_signed(bucket: Bucket, fetched: Fetched, tmp_path: Path) -> None:
    signer = Signer(tmp_path / "keys")
    more = {"verify": FileVerify(minisign=Minisign(keys=(signer.key,)))}
    bucket.objects["a.tar"] = ARCHIVE
    assert bucket.traffic is not None
    with pytest.raises(DataError, match=r"s3://bucket/a\.tar has no signature beside it"):
        refresh(fetched, bucket, "s3://bucket/a.tar", **more)
    assert bucket.traffic.sent("/bucket/a.tar") < 1000  # not worth a download
    bucket.objects["a.tar.minisig"] = signer.sign(ARCHIVE + b"x")
    with pytest.raises(DataError, match="is not what key"):
        refresh(fetched, bucket, "s3://bucket/a.tar", **more)
    assert fetched.version == ""
    bucket.objects["a.tar.minisig"] = signer.sign(ARCHIVE)
    assert refresh(fetched, bucket, "s3://bucket/a.tar", **more).changed
    elsewhere = {
        "verify": FileVerify(minisign=Minisign(keys=(signer.key,), signature="s3://bucket/sig/a"), require=False)
    }
    bucket.objects["sig/a"] = bucket.objects.pop("a.tar.minisig")
    assert not refresh(fetched, bucket, "s3://bucket/a.tar", **elsewhere).changed


def test_a_list_that_changed_since_the_first_look_is_looked_at_again(bucket: Bucket, fetched: Fetched) -> None:
    """Two lists that are equal prove one moment; here the second one has more, although every object could be read."""
    bucket.objects = {"p/a": b"1", "p/b": b"2"}
    lists = 0

    def add(request: Request) -> bool:
        nonlocal lists
        lists += request.path.startswith("/bucket?")
        if lists == 2:
            bucket.objects["p/c"] = b"3"
        return False

    bucket.before = add
    refresh(fetched, bucket)
    assert set(fetched.entries()) == {b"a", b"b", b"c"}
    assert lists == 4
