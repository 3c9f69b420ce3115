"""What is the case on the disk, measured as any program can: by stat, by reading, and by trying to write."""

from __future__ import annotations

import errno
import filecmp
import os
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_BLOCK = 512  # unit of st_blocks (stat(2))


class Inode(NamedTuple):
    """What makes two names the same file (stat(2))."""

    device: int
    number: int


class Tree:
    """A directory tree as stat(2) shows it at one moment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries = {path.removeprefix(f"{root}/"): os.lstat(path) for path in walk(root)}

    @property
    def files(self) -> dict[str, os.stat_result]:
        """The regular files by their paths."""
        return {path: status for path, status in self.entries.items() if stat.S_ISREG(status.st_mode)}

    @property
    def bytes(self) -> int:
        """The content of all files."""
        return sum(status.st_size for status in self.files.values())

    def inodes(self) -> dict[str, Inode]:
        """Which inode each file is."""
        return {path: inode(status) for path, status in self.files.items()}


def walk(root: Path) -> Iterator[str]:
    """Everything below the root; no symlink is followed. Text, because there are hundreds of thousands."""
    for directory, directories, files in os.walk(root, onerror=_raise):
        yield from (f"{directory}/{name}" for name in [*directories, *files])


def inode(status: os.stat_result) -> Inode:
    """The identity of the file."""
    return Inode(status.st_dev, status.st_ino)


def disk(roots: Iterable[Path]) -> int:
    """Bytes of disk that the trees take together; what they share counts once, as in du(1)."""
    blocks = {inode(status): status.st_blocks for root in roots for status in map(os.lstat, walk(root))}
    return sum(blocks.values()) * _BLOCK


def names(root: Path) -> Counter[Inode]:
    """How many names each regular file has below `root`."""
    return Counter(inode(status) for status in map(os.lstat, walk(root)) if stat.S_ISREG(status.st_mode))


def difference(left: Tree, right: Tree) -> str:
    """The first thing in which the trees differ, empty when they are equal.

    Compared are names, types, contents byte by byte, symlink texts, and the mtimes of files.
    """
    if odd := sorted(set(left.entries) ^ set(right.entries)):
        return f"{odd[0]} is in one of them only"
    for path, status in left.entries.items():
        other = right.entries[path]
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(other.st_mode):
            return f"{path} has another type"
        if stat.S_ISREG(status.st_mode) and status.st_mtime_ns != other.st_mtime_ns:
            return f"{path} has another mtime"
        if not _same_content(left.root / path, right.root / path, status.st_mode):
            return f"{path} has another content"
    return ""


def _same_content(left: Path, right: Path, mode: int) -> bool:
    if stat.S_ISLNK(mode):
        return left.readlink() == right.readlink()
    return not stat.S_ISREG(mode) or filecmp.cmp(left, right, shallow=False)


def attempts(volume: Path, name: str) -> list[tuple[str, str]]:
    """Try to change the file `name` and its directory in every way there is; what was tried, and the error's name.

    An attempt that succeeds is "done": then the file is spoilt.
    """
    file = volume / name
    beside = file.with_name("goldlink-demo-attempt")
    tries: list[tuple[str, Callable[[], object]]] = [
        ("open it for writing", lambda: file.open("r+b").close()),
        ("truncate it", lambda: os.truncate(file, 0)),
        ("chmod 0777", lambda: file.chmod(0o777)),
        ("chown 0:0", lambda: os.chown(file, 0, 0)),
        ("set its times", lambda: os.utime(file)),
        ("rename it", lambda: file.rename(beside)),
        ("unlink it", file.unlink),
        ("hardlink it", lambda: beside.hardlink_to(file)),
        ("make a file beside it", lambda: beside.open("xb").close()),
        ("make a directory beside it", beside.mkdir),
    ]
    return [(what, _outcome(attempt)) for what, attempt in tries]


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def processes(word: str) -> list[str]:
    """The command lines of all processes that mention `word`."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        if word in line:
            found.append(line)
    return found


def _raise(error: OSError) -> None:
    raise error
