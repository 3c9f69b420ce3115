"""How long sealing a cache takes against `mkfs.erofs` alone, and how long the same version takes the second time.

    python bench/seal.py [--files 100000] [--runs 5] [--place DIR]

A real driver (`csi all`) makes the disk by CreateVolume; mkfs.erofs gets the same golden tree and options. Both are run
by turns; medians. Everything is made below a new directory of DIR and removed at the end. Needs root. Exits with 1 when
the ratio is above TARGET.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from csi.pb import csi_pb2, csi_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = 1.3
_BYTES = 2000  # of a file
_PER_DIRECTORY = 100
_POD = {"csi.storage.k8s.io/pod.namespace": "bench"}
_READERS = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(
        mode=csi_pb2.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY,
    ),
)


def main() -> int:
    """Measure, print, clean up; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="goldlink-bench-", dir=args.place))
    try:
        ratio = measure(place, args.files, args.runs)
    finally:
        shutil.rmtree(place)
    print(f"ratio                  {ratio:.2f}, target at most {TARGET}")
    return 0 if ratio <= TARGET else 1


def measure(place: Path, files: int, runs: int) -> float:
    """The ratio of the medians."""
    make_source(place / "source", files)
    config = place / "caches.yaml"
    config.write_text(
        f"caches:\n- {{name: bench, source: {{type: directory, path: {place}/source}}, refresh: {{manual: true}}}}\n"
    )
    flags = ["--state-dir", str(place / "state"), "--config", str(config)]
    subprocess.run([sys.executable, "-m", "cachefetch", "refresh", *flags], check=True, stdout=subprocess.DEVNULL)
    golden = (place / "state" / "caches" / "bench" / "current").resolve() / "tree"
    ours, theirs, second, publishes = [], [], [], []
    with driver(place, flags) as channel:
        controller, node = csi_pb2_grpc.ControllerStub(channel), csi_pb2_grpc.NodeStub(channel)
        for number in range(runs + 1):
            seconds = create(controller, f"disk-{number}")
            again = create(controller, f"again-{number}")
            published = publish(node, place, controller, f"again-{number}")
            for name in (f"disk-{number}", f"again-{number}"):
                request = csi_pb2.DeleteVolumeRequest(volume_id=volume_id(controller, name))
                controller.DeleteVolume(request)
            wait_for_trash(place / "state" / "disks" / "trash")
            alone = mkfs(golden, place / "alone.erofs")
            if number:  # the first round warms up
                ours.append(seconds)
                theirs.append(alone)
                second.append(again)
                publishes.append(published)
    for label, values in (("CreateVolume, sealing", ours), ("mkfs.erofs alone", theirs)):
        spread = f"{min(values):.3f} to {max(values):.3f}"
        print(f"{label:<22} {statistics.median(values):.3f} s, median of {runs} ({spread}), {files} files")
    for label, values in (("CreateVolume, again", second), ("stage and publish", publishes)):
        print(f"{label:<22} {statistics.median(values) * 1000:.1f} ms")
    return statistics.median(ours) / statistics.median(theirs)


def make_source(source: Path, files: int) -> None:
    """A tree of many small files that no compression would make smaller."""
    for number in range(files):
        below = source / f"d{number // _PER_DIRECTORY:05d}"
        if number % _PER_DIRECTORY == 0:
            below.mkdir(parents=True)
        (below / f"f{number}").write_bytes(os.urandom(_BYTES))


@contextmanager
def driver(place: Path, flags: list[str]) -> Iterator[grpc.Channel]:
    """A driver that runs during the block."""
    socket = place / "csi.sock"
    command = [sys.executable, "-m", "csi", "all", "--endpoint", f"unix://{socket}", *flags, "--node-id", "bench"]
    with (place / "driver.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    channel = grpc.insecure_channel(f"unix:{socket}")
    try:
        grpc.channel_ready_future(channel).result(60)
        yield channel
    finally:
        channel.close()
        process.terminate()
        process.wait()


def create(controller: Any, name: str) -> float:
    """Seconds that CreateVolume took, with its repetitions."""
    started = time.perf_counter()
    volume_id(controller, name)
    return time.perf_counter() - started


def volume_id(controller: Any, name: str) -> str:
    """The id of the volume, which is made when there is none."""
    parameters = {"cache": "bench", "csi.storage.k8s.io/pvc/namespace": "bench"}
    request = csi_pb2.CreateVolumeRequest(name=name, volume_capabilities=[_READERS], parameters=parameters)
    while True:
        try:
            return str(controller.CreateVolume(request).volume.volume_id)
        except grpc.RpcError as error:
            if "ABORTED" not in str(error):
                raise


def publish(node: Any, place: Path, controller: Any, name: str) -> float:
    """Seconds that staging and publishing took; the first time on a node its image is read before."""
    disk = volume_id(controller, name)
    staging, target = place / "staging", place / "target"
    staging.mkdir(exist_ok=True)
    stage = csi_pb2.NodeStageVolumeRequest(volume_id=disk, staging_target_path=str(staging), volume_capability=_READERS)
    show = csi_pb2.NodePublishVolumeRequest(
        volume_id=disk,
        staging_target_path=str(staging),
        target_path=str(target),
        volume_capability=_READERS,
        volume_context=_POD,
    )
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        node.NodeStageVolume(stage)
        node.NodePublishVolume(show)
        seconds = time.perf_counter() - started
        node.NodeUnpublishVolume(csi_pb2.NodeUnpublishVolumeRequest(volume_id=disk, target_path=str(target)))
        node.NodeUnstageVolume(csi_pb2.NodeUnstageVolumeRequest(volume_id=disk, staging_target_path=str(staging)))
    return seconds


def mkfs(tree: Path, image: Path) -> float:
    """Seconds that mkfs.erofs took."""
    uuid = "00000000-0000-0000-0000-000000000000"
    command = ["mkfs.erofs", "--quiet", "-x-1", "--all-root", "-U", uuid, str(image), str(tree)]
    started = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(2**64 - 2)})
    seconds = time.perf_counter() - started
    image.unlink()
    return seconds


def wait_for_trash(trash: Path) -> None:
    """Deleting goes on in the background, and would disturb whoever is measured next."""
    while any(trash.iterdir()):
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
