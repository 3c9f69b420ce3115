"""One download that is an archive or a file: unpacked while it arrives, or, when it is signed, after it was checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from cachefetch.content import Readable, Recalling
from cachefetch.errors import DataError, UnsafeEntry
from cachefetch.sources.archive import unpack_tar, unpack_zip
from cachefetch.urls import Format

if TYPE_CHECKING:
    from pathlib import Path

    from cachefetch.sources.minisign import Proof
    from cachefetch.stage import Stage

_FILE_MODE = 0o444
_CHUNK = 1 << 20


class Arriving(Recalling, Protocol):
    """A download. What has arrived is also in a file, which is complete at the end."""

    @property
    def path(self) -> Path:
        """That file."""
        ...

    def finish(self) -> None:
        """Read what is left and compare it with what is known of it."""
        ...

    def discard(self) -> None:
        """Throw away what arrived: it is of no use for another try."""
        ...


class Single(NamedTuple):
    """What the download is."""

    kind: Format
    name: bytes
    """What a file is called; an archive's entries have names of their own."""
    mtime_ns: int
    """Of a file."""


def stage_single(download: Arriving, what: Single, stage: Stage, proof: Proof | None = None) -> None:
    """Put the file, or what the archive holds, into `stage`.

    Raises:
        DataError: length, digest, signature or archive are wrong; what was downloaded is thrown away.
        UnsafeEntry: the archive holds an entry that would escape, collide or exhaust.
        SourceError: as the download says.
    """
    try:
        content = stage.measured(download)
        if proof is None and what.kind is not Format.ZIP:
            _stage(content, what, stage)
        else:
            while content.read(_CHUNK):
                pass
            download.finish()
            if proof is not None:
                proof.check(download.path)
            with download.path.open("rb") as file:
                if what.kind is Format.ZIP:
                    unpack_zip(file, stage)
                else:
                    _stage(file, what, stage)
        download.finish()
    except UnsafeEntry:  # the bytes are what the origin has; fetching them again would change nothing
        raise
    except DataError:
        download.discard()
        raise


def _stage(content: Readable, what: Single, stage: Stage) -> None:
    if what.kind is Format.FILE:
        stage.file(what.name, _FILE_MODE, what.mtime_ns, content)
    else:
        unpack_tar(content, what.kind, stage)
