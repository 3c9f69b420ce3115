"""`cachefetch run` as tests start, kill and ask it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from cachefetch.client import Fetcher
from cachefetch.pb import fetch_pb2, fetch_pb2_grpc
from cachefetch.sockets import fetch_socket, served
from cachefetch.store import Store
from tests.csi.driver import parse_line, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cachefetch.work import Status

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


class FetcherProcess:
    """One daemon after another on one store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.config = root / "fetcher.json"
        """JSON is YAML, too."""
        self.log_file = root / "fetcher.log"
        self.store = Store.open(self.state)
        self.process: subprocess.Popen[bytes] | None = None
        self._environment: Mapping[str, str] | None = None

    def declare(self, **sources: Mapping[str, Any]) -> None:
        """These are the caches, by name: their sources, and under `cache` what else is declared of them."""
        caches = []
        for name, given in sources.items():
            source = dict(given)
            more = source.pop("cache", {"refresh": {"manual": True}})
            caches.append({"name": name, "source": source, **more})
        self.config.write_text(json.dumps({"caches": caches}))

    def command(self, name: str, *more: str) -> list[str]:
        """The arguments of a command line on the same store."""
        where = ["--state-dir", str(self.state), "--config", str(self.config)]
        return [sys.executable, "-m", "cachefetch", name, *where, *more]

    def start(self, *more: str, environment: Mapping[str, str] | None = None) -> None:
        """Start it, and wait until it serves."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(self.command("run", *more), stderr=log, cwd=ROOT, env=environment)
        until(lambda: served(fetch_socket(self.state)) or self.process is None or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log_file.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.process = None
        return code

    def run(self, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        return subprocess.run(
            self.command(name, *more), capture_output=True, text=True, check=False, cwd=ROOT, timeout=120
        )

    def ensure(self, cache: str, version: str = "", timeout: float = PATIENCE) -> Iterator[fetch_pb2.EnsureResponse]:
        """The news of one Ensure."""
        with grpc.insecure_channel(f"unix:{fetch_socket(self.state)}") as channel:
            stub = fetch_pb2_grpc.FetchStub(channel)
            yield from stub.Ensure(fetch_pb2.EnsureRequest(cache=cache, version=version), timeout=timeout)

    def bring(self, cache: str, version: str = "", timeout: float = PATIENCE) -> str:
        """The version that one Ensure ends with."""
        *_, last = self.ensure(cache, version, timeout)
        assert last.version
        return last.version

    def status(self, cache: str) -> Status:
        """What it does for one cache."""
        with ExitStack() as at_end:
            channel = at_end.enter_context(grpc.insecure_channel(f"unix:{fetch_socket(self.state)}"))
            return next(status for status in Fetcher(channel).statuses() if status.cache == cache)

    def events(self, name: str) -> list[dict[str, str]]:
        """The log lines of one event; every line must parse."""
        lines = [parse_line(line) for line in self.log_file.read_text().splitlines()]
        return [line for line in lines if line.get("event") == name]
