"""The `oci` source: an image's root filesystem, or the files of an artifact, from an OCI registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefetch import images
from cachefetch.errors import DataError
from cachefetch.sources import oci_cosign, oci_manifest, web
from cachefetch.sources.oci_layers import Layers
from cachefetch.sources.oci_manifest import Index, Layer, Manifest
from cachefetch.sources.oci_registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachefetch.config import Oci
    from cachefetch.sources.base import Known
    from cachefetch.stage import Stage

_NESTING_MAX = 4
"""Indexes within indexes; more than any tool writes."""


class OciSource:
    """One image. The digest that its name stands for decides whether anything changed."""

    def __init__(self, config: Oci, patience: Callable[[], web.Patience] = web.Patience) -> None:
        self._config = config
        self._patience = patience
        self._name = str(config.reference)

    def resolve(self, known: Known | None) -> OciSnapshot | None:
        """What the image holds now. No request at all when it is named by a digest that is known.

        Raises:
            SourceError: the registry cannot be reached or refuses.
            DataError: the image is damaged, not properly signed, or not made for the platform.
            ConfigError: a file that the configuration names cannot be used.
        """
        meta = known.meta if known else {}
        keys = oci_cosign.fingerprint(self._config.verify)
        before = meta.get("digest", "") if meta.get("keys") == keys else ""
        reference = self._config.reference
        if before and reference.digest == before:
            return None
        with Registry(self._config, self._patience) as registry:
            # HEAD costs nothing where pulls are counted, and what is asked for by digest is checked against it.
            wanted = reference.digest or registry.digest(reference.tag) or reference.tag
            if wanted == before:
                return None
            data, digest = registry.manifest(wanted)
            if digest == before:
                return None
            if self._config.verify:
                oci_cosign.check(registry, digest, self._config.verify, self._name)
            manifest, chosen = self._descend(registry, data, digest)
        if before and chosen == meta.get("manifest"):
            return None
        layers = oci_manifest.plan(manifest, self._config.layout, self._name)
        have = meta.get("layers", "").split()
        size = sum({layer.digest: layer.size for layer in layers if layer.digest not in have}.values())
        meta = {"digest": digest, "manifest": chosen, "keys": keys}
        return OciSnapshot(self._config, layers, size, meta, self._patience)

    def _descend(self, registry: Registry, data: bytes, digest: str) -> tuple[Manifest, str]:
        """The manifest for the platform and its digest, by way of indexes if there are any."""
        platform = self._config.platform
        wanted = images.parse_platform(platform) if platform else images.this_machine()
        for _ in range(_NESTING_MAX):
            document = oci_manifest.decode(data, self._name)
            if isinstance(document, Manifest):
                if platform and document.container:
                    config = registry.blob(document.config.digest, oci_manifest.MANIFEST_MAX)
                    oci_manifest.check_config(config, wanted, self._name)
                return document, digest
            assert isinstance(document, Index)
            data, digest = registry.manifest(oci_manifest.choose(document, wanted, self._name).digest)
        raise DataError(f"{self._name} has more than {_NESTING_MAX} indexes within each other: push a plain image")


class OciSnapshot:
    """One manifest: its layers never change."""

    def __init__(
        self,
        config: Oci,
        layers: list[Layer],
        size: int,
        meta: dict[str, str],
        patience: Callable[[], web.Patience],
    ) -> None:
        self._config = config
        self._layers = layers
        self._patience = patience
        self.size = size
        self.meta = {**meta, "layers": " ".join(layer.digest for layer in layers)}

    def fill(self, stage: Stage) -> None:
        """Download what is not known and stage it. What was downloaded stays in the stage's scratch when it fails.

        Raises:
            SourceError: the registry cannot be reached for longer than patience lasts.
            DataError: a layer is not what its digest says, or damaged.
            UnsafeEntry: a layer holds an entry that would escape, collide or exhaust.
        """
        with Registry(self._config, self._patience) as registry:
            files: dict[str, Path] = {}

            def fetch(layer: Layer) -> Path:
                if layer.digest not in files:
                    heard = (stage.arrived, stage.recalled)
                    files[layer.digest] = registry.download(layer.digest, layer.size, stage.scratch, *heard)
                return files[layer.digest]

            Layers(stage, fetch).fill(self._layers)
