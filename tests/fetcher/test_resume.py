"""A fetch that is interrupted goes on, and one that many wait for is one."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.csi.driver import until
from tests.servers.nginx import running_nginx

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fetcher.process import FetcherProcess
    from tests.servers.nginx import Nginx

pytestmark = pytest.mark.root
BIG = 256 << 20
"""Bytes. The promise is about 1 GiB, which would only take longer; every figure is a share."""


def write(path: Path, size: int) -> None:
    """A file of that size whose every MiB differs, so that a wrong offset changes the digest."""
    with path.open("wb") as file:
        for number in range(0, size, 1 << 20):
            file.write(number.to_bytes(8) * (1 << 17))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_fetcher_ended_at_half_of_a_download_transfers_only_the_rest(
    fetcher: FetcherProcess, tmp_path: Path, number: int
) -> None:
    with running_nginx(tmp_path / "nginx", rate=100 << 20) as nginx:
        write(nginx.root / "big.bin", BIG)
        fetcher.declare(big={"type": "http", "url": f"{nginx.url}/slow/big.bin"})
        fetcher.start()
        until(lambda: fetcher.status("big").done > BIG // 2, 60)
        fetcher.end(number)
        [partial] = (fetcher.state / "staging" / "big").glob("*/download")
        missing = BIG - partial.stat().st_size
        assert 0 < missing <= BIG // 2
        before = nginx.traffic().sent("/slow/")
        fetcher.start()
        assert fetcher.status("big").failures == 0, "being ended is no failed try"
        version = fetcher.bring("big")
        assert nginx.traffic().sent("/slow/") - before <= missing * 1.01
        tree = fetcher.store.tree("big", version)
        assert (tree / "big.bin").read_bytes() == (nginx.root / "big.bin").read_bytes()


def test_a_hundred_who_want_an_absent_version_cause_one_download(fetcher: FetcherProcess, nginx: Nginx) -> None:
    write(nginx.root / "file.bin", 20 << 20)
    fetcher.declare(deps={"type": "http", "url": f"{nginx.url}/file.bin", "cache": {"prefetch": "onDemand"}})
    fetcher.start()
    with ThreadPoolExecutor(100) as pool:
        versions = set(pool.map(lambda _: fetcher.bring("deps"), range(100)))
    assert versions == {fetcher.store.current("deps")}
    downloads = [exchange for exchange in nginx.traffic().of("/file.bin") if exchange.sent == 20 << 20]
    assert len(downloads) == 1
    rest = nginx.traffic().sent("/file.bin") - (20 << 20)
    assert rest <= 4 << 20, "the look that decides whether to download may have read ahead"


def test_a_fetch_goes_on_when_who_asked_is_gone(fetcher: FetcherProcess, tmp_path: Path) -> None:
    with running_nginx(tmp_path / "nginx", rate=20 << 20) as nginx:
        write(nginx.root / "file.bin", 20 << 20)
        source = {"type": "http", "url": f"{nginx.url}/slow/file.bin", "cache": {"prefetch": "onDemand"}}
        fetcher.declare(deps=source)
        fetcher.start()
        with pytest.raises(grpc.RpcError) as error:
            fetcher.bring("deps", timeout=0.3)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: fetcher.store.current("deps"), 60)


def test_only_root_may_talk_to_it(fetcher: FetcherProcess) -> None:
    """The library does not tell the credentials of a peer, so the modes of the socket and of its directory decide."""
    fetcher.declare()
    fetcher.start()
    path = fetcher.state / "run" / "fetch.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    for place in (path.parent, fetcher.state):
        assert place.stat().st_mode & 0o077 == 0
    assert _connects(os.fspath(path), 0)
    assert not _connects(os.fspath(path), 65534)
    for place in (path.parent, fetcher.state):
        place.chmod(0o711)  # the socket's own mode suffices
    assert not _connects(os.fspath(path), 65534)


def _connects(path: str, user: int) -> bool:
    """Whether a process of the user can connect."""
    import socket
    import subprocess
    import sys

    assert socket.AF_UNIX
    code = f"import os, socket; os.setuid({user}); socket.socket(socket.AF_UNIX).connect({path!r})"
    return subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.DEVNULL).returncode == 0


def test_a_second_fetcher_on_the_same_store_gives_up(fetcher: FetcherProcess) -> None:
    fetcher.declare()
    fetcher.start()
    done = fetcher.run("run")
    assert done.returncode == 1
    assert "another cachefetch daemon runs on" in done.stderr
    assert fetcher.process is not None
    assert fetcher.process.poll() is None
    assert fetcher.end() == 0


def test_a_refresh_by_hand_is_done_by_the_fetcher_and_looks_the_same(
    fetcher: FetcherProcess, nginx: Nginx, tmp_path: Path
) -> None:
    (nginx.root / "file.txt").write_text("1")
    fetcher.declare(deps={"type": "http", "url": f"{nginx.url}/file.txt"})
    alone = fetcher.run("refresh")
    fetcher.start()
    (nginx.root / "file.txt").write_text("two")
    served_by_it = fetcher.run("refresh", "deps")
    assert served_by_it.returncode == alone.returncode == 0
    for done in (alone, served_by_it):
        assert done.stdout.startswith("deps: changed, version ")
        assert "; fetched " in done.stdout
        assert done.stderr.startswith("deps: looking for a new version\n")
    assert fetcher.events("refreshed")[-1]["version"] == fetcher.store.current("deps")
    assert fetcher.run("refresh").stdout.startswith("deps: unchanged, version ")
    unknown = fetcher.run("refresh", "other")
    assert unknown.returncode == 2
    assert "there is no cache 'other'" in unknown.stderr
    row = json_of(fetcher)[0]
    assert (row["state"], row["failures"], row["error"]) == ("idle", 0, None)


def json_of(fetcher: FetcherProcess) -> list[dict[str, object]]:
    """What `cachefetch list` says."""
    import json

    found: list[dict[str, object]] = json.loads(fetcher.run("list", "-o", "json").stdout)
    return found


def test_a_declaration_that_the_fetcher_does_not_follow_is_an_error_of_configuration(
    fetcher: FetcherProcess, nginx: Nginx, tmp_path: Path
) -> None:
    (nginx.root / "file.txt").write_text("1")
    fetcher.declare(deps={"type": "http", "url": f"{nginx.url}/file.txt"})
    fetcher.start()
    fetcher.bring("deps")
    mine = fetcher.config
    fetcher.config = tmp_path / "another.json"
    fetcher.declare(deps={"type": "http", "url": f"{nginx.url}/other.txt"})
    done = fetcher.run("refresh")
    assert done.returncode == 2
    assert "is declared in another way" in done.stderr
    fetcher.config = mine


def test_a_change_of_the_configuration_is_waited_for_by_a_refresh(fetcher: FetcherProcess, nginx: Nginx) -> None:
    for name in ("one.txt", "two.txt"):
        (nginx.root / name).write_text(name)
    fetcher.declare(deps={"type": "http", "url": f"{nginx.url}/one.txt"})
    fetcher.start()
    fetcher.bring("deps")
    fetcher.declare(deps={"type": "http", "url": f"{nginx.url}/two.txt"})
    done = fetcher.run("refresh")
    assert done.returncode == 0, done.stderr
    assert (fetcher.state / "caches/deps/current/tree/two.txt").read_text() == "two.txt"
