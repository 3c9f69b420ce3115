"""What refreshes cost: nothing, one file or one per cent changed; a million files; a download that was cut off at half.

    python bench/refreshes.py [--files 100000] [--many 1000000] [--size 1024] [--place DIR]

Each is a whole process `cachefetch refresh` on a store of its own: seconds of processor time (user and system), seconds
that passed, MiB at its peak of memory, MiB that the server sent. `--files` small files for the directory, the object
store and the image; `--many` files in one archive, of which every time differs the second time; `--size` MiB in one
file of which the fetcher has half when it is killed (SIGKILL). 0 leaves a part out.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import obstore  # noqa: E402  (a script's own directory is on the path, its parent not)
from obstore.store import S3Store  # noqa: E402  (as above)

from tests.servers.images import Layout, layer  # noqa: E402  (as above)
from tests.servers.manyfiles import write_archive  # noqa: E402  (as above)
from tests.servers.nginx import running_nginx  # noqa: E402  (as above)
from tests.servers.registry import running_registry  # noqa: E402  (as above)
from tests.servers.s3 import running_s3  # noqa: E402  (as above)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.servers.traffic import Traffic

_SETTLED = 2.5
"""Seconds after which a change is told from a later one."""
_PER_LAYER = 100
"""Layers of the image: one of them changes when one file does, or one per cent."""
_MIB = 1 << 20


class Fetched:
    """A store, and what is fetched into it."""

    def __init__(self, place: Path, source: dict[str, Any]) -> None:
        place.mkdir(parents=True)
        self.state, config = place / "state", place / "caches.json"
        config.write_text(json.dumps({"caches": [{"name": "c", "source": source, "refresh": {"manual": True}}]}))
        where = ["--state-dir", str(self.state), "--config", str(config)]
        self.command = [sys.executable, "-m", "cachefetch", "refresh", *where]

    def refresh(self, what: str, sent: Callable[[], int] = lambda: 0) -> None:
        """Refresh and print a line."""
        before, bytes_before, started = _cpu(), sent(), time.perf_counter()
        process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        output, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"{what}: {errors}")
        took, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{what:<34} cpu {_cpu() - before:7.2f} s   wall {took:7.2f} s   peak so far {peak:4.0f} MiB   "
            f"sent {(sent() - bytes_before) / _MIB:8.2f} MiB   {output.split(';')[0].removeprefix('c: ').strip()}",
            flush=True,
        )


def main() -> int:
    """Measure, print, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="goldlink-bench-", dir=args.place))
    try:
        if args.files:
            directory(place / "directory", args.files)
            image(place / "image", args.files)
            objects(place / "objects", args.files)
        if args.size:
            resumed(place / "resumed", args.size * _MIB)
        if args.many:
            many(place / "many", args.many)
    finally:
        shutil.rmtree(place)
    return 0


def content(number: int, version: int = 0) -> bytes:
    """A kilobyte or two, of its own."""
    return f"module.exports = {number}; // {version}\n".encode() * (number % 60 + 10)


def turns(name: str, files: int, change: Callable[[Iterable[int], int], None], fetched: Fetched, **more: Any) -> None:
    """First, unchanged, one file, one per cent."""
    change(range(files), 0)
    fetched.refresh(f"{name}, first", **more)
    fetched.refresh(f"{name}, unchanged", **more)
    change([files // 2], 1)
    fetched.refresh(f"{name}, one file", **more)
    change(range(files // 3, files // 3 + max(1, files // 100)), 2)
    fetched.refresh(f"{name}, 1 %", **more)


def directory(place: Path, files: int) -> None:
    """A local tree."""
    root = place / "origin"

    def change(numbers: Iterable[int], version: int) -> None:
        for number in numbers:
            path = root / f"{number // 1000:04}" / f"module-{number:07}.js"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(number, version))
        time.sleep(_SETTLED)

    turns("directory", files, change, Fetched(place / "c", {"type": "directory", "path": str(root)}))


def image(place: Path, files: int) -> None:
    """An image of a hundred layers."""
    with running_registry(place / "registry", by_token=False) as registry:
        versions = dict.fromkeys(range(files), 0)

        def change(numbers: Iterable[int], version: int) -> None:
            versions.update(dict.fromkeys(numbers, version))
            step = -(-files // _PER_LAYER)
            layout = Layout(place / f"layout-{version}")
            parts = (
                layer({f"{n // 1000:04}/module-{n:07}.js": content(n, versions[n]) for n in range(start, end)})
                for start, end in ((start, min(start + step, files)) for start in range(0, files, step))
            )
            layout.tag(layout.image(parts))
            registry.push(layout, "bench:1")

        login = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
        (place / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))
        source = {
            "type": "oci",
            "image": f"{registry.host}/bench:1",
            "auth": {"dockerConfig": str(place / "config.json")},
        }
        turns("image", files, change, Fetched(place / "c", source), sent=_sent(registry.proxy.traffic))


def objects(place: Path, files: int) -> None:
    """A prefix of an S3 service."""
    with running_s3(place / "s3") as s3:
        store = S3Store(
            s3.bucket,
            endpoint=s3.url,
            region=s3.region,
            access_key_id=s3.access_key,
            secret_access_key=s3.secret_key,
            client_options={"allow_http": True},
        )

        def change(numbers: Iterable[int], version: int) -> None:
            def put(number: int) -> None:
                obstore.put(store, f"p/{number // 1000:04}/module-{number:07}.js", content(number, version))

            with ThreadPoolExecutor(8) as pool:
                for _ in pool.map(put, numbers):
                    pass
            s3.proxy.traffic.clear()

        login = {"accessKeyIdFile": s3.access_key, "secretAccessKeyFile": s3.secret_key}
        for name, key in login.items():
            (place / name).write_text(key)
        where = {"url": f"s3://{s3.bucket}/p/", "endpoint": s3.url, "region": s3.region}
        source = {"type": "objectstore", **where, "credentials": {name: str(place / name) for name in login}}
        turns("object store", files, change, Fetched(place / "c", source), sent=_sent(s3.proxy.traffic))


def resumed(place: Path, size: int) -> None:
    """A file of which half has arrived when the fetcher is killed."""
    with running_nginx(place / "nginx", rate=200 * _MIB) as nginx:
        with (nginx.root / "big.bin").open("wb") as file:
            for _ in range(size // _MIB):
                file.write(os.urandom(_MIB))
        fetched = Fetched(place / "c", {"type": "http", "url": f"{nginx.url}/slow/big.bin"})
        with subprocess.Popen(fetched.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT) as first:
            while (have := sum(path.stat().st_size for path in fetched.state.rglob("download"))) < size // 2:
                time.sleep(0.01)
            first.send_signal(signal.SIGKILL)
        have = sum(path.stat().st_size for path in fetched.state.rglob("download"))
        before = nginx.traffic().sent("/slow/")
        fetched.refresh("the rest after a kill", lambda: nginx.traffic().sent("/slow/"))
        sent = nginx.traffic().sent("/slow/") - before
        print(
            f"{'':<34} {(size - have) / _MIB:.1f} MiB were missing, {100 * (sent / (size - have) - 1):.2f} % more came"
        )


def many(place: Path, files: int) -> None:
    """An archive of very many files, and another one of the same files with other times."""
    with running_nginx(place / "nginx") as nginx:
        fetched = Fetched(place / "c", {"type": "http", "url": f"{nginx.url}/many.tar.zst"})
        for version in range(2):
            write_archive(nginx.root / "many.tar.zst", files, mtime=version + 1)
            fetched.refresh(f"{files:,} files, {'first' if not version else 'all changed'}")


def _sent(traffic: Traffic) -> Callable[[], int]:
    return lambda: traffic.sent("/")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
