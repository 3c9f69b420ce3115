"""The `huggingface` source: the files of one commit of a repository on the Hugging Face hub.

The revision is resolved to a commit first, and everything is read from that commit, so a version never mixes two
states. Every file is compared with what its commit says: large ones with the sha256 of git LFS, small ones with the id
of their git blob. A list says nothing of times, so all files have the same mtime on every node.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import closing
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from cachefetch.errors import DataError, SourceError
from cachefetch.sources import web
from cachefetch.sources.huggingface_client import GitBlob, Hub
from cachefetch.sources.window import ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cachefetch.content import Readable
    from cachefetch.sourceconfig import HuggingFace
    from cachefetch.sources.base import Known
    from cachefetch.sources.huggingface_client import HubFile
    from cachefetch.stage import Stage

_FILE_MODE = 0o444
_FILE_MTIME = 0
"""The time of a file's last commit would cost a request for each."""
_LARGE = 8 << 20
"""Bytes beyond which a file is read through a partial file, so that it can be resumed."""
_WIDTH = 8
"""Small files at once; so many may wait in memory."""


class HuggingFaceSource:
    """One repository at one revision."""

    def __init__(self, config: HuggingFace, patience: Callable[[], web.Patience] = web.Patience) -> None:
        self._config = config
        self._patience = patience

    def resolve(self, known: Known | None) -> HuggingFaceSnapshot | None:
        """The commit that the revision names now; None when it is the known one.

        Raises:
            ConfigError: a file that the configuration names cannot be used.
            SourceError: the hub cannot be reached or refuses, or nothing matches `allow`.
            DataError: it does not answer as a hub does.
        """
        with Hub(self._config, self._patience) as hub:
            commit = hub.commit()
            if known and known.meta.get("commit") == commit:
                return None
            size, empty = 0, True
            for file in wanted(hub.files(commit), self._config):
                empty = False
                if known is None or known.token(file.path) != file.token:
                    size += file.size
        if empty:
            raise SourceError(f"{self._config.repo} has no file to fetch in {commit}: correct `allow` and `ignore`")
        return HuggingFaceSnapshot(self._config, commit, size, self._patience)


class HuggingFaceSnapshot:
    """The files of a commit; `size` counts those that are not known from before."""

    def __init__(
        self, config: HuggingFace, commit: str, size: int, patience: Callable[[], web.Patience] = web.Patience
    ) -> None:
        self._config = config
        self._commit = commit
        self._patience = patience
        self.size = size
        self.meta = {"commit": commit}

    def fill(self, stage: Stage) -> None:
        """Stage the files: keep those whose content is known, read the others, several small ones at once.

        Raises:
            SourceError: the hub cannot be reached or refuses; parts of large files are kept.
            DataError: a file is not what its commit says.
            UnsafeEntry: a path would escape or collide.
        """
        with Hub(self._config, self._patience) as hub:

            def fetch(file: HubFile) -> bytes | None:
                """What a small file holds; a large one is read in its turn."""
                return None if file.size > _LARGE else hub.read(self._commit, file)

            fresh = (
                file
                for file in wanted(hub.files(self._commit), self._config)
                if not stage.keep(file.path, _FILE_MODE, _FILE_MTIME, file.token)
            )
            with closing(ahead(fetch, fresh, _WIDTH)) as fetched:
                for file, content in fetched:
                    if content is None:
                        self._stage_large(hub, file, stage)
                    else:
                        _stage_file(file, io.BytesIO(content), stage)

    def _stage_large(self, hub: Hub, file: HubFile, stage: Stage) -> None:
        # Complete files stay there as well until the version is published: a failure of a later one costs only that.
        place = stage.scratch / hashlib.sha256(file.path + b" " + file.token).hexdigest()[:32]
        place.mkdir(mode=0o700, exist_ok=True)
        with hub.download(self._commit, file, place) as download, hub.refusals():
            try:
                _stage_file(file, stage.resumed(download), stage)
            except DataError:
                download.discard()
                raise


def wanted(files: Iterable[HubFile], config: HuggingFace) -> Iterator[HubFile]:
    """The files that `allow` names and `ignore` does not, in the way of the hub's own tools."""
    for file in files:
        if (not config.allow or _matches(file.name, config.allow)) and not _matches(file.name, config.ignore):
            yield file


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern) for pattern in patterns)


def _stage_file(file: HubFile, content: Readable, stage: Stage) -> None:
    if not file.sha256:
        content = GitBlob(content, file)
    stage.file(
        file.path,
        _FILE_MODE,
        _FILE_MTIME,
        content,
        size=file.size,
        digest=file.sha256 or None,
        token=file.token,
    )
