"""A version being built in a private directory, entry by entry, until it is sealed.

A stage is where untrusted content becomes files. Every path is checked, every directory is opened component by
component without following symlinks, every file is created exclusively, so no entry can leave the tree, pass through
a symlink, or replace another. Owners, modes and times are set to what the manifest says (`model.normal_mode`),
content is hashed while it streams, and bytes, entries and free space are bounded.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachefetch import durable, manifest, verify
from cachefetch.content import Measured, Resumed
from cachefetch.errors import DataError, UnsafeEntry
from cachefetch.growing import Growing
from cachefetch.limits import Budget, Limits
from cachefetch.linktree import Linker
from cachefetch.logs import fields
from cachefetch.model import Entry, EntryType, Totals, golden_owner, normal_mode, normal_mtime
from cachefetch.paths import check_entry_path, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cachefetch.content import Readable, Recalling
    from cachefetch.index import Index

_log = logging.getLogger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_WORTH_A_THREAD = 1 << 18
"""Bytes of a piece that is hashed and written at the same time, on two processors; smaller ones are not worth it."""
_OPEN_DIRECTORIES = 64
_UNKNOWN_MTIME = 0  # of directories that the source does not list: the same on every node


@dataclass(frozen=True)
class Previous:
    """The version before, whose unchanged files are linked rather than fetched."""

    tree: Path
    manifest: Path
    index: Index | None
    """What the source said then; None when that is not known."""


@dataclass(frozen=True)
class Sealed:
    """A complete version that only needs its rename into place."""

    directory: Path
    """Holds `manifest` and `tree/`."""
    id: str
    totals: Totals


class Stage:
    """Takes the entries of one version, in any order, parents before children or not at all."""

    def __init__(
        self,
        directory: Path,
        scratch: Path,
        index: Index,
        *,
        previous: Previous | None = None,
        limits: Limits | None = None,
        on_bytes: Callable[[int], None] = lambda _count: None,
        on_recalled: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """Build in `directory`, which exists and is empty.

        `scratch` is a directory that outlives a failure: sources keep partial downloads there. `on_bytes` hears how
        many bytes of content arrived, `on_recalled` how many were in such a download already.
        """
        self.place = directory
        self.scratch = scratch
        self.index = index
        self.linker = Linker()
        self._previous = previous
        self._on_bytes = on_bytes
        self._on_recalled = on_recalled
        self._ahead = 0
        self._measures = False
        self._hashing = ThreadPoolExecutor(1, "hashing")  # which starts its thread when it gets work
        (directory / "tree").mkdir()
        self._root = os.open(directory / "tree", _DIRECTORY)
        # Neither the umask nor a set-group-id bit, which everything below would inherit (mkdir(2)), may get in here.
        os.fchown(self._root, *golden_owner())
        os.fchmod(self._root, normal_mode(EntryType.DIRECTORY, 0))
        self._budget = Budget(limits or Limits(), self._root)
        self._open: dict[bytes, int] = {}
        self._previous_root = os.open(previous.tree, _DIRECTORY) if previous else -1

    def close(self) -> None:
        """Give back the open directories; the stage takes no more entries."""
        fds = [*self._open.values(), self._root, self._previous_root]
        self._open.clear()
        self._root = self._previous_root = -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        self._hashing.shutdown()

    @property
    def before(self) -> Index | None:
        """What the source said about the version before, whose files `keep` takes; None when that is not known."""
        return self._previous.index if self._previous else None

    def arrived(self, count: int) -> None:
        """So many bytes of content are in `scratch`: heard now, and not again when they are staged from there."""
        self._ahead += count
        self._on_bytes(count)

    def recalled(self, count: int) -> None:
        """As `arrived`, of bytes that an earlier try has left in `scratch`."""
        self._ahead += count
        self._on_recalled(count)

    def measured(self, content: Recalling) -> Readable:
        """`content`, whose reading is heard instead of what is staged: an archive is announced as large as it is."""
        self._measures = True
        return Measured(self.resumed(content), self._heard)

    def resumed(self, content: Recalling) -> Readable:
        """`content`, of which may have been `recalled` what it says."""
        return Resumed(content, self.recalled)

    def directory(self, path: bytes, mtime_ns: int, token: bytes = b"") -> None:
        """A directory; it may be there already, made for an entry below it."""
        check_entry_path(path)
        parent, name = self._parent(path)
        self._budget.entry()
        with _refusals(path):
            if not self._make_directory(name, parent) and not _is_directory(name, parent):
                raise UnsafeEntry(f"entry {show(path)} is refused: another entry has that path")
        self.index.put(_directory(path, mtime_ns), token)

    def file(
        self,
        path: bytes,
        mode: int,
        mtime_ns: int,
        content: Readable,
        *,
        size: int | None = None,
        digest: str | None = None,
        token: bytes = b"",
    ) -> None:
        """A file with the bytes of `content`, compared with `size` and `digest` (sha256, hex) where they are known.

        Raises:
            DataError: size or digest differ.
        """
        check_entry_path(path)
        parent, name = self._parent(path)
        self._budget.entry()
        mode, mtime_ns = normal_mode(EntryType.FILE, mode), normal_mtime(mtime_ns)
        with _refusals(path):
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            written, found = self._pour(content, Growing(fd, announced=size, write_back=True), path)
            _compare(path, (size, written), (digest, found))
            os.fchmod(fd, mode)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(fd)
        self.index.put(Entry(path, EntryType.FILE, mode, mtime_ns, written, found), token)

    def symlink(self, path: bytes, target: bytes, mtime_ns: int, token: bytes = b"") -> None:
        """A symlink with `target` as its text, whatever that is: it is never followed by goldlink."""
        check_entry_path(path)
        if not target or b"\0" in target:
            raise UnsafeEntry(f"entry {show(path)} is refused: {show(target)} cannot be the text of a symlink")
        mtime_ns = normal_mtime(mtime_ns)
        parent, name = self._parent(path)
        self._budget.entry()
        with _refusals(path):
            os.symlink(target, name, dir_fd=parent)
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
        entry = Entry(path, EntryType.SYMLINK, normal_mode(EntryType.SYMLINK, 0), mtime_ns, target=target)
        self.index.put(entry, token)

    def copy(self, path: bytes, original: bytes, mode: int, mtime_ns: int, token: bytes = b"") -> None:
        """A plain file with the content of `original`, an earlier file of this stage: what a hardlink becomes."""
        known = self.index.find(original)
        if known is None or known.entry.type is not EntryType.FILE:
            raise UnsafeEntry(f"entry {show(path)} is refused: it links to {show(original)}, no earlier file")
        parent, name = self._parent(original)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        with os.fdopen(fd, "rb", buffering=0) as content:
            self.file(path, mode, mtime_ns, content, token=token)

    def keep(self, path: bytes, mode: int, mtime_ns: int, token: bytes) -> bool:
        """Take the file from the previous version if the source said `token` about it then; False: fetch it."""
        if self._previous is None or self._previous.index is None or not token:
            return False
        known = self._previous.index.find(path)
        if known is None or known.token != token or known.entry.type is not EntryType.FILE:
            return False
        entry = known.entry
        if (normal_mode(EntryType.FILE, mode), normal_mtime(mtime_ns)) != (entry.mode, entry.mtime_ns):
            return False
        if verify.difference(entry, self._previous_root):
            return False
        check_entry_path(path)
        parent, name = self._parent(path)
        self._budget.entry()
        self._budget.content(entry.size, path)
        with _refusals(path):
            self.linker.link(path, self._previous_root, name, parent)
        self.index.put(entry, token, kept=True)
        return True

    def seal(self) -> Sealed:
        """Finish the version: share what is equal with the one before, set directory times, write the manifest."""
        self._reunite()
        for entry in self.index.directories():
            os.utime(entry.path, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=self._root, follow_symlinks=False)
        os.utime(self._root, ns=(_UNKNOWN_MTIME, _UNKNOWN_MTIME))
        totals = self.index.totals()
        path = self.place / "manifest"
        with path.open("xb") as file:
            version_id = manifest.write(self.index.entries(), totals, file)
        path.chmod(0o444)
        self._forget_downloads()
        durable.sync_filesystem(self.place)
        return Sealed(self.place, version_id, totals)

    def _forget_downloads(self) -> None:
        """Everything that was downloaded is staged, so it need not reach the disk: the sync would wait for it."""
        for directory, _, names in os.walk(self.scratch):
            for name in names:
                os.unlink(os.path.join(directory, name))  # noqa: PTH108, PTH118  (as the walk gives them)

    def _reunite(self) -> None:
        """Replace files that turned out equal to the previous version's (path, content, mode, mtime) by links.

        Sharing saves space only, so damage of the previous version, which `verify` names, just ends it.
        """
        if self._previous is None:
            return
        outside = os.open(self.place, _DIRECTORY)
        try:
            for entry in manifest.common(self.index.fresh_files(), manifest.read(self._previous.manifest)):
                if not verify.difference(entry, self._previous_root):
                    parent, name = self._parent(entry.path)
                    self.linker.link(entry.path, self._previous_root, "twin", outside)
                    os.rename("twin", name, src_dir_fd=outside, dst_dir_fd=parent)
        except (DataError, FileNotFoundError) as error:
            _log.warning("previous version", extra=fields(manifest=self._previous.manifest, error=str(error)))
        finally:
            os.close(outside)

    def _pour(self, content: Readable, file: Growing, path: bytes) -> tuple[int, str]:
        sha256 = hashlib.sha256()
        while chunk := content.read(_CHUNK):
            self._budget.content(len(chunk), path)
            if len(chunk) < _WORTH_A_THREAD:
                sha256.update(chunk)
                file.append(chunk)
            else:
                hashed = self._hashing.submit(sha256.update, chunk)
                file.append(chunk)
                hashed.result()
            self._heard(0 if self._measures else len(chunk))
        file.trim()
        return file.size, sha256.hexdigest()

    def _heard(self, count: int) -> None:
        """So many bytes more, of which some were heard already."""
        known = min(self._ahead, count)
        self._ahead -= known
        self._on_bytes(count - known)  # also when that is nothing: whoever listens may end the fetch

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        """The open directory that holds `path`, made when missing, and the last component."""
        head, _, name = path.rpartition(b"/")
        fd = self._open.pop(head, -1) if head else self._root
        if fd < 0:
            fd = self._descend(head, path)
        elif head:
            self._open[head] = fd  # last in the order of the dict: the most recently used
        return fd, name

    def _descend(self, path: bytes, entry: bytes) -> int:
        """Open the directory `path`, which is made when missing, from its nearest open ancestor, for `entry`."""
        missing: list[bytes] = []
        while path and path not in self._open:
            path, _, name = path.rpartition(b"/")
            missing.append(name)
        fd = self._open[path] if path else self._root
        for name in reversed(missing):
            path = path + b"/" + name if path else name
            with _refusals(entry):
                if self._make_directory(name, fd):
                    self._budget.entry()
                    self.index.put(_directory(path, _UNKNOWN_MTIME))
                fd = self._open[path] = os.open(name, _DIRECTORY, dir_fd=fd)
            if len(self._open) > _OPEN_DIRECTORIES:
                os.close(self._open.pop(next(iter(self._open))))
        return fd

    def _make_directory(self, name: bytes, parent: int) -> bool:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            return False
        os.chmod(name, normal_mode(EntryType.DIRECTORY, 0), dir_fd=parent)  # whatever the umask
        return True


def _directory(path: bytes, mtime_ns: int) -> Entry:
    return Entry(path, EntryType.DIRECTORY, normal_mode(EntryType.DIRECTORY, 0), normal_mtime(mtime_ns))


def _is_directory(name: bytes, parent: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _compare(path: bytes, sizes: tuple[int | None, int], digests: tuple[str | None, str]) -> None:
    """Refuse content that is not as announced; each pair is what was announced, if it was, and what came."""
    if sizes[0] not in {None, sizes[1]}:
        raise DataError(f"file {show(path)} has {sizes[1]} bytes, announced were {sizes[0]}: the origin is damaged")
    if digests[0] not in {None, digests[1]}:
        raise DataError(
            f"file {show(path)} has digest sha256:{digests[1]}, expected was sha256:{digests[0]}: the origin is damaged"
        )


_REFUSALS = {
    errno.EEXIST: "another entry has that path",
    errno.ENOTDIR: "an entry above it is a file or a symlink",
    errno.ELOOP: "an entry above it is a symlink",
    errno.ENAMETOOLONG: "its path or its text is too long",
    errno.EINVAL: "the file system does not take its name",
}


@contextmanager
def _refusals(path: bytes) -> Iterator[None]:
    """What the file system says against an entry's path is the entry's fault."""
    try:
        yield
    except OSError as error:
        reason = _REFUSALS.get(error.errno or 0)
        if reason is None:
            raise
        raise UnsafeEntry(f"entry {show(path)} is refused: {reason}") from error
