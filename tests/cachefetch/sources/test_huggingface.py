from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from cachefetch.config import HuggingFace
from cachefetch.errors import DataError, SourceError
from cachefetch.sources import open_source
from cachefetch.sources.huggingface import HuggingFaceSnapshot, HuggingFaceSource, wanted
from cachefetch.sources.huggingface_client import HubFile
from cachefetch.sources.web import Patience
from tests.servers.faulty import Answer, CutOff, Flip
from tests.servers.hub import Hub, running_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cachefetch.refresh import Refreshed
    from cachefetch.sources.base import Known
    from tests.cachefetch.sources.conftest import Fetched

FILES = {"config.json": b"{}", "a/b c#%?é.txt": b"text", "model.bin": os.urandom(20_000), "empty": b""}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        yield server


def refresh(fetched: Fetched, hub: Hub, **more: object) -> Refreshed:
    config = HuggingFace(repo="owner/name", endpoint=hub.url, **more)  # type: ignore[arg-type]
    return fetched.refresh(config, HuggingFaceSource(config, lambda: Patience(lambda _: None)))


def content(fetched: Fetched) -> dict[str, bytes]:
    return {
        str(path.relative_to(fetched.tree)): path.read_bytes() for path in fetched.tree.rglob("*") if path.is_file()
    }


def test_the_kind_has_its_source() -> None:
    assert isinstance(open_source(HuggingFace(repo="a/b")), HuggingFaceSource)


def test_the_files_of_a_commit_are_a_tree_with_one_time(hub: Hub, fetched: Fetched) -> None:
    hub.commit("owner/name", FILES)
    assert refresh(fetched, hub).changed
    assert content(fetched) == FILES
    assert {(entry.mode, entry.mtime_ns) for entry in fetched.entries().values() if entry.digest} == {(0o444, 0)}


def test_the_same_commit_is_one_request_and_no_change(hub: Hub, fetched: Fetched) -> None:
    hub.commit("owner/name", FILES)
    refresh(fetched, hub)
    hub.proxy.traffic.clear()
    assert not refresh(fetched, hub).changed
    assert len(hub.proxy.traffic.of()) == 1


def test_only_what_changed_is_read(hub: Hub, fetched: Fetched) -> None:
    files = FILES | {f"large{number}": os.urandom(9 << 20) for number in range(2)}
    hub.commit("owner/name", files)
    refresh(fetched, hub)
    before = {name: (fetched.tree / name).stat().st_ino for name in files}
    changed = files | {"config.json": b"{1}", "large1": os.urandom(9 << 20)}
    hub.commit("owner/name", changed)
    hub.proxy.traffic.clear()
    hub.storage.traffic.clear()
    result = refresh(fetched, hub)
    assert content(fetched) == changed
    assert result.fetched_bytes == 3 + (9 << 20) == len(changed["config.json"]) + hub.storage.traffic.sent()
    after = {name: (fetched.tree / name).stat().st_ino for name in files}
    assert {name for name in files if before[name] != after[name]} == {"config.json", "large1"}


@pytest.mark.parametrize(
    ("allow", "ignore", "expected"),
    [
        ((), (), {"a.json", "d/b.json", "d/e/c.bin", "x"}),
        (("*.json",), (), {"a.json", "d/b.json"}),
        (("d/",), (), {"d/b.json", "d/e/c.bin"}),
        (("d/*",), ("*.bin",), {"d/b.json"}),
        ((), ("d/", "?"), {"a.json"}),
        (("[ax]*",), (), {"a.json", "x"}),
        (("A.json",), (), set()),
    ],
)
def test_patterns_choose_paths(allow: tuple[str, ...], ignore: tuple[str, ...], expected: set[str]) -> None:
    files = [HubFile(name, 0, "", "") for name in ("a.json", "d/b.json", "d/e/c.bin", "x")]
    config = HuggingFace(repo="a/b", allow=allow, ignore=ignore)
    assert {file.name for file in wanted(files, config)} == expected


def test_patterns_that_match_nothing_keep_the_version(hub: Hub, fetched: Fetched) -> None:
    hub.commit("owner/name", FILES)
    refresh(fetched, hub, allow=("*.json",))
    assert set(content(fetched)) == {"config.json"}
    version = fetched.version
    with pytest.raises(SourceError, match=r"owner/name has no file to fetch in [0-9a-f]{40}: correct `allow`"):
        refresh(fetched, hub, allow=("*.jsn",))
    assert fetched.version == version


def test_files_come_from_the_commit_although_the_branch_moves(hub: Hub, fetched: Fetched) -> None:
    hub.commit("owner/name", FILES)
    config = HuggingFace(repo="owner/name", endpoint=hub.url)

    class Moved(HuggingFaceSource):
        def resolve(self, known: Known | None) -> HuggingFaceSnapshot | None:
            snapshot = super().resolve(known)
            hub.commit("owner/name", {"config.json": b"later"})
            return snapshot

    fetched.refresh(config, Moved(config))
    assert content(fetched) == FILES


@pytest.mark.parametrize("size", [20_000, 9 << 20])
def test_a_wrong_bit_of_a_large_file_is_refused_and_fetched_anew(hub: Hub, fetched: Fetched, size: int) -> None:
    data = os.urandom(size)
    hub.commit("owner/name", {"model.bin": data})
    hub.storage.inject(Flip(7), times=1)
    with pytest.raises(DataError, match=r"'model\.bin' has digest"):
        refresh(fetched, hub)
    assert fetched.version == ""
    refresh(fetched, hub)
    assert content(fetched) == {"model.bin": data}


@pytest.mark.parametrize("size", [100, 9 << 20])
def test_a_wrong_bit_of_a_file_in_git_is_refused(hub: Hub, fetched: Fetched, size: int) -> None:
    data = os.urandom(size)
    hub.commit("owner/name", {"config.json": data}, large=1 << 30)
    hub.proxy.inject(Flip(7), path="/owner/name/resolve/", times=1)
    with pytest.raises(DataError, match=r"'config\.json' is not git blob"):
        refresh(fetched, hub)
    assert fetched.version == ""
    refresh(fetched, hub)
    assert content(fetched) == {"config.json": data}


def test_a_large_file_is_resumed_and_finished_ones_are_not_read_again(
    hub: Hub, fetched: Fetched, tmp_path: Path
) -> None:
    files = {f"{number}.bin": os.urandom(9 << 20) for number in range(3)}
    hub.commit("owner/name", files)
    second = f"/storage/{hashlib.sha256(files['1.bin']).hexdigest()}"
    hub.storage.inject(CutOff(4 << 20), path=second, times=1)
    hub.storage.inject(Answer(503), path=second)
    with pytest.raises(SourceError, match="503"):
        refresh(fetched, hub)
    hub.storage.heal()
    have = sum(path.stat().st_size for path in tmp_path.glob("state/staging/*/*/*/download"))
    assert have > 9 << 20
    hub.storage.traffic.clear()
    refresh(fetched, hub)
    assert content(fetched) == files
    assert hub.storage.traffic.sent() == 3 * (9 << 20) - have


def test_a_link_that_has_expired_is_asked_for_anew(hub: Hub, fetched: Fetched) -> None:
    """The hub is asked again when a connection broke: its first link is not good any more by then."""
    data = os.urandom(9 << 20)
    hub.commit("owner/name", {"model.bin": data})
    hub.storage.inject(CutOff(5 << 20), times=1)
    refresh(fetched, hub)
    assert content(fetched) == {"model.bin": data}
    assert len(hub.proxy.traffic.of("/owner/name/resolve/")) == 2
    assert hub.storage.traffic.sent() <= len(data) + (1 << 20)
