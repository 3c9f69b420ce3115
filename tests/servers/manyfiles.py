"""Archives of very many small files, written without having them anywhere."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PER_DIRECTORY = 500


def write_archive(path: Path, files: int, *, mtime: int) -> None:
    """A tar.zst of so many files with a few bytes each, all different, of that time."""
    with (
        path.open("wb") as out,
        subprocess.Popen(["zstd", "-1", "-q", "-c"], stdin=subprocess.PIPE, stdout=out) as pack,
        tarfile.open(fileobj=pack.stdin, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=1 << 20) as archive,
    ):
        info = tarfile.TarInfo()
        info.mtime = mtime
        for number in range(files):
            content = b"%d\n" % number
            info.name = f"package-{number // PER_DIRECTORY:06}/module-{number:08}.js"
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert pack.returncode == 0
