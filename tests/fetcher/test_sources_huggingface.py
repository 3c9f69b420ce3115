"""The huggingface source against a hub with its routes, as a process that an administrator runs."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.csi.driver import until
from tests.fetcher.secrets import leaks, said
from tests.servers.faulty import Answer, Slow

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fetcher.process import FetcherProcess
    from tests.servers.hub import Hub

BIG = 256 << 20
FILES = {"config.json": b"{}", "tokenizer/vocab.txt": b"a\nb\n", "model.bin": os.urandom(50_000)}


@pytest.fixture
def token(hub: Hub, tmp_path: Path) -> str:
    (tmp_path / "token").write_text(f"{hub.token}\n")
    return str(tmp_path / "token")


def declare(fetcher: FetcherProcess, hub: Hub, **more: Any) -> None:
    fetcher.declare(model={"type": "huggingface", "repo": "owner/name", "endpoint": hub.url, **more})


def tree(fetcher: FetcherProcess) -> Path:
    return fetcher.store.tree("model", fetcher.store.current("model") or "")


def test_a_private_repository_is_fetched_with_a_token_that_is_found_nowhere(
    fetcher: FetcherProcess, hub: Hub, token: str
) -> None:
    hub.commit("owner/name", FILES, private=True)
    declare(fetcher, hub)
    done = [fetcher.run("refresh")]
    assert "answers 401 to who has no token: it is private, gated or not there; accept its terms" in done[0].stderr
    declare(fetcher, hub, tokenFile=token)
    done += [fetcher.run("refresh"), fetcher.run("list", "-o", "json"), fetcher.run("verify")]
    assert [one.returncode for one in done] == [1, 0, 0, 0]
    assert {str(path.relative_to(tree(fetcher))) for path in tree(fetcher).rglob("*") if path.is_file()} == set(FILES)
    hub.proxy.inject(Answer(403, {"X-Error-Code": "GatedRepo"}))
    done.append(fetcher.run("refresh"))
    assert "answers 403 to who has the token of `tokenFile`" in done[-1].stderr
    fetcher.start()
    done.append(fetcher.run("refresh"))
    fetcher.end()
    assert "answers 403" in fetcher.log_file.read_text()
    assert leaks(fetcher, hub.token, *done) == []


def test_a_new_commit_costs_what_changed_and_keeps_the_other_inodes(fetcher: FetcherProcess, hub: Hub) -> None:
    hub.commit("owner/name", FILES)
    declare(fetcher, hub)
    assert "model: changed" in said(fetcher.run("refresh"))
    inode = (tree(fetcher) / "model.bin").stat().st_ino
    hub.commit("owner/name", FILES | {"config.json": b"{1}"})
    hub.storage.traffic.clear()
    assert "model: changed" in said(fetcher.run("refresh"))
    assert hub.storage.traffic.of() == []
    assert (tree(fetcher) / "model.bin").stat().st_ino == inode
    assert (tree(fetcher) / "config.json").read_bytes() == b"{1}"
    hub.proxy.traffic.clear()
    assert "model: unchanged" in said(fetcher.run("refresh"))
    assert len(hub.proxy.traffic.of()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_fetcher_ended_at_half_of_the_second_of_two_large_files_transfers_only_the_rest(
    fetcher: FetcherProcess, hub: Hub, number: int
) -> None:
    files = {name: b"".join(block.to_bytes(8) * (1 << 17) for block in range(at, at + (BIG >> 21))) for name, at in
             (("a.bin", 0), ("b.bin", 1000))}  # fmt: skip
    hub.commit("owner/name", files)
    hub.storage.inject(Slow(0.005, 1 << 19))
    declare(fetcher, hub)
    fetcher.start()
    until(lambda: fetcher.status("model").done > BIG * 3 // 4, 90)
    fetcher.end(number)
    have = sum(path.stat().st_size for path in (fetcher.state / "staging" / "model").rglob("download"))
    assert BIG * 3 // 4 <= have < BIG
    hub.storage.heal()
    hub.storage.traffic.clear()
    fetcher.start()
    fetcher.bring("model")
    assert hub.storage.traffic.sent() == BIG - have
    assert all((tree(fetcher) / name).read_bytes() == data for name, data in files.items())
