"""S3 by versitygw: objects are files of a directory, signatures are checked; a proxy before it counts."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.processes import free_port, go_tool, listens, running
from tests.servers.faulty import FaultyProxy, faulty_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"


@dataclass(frozen=True)
class S3:
    """A running object store with one bucket."""

    proxy: FaultyProxy
    """In front of the store: `proxy.url` is the endpoint."""
    bucket: str
    access_key: str
    secret_key: str
    region: str

    @property
    def url(self) -> str:
        """The endpoint; buckets are the first part of the path."""
        return self.proxy.url

    def curl(self, key: str, *options: str | Path) -> bytes:
        """What a signed request of curl for this key of the bucket gives; a GET without options."""
        url = f"{self.url}/{self.bucket}/{key}"
        sign = ["--aws-sigv4", f"aws:amz:{self.region}:s3", "--user", f"{self.access_key}:{self.secret_key}"]
        sign += ["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]  # curl signs it, but does not send it by itself
        command = ["curl", "--silent", "--show-error", "--fail-with-body", *sign, *options, url]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60).stdout

    def put(self, key: str, file: Path) -> None:
        """Upload a file as an object."""
        self.curl(key, "--upload-file", file)


@contextmanager
def running_s3(directory: Path) -> Iterator[S3]:
    """An object store until the end of the block, with its files in `directory` (which must have user attributes)."""
    access_key, secret_key, region = "AKIAGOLDLINKTESTS", "a/secret+of=tests", "eu-north-1"
    buckets = directory / "buckets"
    buckets.mkdir(parents=True)
    port = free_port()
    keys = {"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}  # not on the command line, as in real life
    command: list[str | Path] = [
        go_tool(VERSITYGW),
        "--port",
        f"127.0.0.1:{port}",
        "--region",
        region,
        "posix",
        buckets,
    ]
    log = directory / "versitygw.log"
    with (
        running(command, log=log, ready=lambda: listens(port), environment={**os.environ, **keys}),
        faulty_proxy(f"http://127.0.0.1:{port}") as proxy,
    ):
        store = S3(proxy, "caches", access_key, secret_key, region)
        store.curl("", "--request", "PUT")
        proxy.traffic.clear()
        yield store
