"""The programs that make and mend file systems, run so that they end with this process and explain themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

from cachefetch.errors import Busy, OutOfSpace, Precondition
from csi.disks.errors import ToolFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import IO

    from csi.disks.jobs import Task

PACKAGES = {
    "mkfs.erofs": "erofs-utils",
    **dict.fromkeys(("mkfs.ext4", "debugfs", "e2fsck", "resize2fs"), "e2fsprogs"),
}
"""Debian's package of each program."""
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_LOOK = 0.2  # seconds between looks whether to stop
_WORDS = 500  # bytes of a program's own words in an error

_E2FSCK_CORRECTED = 1
_UUID = "00000000-0000-0000-0000-000000000000"
_LATEST = str(2**64 - 2)  # mkfs.erofs refuses 2^64-1


def check_tools(packages: Mapping[str, str] = PACKAGES) -> None:
    """Return if every program of the packages is installed.

    Raises:
        Precondition: names one that is not, and its package.
    """
    for program, package in packages.items():
        if _find(program) is None:
            raise Precondition(f"program {program} is missing: install the package {package}")


def make_ext4(image: Path, task: Task) -> None:
    """Make an empty ext4 in the file, which has its size. All of it is for its user; inode tables are made lazily.

    Everybody may write to its root directory (inode 2): who has the disk may be any user.
    """
    options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    _run(("mkfs.ext4", "-q", "-F", "-m", "0", "-E", options, image), task)
    _run(("debugfs", "-w", "-R", "set_inode_field <2> mode 040777", image), task)


def make_scratch_ext4(image: Path, task: Task) -> None:
    """Make an empty ext4 in the file that is thrown away and never repaired: no journal, an inode for each 8 KiB.

    After an error it can only be read: what its user wrote may not be there.
    """
    features = ("-O", "^has_journal,^resize_inode", "-i", "8192", "-e", "remount-ro")
    _run(("mkfs.ext4", "-q", "-F", "-m", "0", *features, "-E", "lazy_itable_init=1,nodiscard", image), task)


def mend_ext4(image: Path, task: Task) -> None:
    """Replay the journal of the file and repair what can be repaired safely (e2fsck(8), `-p`).

    Raises:
        Precondition: it needs a person.
    """
    status, words = _status(("e2fsck", "-f", "-p", image), task)
    if status > _E2FSCK_CORRECTED:
        raise Precondition(f"the file system of {image} is damaged ({words}): mount the disk, save what is left of it")


def grow_ext4(image: Path, task: Task) -> None:
    """Let the file system, which `mend_ext4` has just checked, be as large as its file. Not to be interrupted."""
    _run(("resize2fs", image), task)


def make_erofs(tree: Path, image: Path, task: Task) -> None:
    """Make an EROFS image of the tree: the same tree and program give the same bytes.

    mkfs.erofs clamps mtimes to SOURCE_DATE_EPOCH, compared as unsigned numbers, so the largest one keeps all, also
    those before 1970. `-x-1` leaves extended attributes out: a manifest has none.
    """
    command = ("mkfs.erofs", "--quiet", "-x-1", "--all-root", "-U", _UUID, image, tree)
    _run(command, task, {"SOURCE_DATE_EPOCH": _LATEST})


def _run(command: Sequence[str | Path], task: Task, environment: Mapping[str, str] | None = None) -> None:
    status, words = _status(command, task, environment)
    if status:
        raise ToolFailed(f"{command[0]} ended with status {status} ({words}): see its manual page")


def _status(command: Sequence[str | Path], task: Task, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit status and words of the program.

    Raises:
        Busy: the process stops; the program was ended.
        OutOfSpace: it says that no space is left.
    """
    program = _find(str(command[0]))
    if program is None:
        raise Precondition(f"program {command[0]} is missing: install the package {PACKAGES[str(command[0])]}")
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - fixed programs, paths made by us
            (program, *command[1:]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
        )
        try:
            status = _wait(process, task)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        words = _words(output)
    if status and "No space left" in words:
        raise OutOfSpace(f"no space left for {command[0]}: free some in the disk directory")
    return status, words


def _wait(process: subprocess.Popen[bytes], task: Task) -> int:
    while True:
        try:
            return process.wait(_LOOK)
        except subprocess.TimeoutExpired:
            if task.stopping.is_set():
                raise Busy("the driver stops: the call is repeated when it is back") from None


def _words(output: IO[bytes]) -> str:
    output.seek(0)
    return " ".join(output.read().decode("utf-8", "replace").split())[:_WORDS] or "it said nothing"


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
