from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cachefetch import commands
from cachefetch.errors import DataError, SourceError, UnknownVersion
from tests.cachefetch.commandline import CONTENT, Origins, Output, cache, config, output, published, store, use
from tests.cachefetch.fakes import CACHE, File, MemorySource, publish

if TYPE_CHECKING:
    from cachefetch.model import Version
    from cachefetch.store import Store

__all__ = ["output", "store"]


def test_a_refresh_tells_what_it_came_to(store: Store, output: Output) -> None:
    source = MemorySource([File(b"a", b"1", token=b"1"), File(b"lib/b", CONTENT, token=b"2")], size=100_001)
    assert commands.refresh(store, [cache()], Origins(deps=source), output.terminal) == 0
    first = store.current(CACHE)
    source.items = [File(b"a", b"22", token=b"3"), File(b"lib/b", CONTENT, token=b"2")]
    assert commands.refresh(store, [cache()], Origins(deps=source), output.terminal) == 0
    second = store.current(CACHE)
    assert commands.refresh(store, [cache()], Origins(deps=source), output.terminal) == 0
    assert first
    assert second
    shared = "shared with the version before"
    beginnings = [line.rpartition("; ")[0] for line in output.out]
    assert beginnings == [
        f"deps: changed, version {first[:12]}, 2 files, 98 KiB; fetched 98 KiB, 0 files {shared}",
        f"deps: changed, version {second[:12]}, 2 files, 98 KiB; fetched 2 B, 1 file {shared}",
        f"deps: unchanged, version {second[:12]}, 2 files, 98 KiB",
    ]


@pytest.mark.parametrize("error", [SourceError("the origin is away: connect it"), OSError(5, "Input/output error")])
def test_a_failing_cache_does_not_stop_the_others(store: Store, output: Output, error: Exception) -> None:
    old = published(store, name="bad")
    bad = MemorySource([File(b"a")], fail_at=0, error=error)
    origins = Origins(bad=bad, new=bad, good=MemorySource([File(b"a")]))
    assert commands.refresh(store, [cache("bad"), cache("new"), cache("good")], origins, output.terminal) == 1
    assert [line.partition(":")[0] for line in output.out] == ["good"]
    assert store.current("bad") == old.id
    again = f"{error}; then run 'cachefetch refresh"
    assert output.complaints == [
        f"cachefetch: bad: the refresh failed, version {old.short} stays current: {again} bad' again",
        f"cachefetch: new: the refresh failed, there is no version to serve yet: {again} new' again",
    ]


def test_a_cache_that_another_process_refreshes_is_a_failure(store: Store, output: Output) -> None:
    with store.refreshing(CACHE):
        assert commands.refresh(store, [cache()], Origins(deps=MemorySource()), output.terminal) == 1
    assert "is being refreshed by another process" in output.complaints[0]


def test_a_refresh_collects_and_leaves_no_trash(store: Store, output: Output) -> None:
    source = MemorySource()
    versions = []
    for content in (b"1", b"2", b"3"):
        source.items = [File(b"a", content)]
        commands.refresh(store, [cache(retain=1)], Origins(deps=source), output.terminal)
        versions.append(store.current(CACHE))
    assert [version.id for version in store.versions(CACHE)] == versions[-1:]
    assert [line for line in output.out if "dropped" in line] == [
        f"deps: dropped version {version[:12]}, 1 B" for version in versions[:-1] if version
    ]
    assert list(store.trash.iterdir()) == []


def test_a_cache_in_use_is_collected_later_and_that_is_no_failure(store: Store, output: Output) -> None:
    with store.pin(CACHE):
        origins = Origins(deps=MemorySource([File(b"a")]))
        assert commands.refresh(store, [cache()], origins, output.terminal) == 0
    assert output.out[1].startswith("deps: older versions stay for now: cache 'deps' is in use")


def test_intact_versions_verify(store: Store, output: Output) -> None:
    versions = {published(store, b"1").short, published(store, b"22").short}
    assert commands.verify(store, "", "", output.terminal, as_json=False) == 0
    assert set(output.out) == {f"deps@{short}: intact" for short in versions}


def damage(store: Store, version: Version) -> None:
    """Every way a root process can: same size and time, gone, too much."""
    tree = store.tree(version.cache, version.id)
    status = (tree / "lib/b").stat()
    (tree / "lib/b").write_bytes(b"x" + CONTENT[1:])
    os.utime(tree / "lib/b", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tree / "a").unlink()
    (tree / "new\nname").touch()
    os.utime(tree, ns=(0, 0))


def test_every_damaged_path_is_named(store: Store, output: Output) -> None:
    bad = published(store, b"1")
    damage(store, bad)
    assert commands.verify(store, CACHE, bad.id[:8], output.terminal, as_json=False) == 1
    name = f"deps@{bad.short}"
    assert output.out[0] == f"{name}: 'a': is missing"
    assert output.out[1].startswith(f"{name}: 'lib/b': has content sha256:")
    assert output.out[2:] == [f"{name}: 'new\\nname': is not in the manifest", f"{name}: 3 damaged"]


def test_one_damaged_version_does_not_hide_the_others(store: Store, output: Output) -> None:
    bad, good = published(store, b"1"), published(store, b"22", "other")
    store.manifest(CACHE, bad.id).unlink()
    assert commands.verify(store, "", "", output.terminal, as_json=True) == 1
    assert output.json() == [
        {"cache": CACHE, "version": bad.id, "intact": False,
         "damaged": [{"path": "", "what": f"{store.manifest(CACHE, bad.id)} is missing"}]},
        {"cache": "other", "version": good.id, "intact": True, "damaged": []},
    ]  # fmt: skip


def test_damaged_paths_as_json_are_escaped_as_in_the_manifest(store: Store, output: Output) -> None:
    version = publish(store, [File(b"\xff %", b"1")])
    (store.tree(CACHE, version.id) / os.fsdecode(b"\xff %")).unlink()
    assert commands.verify(store, "", "", output.terminal, as_json=True) == 1
    assert output.json()[0]["damaged"][0]["path"] == "%FF%20%25"


def test_verifying_nothing_is_said_and_a_named_cache_without_a_version_is_an_error(
    store: Store, output: Output
) -> None:
    assert commands.verify(store, "", "", output.terminal, as_json=False) == 0
    assert output.out == ["there is no version to verify"]
    with pytest.raises(UnknownVersion, match="cachefetch refresh deps"):
        commands.verify(store, CACHE, "", output.terminal, as_json=False)
    published(store)
    with pytest.raises(UnknownVersion, match="names no version"):
        commands.verify(store, CACHE, "xyz", output.terminal, as_json=False)


def test_gc_keeps_what_is_used_current_or_retained_and_says_what_it_freed(store: Store, output: Output) -> None:
    versions = []
    for number in range(4):
        versions.append(published(store, b"%d" % number))
        os.utime(store.manifest(CACHE, versions[-1].id).parent, (number, number))
    use(store, versions[0])
    leftover = store.root / "leftover"
    leftover.write_bytes(CONTENT)
    freed = leftover.stat().st_blocks * 512
    store.discard(leftover)
    unused, used = published(store, name="gone"), published(store, b"22", "gone")
    use(store, used, "v2")
    assert commands.gc(store, config(CACHE, retain=1), output.terminal, as_json=True) == 0
    result = output.json()
    assert {item["version"] for item in result["dropped"]} == {versions[1].id, versions[2].id, unused.id}
    assert result["freed"] > freed
    assert {version.id for version in store.versions(CACHE)} == {versions[0].id, versions[3].id}
    assert [version.id for version in store.versions("gone")] == [used.id]
    assert list(store.trash.iterdir()) == []


def test_gc_counts_shared_files_only_when_their_last_link_goes(store: Store, output: Output) -> None:
    """The big file is one inode in both versions, so dropping one of them frees the small files only."""
    for number in range(2):
        published(store, b"%d" % number)
    assert commands.gc(store, config(CACHE, retain=1), output.terminal, as_json=True) == 0
    assert len(output.json()["dropped"]) == 1
    assert 0 < output.json()["freed"] < len(CONTENT)


def test_gc_goes_on_after_a_busy_cache_and_fails_in_the_end(store: Store, output: Output) -> None:
    published(store, name="busy")
    other = published(store, name="other")
    with store.pin("busy"):
        assert commands.gc(store, config(), output.terminal, as_json=False) == 1
    assert output.out[0] == f"other: dropped version {other.short}, 98 KiB"
    assert output.out[1].startswith("1 version dropped, ")
    assert "cache 'busy' is in use" in output.complaints[0]


def test_a_damaged_origin_is_told_apart_from_an_absent_one(store: Store, output: Output) -> None:
    bad = MemorySource([File(b"a")], fail_at=1, error=DataError("the archive is cut off: build it anew"))
    assert commands.refresh(store, [cache()], Origins(deps=bad), output.terminal) == 1
    assert "the archive is cut off: build it anew; then run" in output.complaints[0]
