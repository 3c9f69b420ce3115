"""The steps of the demo. Each does something real, says in words for anybody what it proves, and checks that."""

from __future__ import annotations

import hashlib
import shutil
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from facts import Tree, attempts, difference, disk, inode, names, processes
from report import took
from summary import Figures, summarise
from workplace import CACHE, POOL

from cachefetch.errors import ConfigError
from cachefetch.model import short_id
from cachefetch.terminal import size
from csi import mountinfo

if TYPE_CHECKING:
    from facts import Inode
    from report import Report
    from workplace import Volume, Workplace

_PODS = ("web", "worker", "tests")
_CHEAP = 0.1
"""The most that all volumes together may take on the disk, as a share of the copies that they replace."""
_QUIET = 1.1
"""Seconds after which a source is believed to be at rest: what is younger is read once more by the next refresh."""
_SETTLE = 60.0  # seconds until the driver must have emptied its trash


class Story:
    """Runs in `place` and writes to `report`.

    Every step raises `ClaimFailed` when goldlink does not do what the step says, and `Broken` or `grpc.RpcError` when
    something did not work at all.
    """

    def __init__(self, report: Report, place: Workplace) -> None:
        self._report = report
        self._place = place
        self._figures = Figures()
        self._volumes: list[Volume] = []
        self._first = ""
        self._second = ""
        self._changed = ""

    def run(self) -> None:
        """All of it, in order."""
        steps = (
            self._copy_source, self._refresh, self._start, self._publish, self._share, self._refuse, self._update,
            self._crash, self._unpublish, self._leave_nothing,
        )  # fmt: skip
        for step in steps:
            step()
        summarise(self._report, self._figures)

    def _copy_source(self) -> None:
        self._report.step(
            "A directory that many jobs need",
            "The Python packages of this very environment stand for it: a dependency tree, a model or a toolchain "
            "would do as well. The demo works on a copy of it. The time to copy is what each job would wait at least, "
            "if each job had a copy.",
        )
        origin = sysconfig.get_path("purelib")
        origin_bytes = Tree(Path(origin)).bytes
        free = shutil.disk_usage(self._place.root).free
        if free < 3 * origin_bytes:
            raise ConfigError(
                f"--dir: {self._place.root.parent} has {size(free)} free, the demo needs {size(3 * origin_bytes)}: "
                "name another one"
            )
        self._report.command(f"cp -a {origin} source")
        started = time.perf_counter()
        # All that -a keeps but the owner, which only root may set.
        self._place.run("cp", "-RP", "--preserve=mode,timestamps", f"{origin}/.", str(self._place.source))
        seconds = time.perf_counter() - started
        tree = Tree(self._place.source)
        figures = self._figures
        figures.files, figures.bytes, figures.copy_seconds = len(tree.files), tree.bytes, seconds
        figures.copy_disk = disk([self._place.source])
        time.sleep(_QUIET)
        self._report.table(
            ("FILES", "SIZE", "ON DISK", "TIME TO COPY"),
            [(f"{figures.files:,}", size(figures.bytes), size(figures.copy_disk), took(seconds))],
            right=(0, 1, 2, 3),
        )

    def _refresh(self) -> None:
        self._report.step(
            "Fetch it once: the golden tree",
            "A cache is a directory with a name. 'refresh' reads it, takes the sha256 of every file, and publishes the "
            "result as one version that is never changed again: the golden tree. A machine needs one, however many "
            "jobs use it.",
        )
        self._cachefetch("refresh", CACHE)
        self._first = self._place.current()
        golden = self._place.golden(self._first)
        odd = difference(Tree(self._place.source), Tree(golden))
        self._report.claim(
            "the golden tree has the same names, bytes, symlinks and file times as the source",
            holds=not odd, found=odd,
        )  # fmt: skip
        writable = [path for path, status in Tree(golden).files.items() if status.st_mode & 0o7222]
        self._report.claim(
            "none of its files is writable for anybody", holds=not writable, found=", ".join(writable[:3])
        )
        digest = hashlib.sha256(self._place.store.manifest(CACHE, self._first).read_bytes()).hexdigest()
        self._report.claim(
            f"its id {short_id(self._first)}… is the sha256 of the list of all names and digests",
            holds=digest == self._first, found=digest,
        )  # fmt: skip

    def _start(self) -> None:
        self._report.step(
            "Start the driver",
            "CSI is the protocol by which Kubernetes asks for volumes: kubelet, its agent on every machine, calls the "
            "driver through a socket. Here the demo plays kubelet; the driver is the real one. While it idles, it "
            "makes link trees for volumes to come: directories of their own, in which the golden files have one more "
            "name (a hardlink).",
        )
        self._report.command("python -m csi node --endpoint unix:///…/csi.sock --state-dir … --config …")
        name = self._place.start()
        self._report.claim(f"it answers as {name}", holds=name.startswith("csi.goldlink.dev "), found=name)
        ready = self._place.wait_for_pool()
        self._report.claim(f"{POOL} link trees are ready", holds=ready == POOL, found=f"{ready}")

    def _publish(self) -> None:
        self._report.step(
            "Three jobs get a volume each",
            "NodePublishVolume is the call that makes a volume appear in a job's container (a pod, in the words of "
            "Kubernetes). The job waits for it, so its time is what counts.",
        )
        golden = self._place.golden(self._first)
        rows = []
        for pod in _PODS:
            volume = self._new_volume(pod)
            tree = Tree(volume.target)
            own = disk([golden, volume.target]) - disk([golden])
            seconds = self._figures.publish_seconds[-1]
            rows.append((pod, took(seconds), f"{len(tree.files):,}", size(tree.bytes), size(own)))
        self._report.table(("POD", "PUBLISHED IN", "FILES", "SHOWS", "DISK OF ITS OWN"), rows, right=(1, 2, 3, 4))
        source = Tree(self._place.source)
        odd = [f"{one.pod}: {found}" for one in self._volumes if (found := difference(source, Tree(one.target)))]
        self._report.claim("each volume equals the source, compared byte by byte", holds=not odd, found=", ".join(odd))
        self._report.claim(
            "a pod of a namespace that the cache is not for is refused: PERMISSION_DENIED",
            holds=self._is_refused("elsewhere"),
            found="it got the volume",
        )

    def _is_refused(self, namespace: str) -> bool:
        """Whether a pod of that namespace is told that it may not have the volume."""
        try:
            self._place.publish(self._place.volume("stranger", namespace))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                raise
            return True
        return False

    def _share(self) -> None:
        self._report.step(
            "One set of files, many names",
            "The files in the volumes are no copies: they are the golden files themselves, and the disk holds them "
            "once. The link count, which the kernel keeps for each file, shows that.",
        )
        golden = Tree(self._place.golden(self._first))
        odd = [volume.pod for volume in self._volumes if Tree(volume.target).inodes() != golden.inodes()]
        self._report.claim(
            f"all {len(golden.files):,} files of each volume are the golden inodes (same st_dev and st_ino)",
            holds=not odd, found=f"not those of {', '.join(odd)}",
        )  # fmt: skip
        self._claim_link_counts(golden)
        figures = self._figures
        figures.volumes = len(self._volumes)
        trees = [golden.root, *(volume.target for volume in self._volumes), self._place.state / "pool"]
        figures.volumes_disk = disk(trees) - disk([golden.root])
        copies = figures.volumes * figures.copy_disk
        self._report.claim(
            f"the volumes and the ready link trees add {size(figures.volumes_disk)} to the disk (their directories), "
            f"{figures.volumes} copies would add {size(copies)}",
            holds=figures.volumes_disk < _CHEAP * copies, found=f"more than {_CHEAP:.0%} of it",
        )  # fmt: skip

    def _claim_link_counts(self, golden: Tree) -> None:
        """Every name that the kernel counts is one of those that goldlink made, so nobody else holds the file."""
        parts = [names(self._place.state / part) for part in ("caches", "volumes", "pool")]
        wanted = [1, len(self._volumes), POOL - len(self._volumes)]
        odd = []
        for path, status in Tree(golden.root).files.items():
            found = [part[inode(status)] for part in parts]
            if found != wanted or status.st_nlink != sum(wanted):
                odd.append(f"{path} has link count {status.st_nlink}, names in caches, volumes, pool: {found}")
        golden_names, volume_names, ready_names = wanted
        self._report.claim(
            f"every file's link count is {sum(wanted)}: {golden_names} golden name, {volume_names} in volumes, "
            f"{ready_names} in the link tree that is ready",
            holds=not odd, found="; ".join(odd[:3]),
        )  # fmt: skip

    def _refuse(self) -> None:
        self._report.step(
            "Nobody can write into a shared file, not even root",
            "What is shared must not change, or one job would break all others. So the kernel itself refuses: "
            "EROFS is the error 'Read-only file system'. The demo runs as root (user id 0) and tries everything on one "
            "file.",
        )
        volume, victim = self._volumes[0], self._victim()
        before = (volume.target / victim).read_bytes()
        tried = attempts(volume.target, victim)
        self._report.table(
            ("TRIED AS ROOT", "ANSWER", "  TRIED AS ROOT", "ANSWER"),
            [(*one, f"  {other[0]}", other[1]) for one, other in zip(tried[::2], tried[1::2], strict=True)],
        )
        odd = [f"{what}: {answer}" for what, answer in tried if answer != "EROFS"]
        self._report.claim(
            f"all {len(tried)} attempts on {victim} fail with EROFS",
            holds=not odd, found=", ".join(odd),
        )  # fmt: skip
        self._report.claim(
            "the file is what it was", holds=(volume.target / victim).read_bytes() == before, found="it changed"
        )

    def _victim(self) -> str:
        """A file that everybody recognises as code: the first package that says something about itself."""
        files = Tree(self._place.source).files
        return min(path for path, status in files.items() if path.endswith("/__init__.py") and status.st_size)

    def _update(self) -> None:
        self._report.step(
            "A new version beside the old one",
            "One file of the source changes. The next refresh publishes a second version; it shares every unchanged "
            "file with the first, and running jobs keep what they have.",
        )
        self._changed = self._victim()
        file = self._place.source / self._changed
        old = file.read_bytes()
        new = old + b"# changed for version two\n"
        file.write_bytes(new)
        self._report.command(f"echo '# changed for version two' >> source/{self._changed}")
        self._cachefetch("refresh", CACHE)
        self._second = self._place.current()
        self._report.claim(
            f"there is a version {short_id(self._second)}…, and {short_id(self._first)}… is still there",
            holds=self._second != self._first and self._place.store.has(CACHE, self._first), found="there is one only",
        )  # fmt: skip
        self._claim_difference()
        volume = self._new_volume("web-2")
        shown = {one.pod: (one.target / self._changed).read_bytes() for one in self._volumes}
        self._report.claim(
            "the three old volumes show the old file",
            holds=all(shown[pod] == old for pod in _PODS), found="one of them changed",
        )  # fmt: skip
        self._report.claim(
            f"a new volume ({volume.pod}, {took(self._figures.publish_seconds[-1])}) shows the new file",
            holds=shown[volume.pod] == new, found="it shows another one",
        )  # fmt: skip

    def _claim_difference(self) -> None:
        """Exactly one file is another inode, and the disk holds little more than that file."""
        first, second = (self._place.golden(version) for version in (self._first, self._second))
        before, after = Tree(first).inodes(), Tree(second).inodes()
        changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        added = disk([first.parent, second.parent]) - disk([first.parent])
        self._figures.version_disk = added
        self._report.claim(
            f"they share {len(after) - 1:,} of {len(after):,} files; version two adds {size(added)} to the disk",
            holds=changed == [self._changed] and added < _CHEAP * self._figures.copy_disk,
            found=f"{len(changed)} files differ ({', '.join(changed[:3])}), {size(added)}",
        )

    def _crash(self) -> None:
        self._report.step(
            "The driver crashes",
            "A volume is plain kernel state, and the driver is not in the way of the data: jobs go on reading when it "
            "is killed, upgraded or removed.",
        )
        self._report.command("kill -9 DRIVER")
        before = self._shown()
        self._place.kill()
        self._claim_unchanged(before, "while no driver runs")
        self._place.start()
        self._claim_unchanged(before, "after it was started again")
        mounts = len(mountinfo.below(self._place.root))
        self._place.publish(self._volumes[0])
        self._report.claim(
            "kubelet asks again for a volume that it has: nothing is mounted twice",
            holds=len(mountinfo.below(self._place.root)) == mounts, found="there is another mount",
        )  # fmt: skip

    def _claim_unchanged(self, before: dict[str, tuple[dict[str, Inode], bytes]], when: str) -> None:
        now = self._shown()
        odd = [pod for pod in before if now[pod] != before[pod]]
        self._report.claim(
            f"all {len(before)} volumes show the same files, and they can be read, {when}",
            holds=not odd,
            found=f"not those of {', '.join(odd)}",
        )

    def _shown(self) -> dict[str, tuple[dict[str, Inode], bytes]]:
        """Of each volume the files, and the content of the one that differs between versions."""
        return {
            one.pod: (Tree(one.target).inodes(), (one.target / self._changed).read_bytes()) for one in self._volumes
        }

    def _unpublish(self) -> None:
        self._report.step(
            "The jobs end",
            "NodeUnpublishVolume takes a volume away. The golden trees stay for the next job, and every byte of them "
            "is hashed again to show that they are what was fetched.",
        )
        slowest = max(self._place.unpublish(volume) for volume in self._volumes)
        left = [volume.pod for volume in self._volumes if volume.target.exists()]
        self._report.claim(
            f"{len(self._volumes)} volumes are gone, the slowest after {took(slowest)}",
            holds=not left, found=f"those of {', '.join(left)} are there",
        )  # fmt: skip
        mounts = mountinfo.below(self._place.root)
        self._report.claim(
            "nothing is mounted any more", holds=not mounts, found=", ".join(str(m.point) for m in mounts)
        )
        self._cachefetch("verify", CACHE)  # fails when a single byte differs

    def _leave_nothing(self) -> None:
        self._report.step("And nothing is left", "The driver is asked to end, and the demo removes its directory.")
        place = self._place
        deadline = time.monotonic() + _SETTLE
        leftovers = [place.state / "volumes", place.state / "trash"]
        while any(any(path.iterdir()) for path in leftovers) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [str(entry.relative_to(place.state)) for path in leftovers for entry in path.iterdir()]
        self._report.claim("the store holds nothing of the volumes", holds=not left, found=", ".join(left[:3]))
        status = place.stop()
        self._report.claim("the driver ended with exit status 0", holds=status == 0, found=f"{status}")
        running = processes(str(place.root))
        self._report.claim("no process is left", holds=not running, found="; ".join(running))
        mounts = mountinfo.below(place.root)
        place.remove()
        self._report.claim(
            f"no mount and no file is left of {place.root}",
            holds=not mounts and not place.root.exists(), found=f"{len(mounts)} mounts",
        )  # fmt: skip

    def _new_volume(self, pod: str) -> Volume:
        volume = self._place.volume(pod)
        self._figures.publish_seconds.append(self._place.publish(volume))
        self._volumes.append(volume)
        return volume

    def _cachefetch(self, *words: str) -> None:
        self._report.command(f"python -m cachefetch {' '.join(words)} --state-dir … --config …")
        self._report.output(self._place.cachefetch(*words))
