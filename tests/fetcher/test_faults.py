"""Whatever a source, the network or the disk does: current stays, the error says what to do, and the next try heals."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.csi.driver import until
from tests.processes import free_port
from tests.servers.faulty import Answer, CutOff, Flip, Longer, Slow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.fetcher.process import FetcherProcess
    from tests.servers.faulty import Fault, FaultyProxy
    from tests.servers.nginx import Nginx

pytestmark = pytest.mark.root
OLD, NEW = b"old" * 50_000, b"new!" * 50_000
SECRET = "s3cr3t-t0ken"
LOOP = {"Location": "/loop/file"}

FATAL: Mapping[str, tuple[Fault, str]] = {
    "unauthorized": (Answer(401), "401.*credentials"),
    "forbidden": (Answer(403), "403.*credentials"),
    "missing": (Answer(404), "404.*correct the URL, or upload"),
    "loop": (Answer(302, LOOP), "redirects more than"),
    "busy": (Answer(503, {"Retry-After": "3600"}), "503.*left alone for 3600 s"),
    "limited": (Answer(429, {"Retry-After": "100"}), "429.*left alone for 100 s"),
    "broken": (Answer(500), "500.*look at the server"),
    "mute": (CutOff(after=0), "cannot be fetched"),
    "flipped": (Flip(at=70_000), "has digest .*, expected was"),
    "longer": (Longer(by=10), "announced 200010 bytes and served 200000"),
    "shorter": (Longer(by=-10), "has digest .*, expected was|bad Content-Length"),  # where the rest is seen in time
}
"""Faults that do not pass, and what must be said."""


def change(nginx: Nginx, content: bytes) -> None:
    for name in FATAL:
        (nginx.root / name).mkdir(exist_ok=True)
        (nginx.root / name / "file").write_bytes(content)


def declare(fetcher: FetcherProcess, url: str, content: bytes) -> None:
    import hashlib

    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    sources: dict[str, dict[str, Any]] = {
        name: {"type": "http", "url": f"{url}/{name}/file?token={SECRET}"} for name in FATAL
    }
    for name in ("flipped", "shorter"):  # without a digest a shorter file is just another one
        sources[name]["digest"] = digest
    fetcher.declare(**sources)


@pytest.mark.slow
def test_a_source_that_fails_leaves_what_is_served_and_is_tried_again(
    fetcher: FetcherProcess, nginx: Nginx, faulty: Callable[[str], FaultyProxy]
) -> None:
    proxy = faulty(nginx.url)
    change(nginx, OLD)
    declare(fetcher, proxy.url, OLD)
    fetcher.start("--concurrency", "20")
    before = {name: fetcher.bring(name) for name in FATAL}
    change(nginx, NEW)
    declare(fetcher, proxy.url, NEW)
    for name, (fault, _) in FATAL.items():
        proxy.inject(fault, path=f"/{name}/")
    done = fetcher.run("refresh")
    complaints = {line.split(": ")[1]: line for line in done.stderr.splitlines() if line.startswith("cachefetch: ")}
    assert done.returncode == 1
    for name, (_, reason) in FATAL.items():
        assert fetcher.store.current(name) == before[name], name
        line = complaints[name]
        assert f"version {before[name][:12]} stays current" in line
        assert re.search(reason, line), line
        assert line.endswith(f"; then run 'cachefetch refresh {name}' again")
    check_told(fetcher)
    for text in (done.stdout, done.stderr, fetcher.log_file.read_text(), fetcher.run("list", "-o", "json").stdout):
        assert SECRET not in text

    proxy.heal()
    healed = fetcher.run("refresh")
    assert healed.returncode == 0, healed.stderr
    for name in FATAL:
        version = fetcher.store.current(name)
        assert version
        assert version != before[name]
        assert (fetcher.store.tree(name, version) / "file").read_bytes() == NEW
    assert fetcher.status("missing").failures == 0
    assert SECRET not in fetcher.log_file.read_text()


def check_told(fetcher: FetcherProcess) -> None:
    """A failure is in the log and in the list, with its remedy and the time of the next try."""
    told = {event["cache"]: event for event in fetcher.events("refresh_failed")}
    listed = {row["cache"]: row for row in json.loads(fetcher.run("list", "-o", "json").stdout) if row["current"]}
    for name in FATAL:
        assert told[name]["served"] == fetcher.store.current(name)
        assert float(told[name]["retry_s"]) > 0
        assert listed[name]["error"] == told[name]["error"]
        assert listed[name]["failures"] >= 1


def test_what_passes_is_waited_for_within_one_try(
    fetcher: FetcherProcess, nginx: Nginx, faulty: Callable[[str], FaultyProxy]
) -> None:
    """A connection that breaks, a server that is busy for a second, and one that is slow are no failed tries."""
    proxy = faulty(nginx.url)
    for name in ("cut", "busy", "slow"):
        (nginx.root / name).write_bytes(NEW)
    proxy.inject(CutOff(after=30_000), path="/cut", skip=1, times=3)
    proxy.inject(Answer(503, {"Retry-After": "1"}), path="/busy", times=1)
    proxy.inject(Slow(pause=0.05, piece=20_000), path="/slow")
    fetcher.declare(**{name: {"type": "http", "url": f"{proxy.url}/{name}"} for name in ("cut", "busy", "slow")})
    fetcher.start()
    for name in ("cut", "busy", "slow"):
        version = fetcher.bring(name)
        assert (fetcher.store.tree(name, version) / name).read_bytes() == NEW
    assert fetcher.events("refresh_failed") == []
    assert len(proxy.traffic.of("/busy")) >= 2


def test_no_server_no_trust_and_too_much_are_said(fetcher: FetcherProcess, nginx: Nginx) -> None:
    (nginx.root / "file").write_bytes(NEW)
    fetcher.declare(
        untrusted={"type": "http", "url": f"{nginx.tls_url}/file"},
        large={"type": "http", "url": f"{nginx.url}/file", "cache": {"maxBytes": "100k", "refresh": {"manual": True}}},
    )
    fetcher.start()
    done = fetcher.run("refresh")
    assert done.returncode == 1
    assert re.search("untrusted: .*certificate that is not trusted.*have its CA installed", done.stderr)
    assert re.search("large: .*maxBytes 100000: raise it or shrink the source", done.stderr)
    assert fetcher.store.current("untrusted") is None
    assert fetcher.store.current("large") is None


@pytest.mark.slow
def test_a_source_that_is_down_is_said_with_its_back_off_which_survives_a_restart(fetcher: FetcherProcess) -> None:
    fetcher.declare(down={"type": "http", "url": f"http://127.0.0.1:{free_port()}/file"})
    fetcher.start()
    until(lambda: fetcher.status("down").failures, 60)
    assert "Connection refused" in fetcher.status("down").error
    fetcher.end()
    text = fetcher.run("list").stdout
    assert re.search("down: last try failed: .*Connection refused.*no fetcher is running", text)
    fetcher.start()
    status = fetcher.status("down")
    assert status.failures == 1
    assert status.state == "failed"
    assert "Connection refused" in status.error


def test_a_full_disk_is_said_and_nothing_is_left_of_the_attempt(
    tmp_path: Path, nginx: Nginx, image: Callable[..., Path]
) -> None:
    from tests.fetcher.process import FetcherProcess

    fetcher = FetcherProcess(image("small", 64, "mkfs.ext4", "-q"))
    (nginx.root / "file").write_bytes(NEW)
    fetcher.declare(deps={"type": "http", "url": f"{nginx.url}/file"})
    fetcher.start()
    before = fetcher.bring("deps")
    with (nginx.root / "file").open("r+b") as file:
        file.truncate(200 << 20)
    done = fetcher.run("refresh")
    assert done.returncode == 1
    assert f"version {before[:12]} stays current" in done.stderr
    assert "bytes do not fit into the" in done.stderr
    assert fetcher.store.current("deps") == before
    (nginx.root / "file").write_bytes(OLD)
    assert fetcher.run("refresh").returncode == 0
    assert fetcher.end() == 0


def test_a_pause_that_a_server_asked_for_does_not_delay_the_end(
    fetcher: FetcherProcess, nginx: Nginx, faulty: Callable[[str], FaultyProxy]
) -> None:
    """Not even as long as the grace that running refreshes have."""
    proxy = faulty(nginx.url)
    proxy.inject(Answer(503, {"Retry-After": "50"}))
    fetcher.declare(deps={"type": "http", "url": f"{proxy.url}/file"})
    fetcher.start()
    until(proxy.traffic.of, 60)
    assert fetcher.end() == 0
    assert fetcher.events("interrupted")
    assert not fetcher.events("abandoned")
