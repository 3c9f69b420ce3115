"""OCI image layouts made by hand, so that a test decides every byte, and skopeo to push them.

Formats: OCI image-spec v1.1 (layout, index, manifest, config, descriptor).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

Descriptor = dict[str, object]
"""mediaType, digest, size, and whatever a test adds: platform, annotations."""

_TYPE = "application/vnd.oci.image."
INDEX, MANIFEST, CONFIG = f"{_TYPE}index.v1+json", f"{_TYPE}manifest.v1+json", f"{_TYPE}config.v1+json"
TAR, TAR_GZIP, TAR_ZSTD = f"{_TYPE}layer.v1.tar", f"{_TYPE}layer.v1.tar+gzip", f"{_TYPE}layer.v1.tar+zstd"


class Layout:
    """A directory in the OCI image layout format, with one tag."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs" / "sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, media_type: str, data: bytes) -> Descriptor:
        """Keep a blob; its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self.directory / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def json(self, media_type: str, value: object) -> Descriptor:
        """Keep a JSON document as a blob."""
        return self.blob(media_type, json.dumps(value).encode())

    def image(self, layers: Iterable[bytes], *, architecture: str = "amd64") -> Descriptor:
        """An image of layers, which are plain tar archives, stored with gzip."""
        layers = list(layers)
        ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
        packed = [self.blob(TAR_GZIP, gzip.compress(layer, mtime=0)) for layer in layers]
        return self.manifest(self.json(CONFIG, config), packed)

    def manifest(self, config: Descriptor, layers: Sequence[Descriptor]) -> Descriptor:
        """A manifest of blobs that are here already."""
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        return self.json(MANIFEST, document)

    def index(self, manifests: Mapping[str, Descriptor]) -> Descriptor:
        """One image for several architectures."""
        platforms = [
            {**manifest, "platform": {"architecture": architecture, "os": "linux"}}
            for architecture, manifest in manifests.items()
        ]
        return self.json(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": platforms})

    def tag(self, top: Descriptor) -> None:
        """Make this manifest or index what is pushed."""
        tagged = {**top, "annotations": {"org.opencontainers.image.ref.name": "pushed"}}
        document = {"schemaVersion": 2, "manifests": [tagged]}
        (self.directory / "index.json").write_text(json.dumps(document))

    def push(self, reference: str, *, user: str = "", password: str = "") -> None:
        """Copy what is tagged, with all architectures and unchanged, to `HOST:PORT/NAME:TAG` over plain HTTP."""
        credentials = ["--dest-creds", f"{user}:{password}"] if user else ["--dest-no-creds"]
        unchanged = ["--all", "--preserve-digests", "--dest-tls-verify=false"]
        command = ["skopeo", "--insecure-policy", "copy", "--quiet", *unchanged, *credentials]
        done = subprocess.run(
            [*command, f"oci:{self.directory}:pushed", f"docker://{reference}"],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


def layer(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of plain files; a name `.wh.NAME` is a whiteout (image-spec, layer.md)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
