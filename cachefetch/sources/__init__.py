"""The sources: one small class for each kind of origin. Nothing else in goldlink knows the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefetch.config import AnySource, Directory, Http, HuggingFace, ObjectStore

if TYPE_CHECKING:
    from cachefetch.sources.base import Source


def open_source(config: AnySource) -> Source:
    """The source that `config` describes. Nothing is read yet; a kind is imported when it is used."""
    if isinstance(config, Directory):
        from cachefetch.sources.directory import DirectorySource  # noqa: PLC0415  (late, see above)

        return DirectorySource(config)
    if isinstance(config, Http):
        from cachefetch.sources.http import HttpSource  # noqa: PLC0415  (late: httpx2 takes 0.2 s to import)

        return HttpSource(config)
    if isinstance(config, ObjectStore):
        from cachefetch.sources.objectstore import ObjectStoreSource  # noqa: PLC0415  (late: obstore takes 0.1 s)

        return ObjectStoreSource(config)
    if isinstance(config, HuggingFace):
        from cachefetch.sources.huggingface import HuggingFaceSource  # noqa: PLC0415  (late: httpx2, as above)

        return HuggingFaceSource(config)
    from cachefetch.sources.oci import OciSource  # noqa: PLC0415  (late: as above)

    return OciSource(config)
