"""The sources: one small class for each kind of origin. Nothing else in goldlink knows the network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cachefetch.config import AnySource, Directory, Http, HuggingFace, ObjectStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefetch.sources.base import Source


def open_source(config: AnySource, stopping: Callable[[], bool] = lambda: False) -> Source:
    """The source that `config` describes. Nothing is read yet; a kind is imported when it is used.

    It does not try again what failed once `stopping` says that the process ends.
    """
    if isinstance(config, Directory):
        from cachefetch.sources.directory import DirectorySource  # noqa: PLC0415  (late, see above)

        return DirectorySource(config)
    if isinstance(config, ObjectStore):
        from cachefetch.sources.objectstore import ObjectStoreSource  # noqa: PLC0415  (late: obstore takes 0.1 s)

        return ObjectStoreSource(config)
    from cachefetch.sources.web import Patience  # noqa: PLC0415  (late: httpx2 takes 0.2 s to import)

    patience = partial(Patience, stopping=stopping)
    if isinstance(config, Http):
        from cachefetch.sources.http import HttpSource  # noqa: PLC0415  (late: as above)

        return HttpSource(config, patience)
    if isinstance(config, HuggingFace):
        from cachefetch.sources.huggingface import HuggingFaceSource  # noqa: PLC0415  (late: as above)

        return HuggingFaceSource(config, patience)
    from cachefetch.sources.oci import OciSource  # noqa: PLC0415  (late: as above)

    return OciSource(config, patience)
