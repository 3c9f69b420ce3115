"""In-memory stand-ins for the Protocols of csi: they keep the promises of the real ones, as the shared tests show."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachefetch.errors import Precondition
from csi.mount import Kind, Seen
from csi.mountinfo import Mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi.targets import Identity

_ROOT_MOUNT = 1


@dataclass
class FakeMount:
    """One mount of a FakeMounter; a test may set `busy` and `dead` at any time."""

    id: int
    source: Path
    target: Path
    readonly: bool = True
    fstype: str = "ext4"
    busy: bool = False
    dead: bool = False


class FakeMounter:
    """A Mounter whose mounts exist only here; directories are real ones, of tmp_path."""

    def __init__(self) -> None:
        self.mounts: list[FakeMount] = []
        """In the order of mounting: of several at one target, the last is on top."""
        self.calls: list[tuple[str, Path]] = []
        """Verb and path (of bind_readonly: the target) of every call, also of those that failed."""
        self._failures: dict[str, list[tuple[Exception, bool]]] = {}
        self._next_id = _ROOT_MOUNT + 1

    def fail_next(self, verb: str, error: Exception, *, late: bool = False) -> None:
        """Let the next call of `verb` raise `error`: instead of its work, or `late`, after it."""
        self._failures.setdefault(verb, []).append((error, late))

    def mount_foreign(self, source: Path, target: Path, *, fstype: str = "ext4", readonly: bool = False) -> FakeMount:
        """Let another program mount `source` at `target`."""
        mount = FakeMount(self._next_id, source, target, readonly, fstype)
        self._next_id += 1
        self.mounts.append(mount)
        return mount

    def at(self, target: Path) -> FakeMount | None:
        """The topmost mount at `target`."""
        return next((mount for mount in reversed(self.mounts) if mount.target == target), None)

    def bind_readonly(self, source: Path, target: Path) -> None:
        late = self._start("bind_readonly", target)
        for path in (source, target):
            if path.is_symlink() or not path.is_dir():
                raise Precondition(f"{path} is no directory: a mount needs one at both ends, symlinks are not followed")
        self.mount_foreign(source, target, readonly=True)
        if late:
            raise late

    def unmount(self, target: Path) -> None:
        late = self._start("unmount", target)
        if mount := self.at(target):
            if mount.busy:
                busy = OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(target))
                raise Precondition(f"unmounting {target} failed: a process on the node still uses it") from busy
            self.mounts.remove(mount)
        if late:
            raise late

    def look(self, path: Path) -> Seen:
        late = self._start("look", path)
        if late:
            raise late
        mount = self.at(path)
        if mount and mount.dead:
            return Seen(Kind.DEAD, True, mount.id)
        shown = mount.source if mount else path
        try:
            status = shown.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Seen(Kind.MISSING)
        kind = Kind.SYMLINK if shown.is_symlink() else Kind.DIRECTORY if shown.is_dir() else Kind.FILE
        identity = (status.st_dev, status.st_ino)
        return Seen(kind, bool(mount), mount.id if mount else _ROOT_MOUNT, identity, bool(mount and mount.readonly))

    def find(self, mount_id: int) -> Mount | None:
        return next((_line(mount) for mount in self.mounts if mount.id == mount_id), None)

    def below(self, directory: Path) -> list[Mount]:
        inside = [_line(mount) for mount in self.mounts if directory in mount.target.parents]
        return sorted(inside, key=lambda mount: len(mount.point.parts), reverse=True)

    def _start(self, verb: str, path: Path) -> Exception | None:
        """Record the call and fail if told so; returns the error to raise after the work."""
        self.calls.append((verb, path))
        if failures := self._failures.get(verb):
            error, late = failures.pop(0)
            if late:
                return error
            raise error
        return None


class FakeViews:
    """Views that are mounted in a FakeMounter; their upper layers are real directories."""

    def __init__(self, mounter: FakeMounter) -> None:
        self.mounter = mounter
        self.lowers: list[Path] = []
        self.limits: list[int] = []
        self.failure: Exception | None = None
        """What attaching a view raises."""

    @contextmanager
    def make(self, lower: Path, place: Path, limit: int) -> Iterator[FakeView]:
        assert lower.is_dir()
        (place / "upper").mkdir()
        self.lowers.append(lower)
        self.limits.append(limit)
        yield FakeView(self.mounter, place / "upper", self.failure)

    def clear(self, volumes: Path) -> None:
        for mount in self.mounter.below(volumes):
            self.mounter.unmount(mount.point)


class FakeView:
    """A view that shows only its upper layer."""

    def __init__(self, mounter: FakeMounter, upper: Path, failure: Exception | None) -> None:
        status = upper.stat()
        self.identity: Identity = (status.st_dev, status.st_ino)
        self._mounter = mounter
        self._upper = upper
        self._failure = failure

    def attach(self, target: Path) -> None:
        if self._failure:
            raise self._failure
        self._mounter.mount_foreign(self._upper, target, fstype="overlay")


def _line(mount: FakeMount) -> Mount:
    return Mount(mount.id, _ROOT_MOUNT, mount.source, mount.target, mount.fstype, "/dev/fake")
