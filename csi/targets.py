"""The target path: where kubelet wants a volume. What goldlink did not put there stays there and is not followed."""

from __future__ import annotations

import errno
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch.errors import Precondition
from csi.mount import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.mount import Mounter, Seen

Identity = tuple[int, int]
"""Device and inode of a private view's root. Each view is a file system, and so a device, of its own."""
Shown = Path | Identity
"""What a volume shows at its target: a directory of the store, read-only, or a private view."""

_STACKED_MOUNTS_MAX = 1000


class Targets:
    """Shows directories of the store at target paths, and takes them away."""

    def __init__(self, mounter: Mounter) -> None:
        self._mounter = mounter

    def shows(self, target: Path, shown: Shown | None) -> bool:
        """Whether that is mounted at `target`, a directory read-only. Constant time: no mount table is read.

        Raises:
            Precondition: a directory is mounted there, but writable.
        """
        seen = self._mounter.look(target)
        if not seen.mount_root or not self._same(seen, shown):
            return False
        if not seen.readonly and isinstance(shown, Path):
            raise Precondition(f"target {target} was remounted writable by somebody: unmount it, then try again")
        return True

    def mounted(self, target: Path) -> bool:
        """Whether anything is mounted at `target`. Constant time."""
        return self._mounter.look(target).mount_root

    def check_free(self, target: Path) -> None:
        """Return if a volume may be mounted at `target`: nothing is there, or an empty directory.

        Raises:
            Precondition: names what is in the way.
        """
        seen = self._mounter.look(target)
        if seen.mount_root:
            raise Precondition(
                f"target {target} has a foreign mount ({self._origin(seen)}): unmount it, then try again"
            )
        if seen.kind is Kind.MISSING:
            return
        if seen.kind is not Kind.DIRECTORY:
            raise Precondition(
                f"target {target} is a {seen.kind}, which goldlink did not make: remove it, then try again"
            )
        if foreign := next(target.iterdir(), None):
            raise Precondition(
                f"target {target} has {foreign.name!r} in it, which goldlink did not make: remove it, then try again"
            )

    def check_parent(self, target: Path) -> None:
        """Return if the directory is there in which the target has its place.

        Raises:
            Precondition: it is not.
        """
        if not target.parent.is_dir():
            raise Precondition(f"target {target} has no parent directory: the caller must make it (CSI)")

    def show(self, source: Path, target: Path) -> None:
        """Mount `source` read-only at `target`, which is free; nothing of it stays when that fails.

        Raises:
            Precondition: the parent of the target is missing, or the kernel refused the mount.
        """
        self.put(target, lambda place: self._mounter.bind_readonly(source, place))

    def put(self, target: Path, mount: Callable[[Path], None]) -> None:
        """Make the directory `target`, which is free, and let `mount` mount something there.

        Nothing of it stays when that fails.

        Raises:
            Precondition: the parent of the target is missing, or from `mount`.
        """
        self.check_parent(target)
        try:
            target.mkdir(mode=0o750)
            made = True
        except FileExistsError:
            made = False
        try:
            mount(target)
        except BaseException:
            if made:
                with suppress(OSError):  # what another program put there meanwhile stays
                    target.rmdir()
            raise

    def hide(self, target: Path, place: Path, shown: Shown | None) -> None:
        """Unmount everything at `target` that comes from below `place`, then remove the empty directory.

        `shown` is what should be mounted there; where it is, no mount table is read.

        Raises:
            Precondition: something foreign is there, or the mount is in use.
        """
        for _ in range(_STACKED_MOUNTS_MAX):
            seen = self._mounter.look(target)
            if not seen.mount_root:
                break
            if not self._same(seen, shown) and not self._is_from(seen, place):
                raise Precondition(f"target {target} has a foreign mount ({self._origin(seen)}): unmount it yourself")
            self._mounter.unmount(target)
        self._remove(target)

    def _remove(self, target: Path) -> None:
        """Never recursively: a mount that hides below would be emptied (kubernetes/kubernetes#72257)."""
        try:
            target.rmdir()
        except FileNotFoundError:
            pass
        except NotADirectoryError as error:
            raise Precondition(
                f"target {target} is no directory, goldlink did not make it: remove it yourself"
            ) from error
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EBUSY}:
                raise Precondition(
                    f"target {target} has files that goldlink did not make ({error.strerror}): remove them yourself"
                ) from error
            raise

    def _same(self, seen: Seen, shown: Shown | None) -> bool:
        identity = self._mounter.look(shown).identity if isinstance(shown, Path) else shown
        return seen.identity is not None and seen.identity == identity

    def _is_from(self, seen: Seen, place: Path) -> bool:
        """Whether the mount shows something below `place`, or what `place` was before it went to the trash.

        The table of mounts tells also when that was deleted meanwhile. A private view has the place as its source.
        """
        mount = self._mounter.find(seen.mount_id)
        if mount is None:
            return True
        if mount.fstype == "overlay" and Path(mount.source).parts[-2:] == (place.parent.name, place.name):
            return True
        parts = mount.root.parts
        return any(
            (above, name) == (place.parent.name, place.name)
            or (above == "trash" and name.partition("-")[2] == place.name[:100])
            for above, name in pairwise(parts)
        ) or any((a, b) == ("caches", "versions") for a, b in zip(parts, parts[2:], strict=False))

    def _origin(self, seen: Seen) -> str:
        mount = self._mounter.find(seen.mount_id)
        return f"{mount.fstype} from {mount.source}, {mount.root}" if mount else "gone meanwhile"
