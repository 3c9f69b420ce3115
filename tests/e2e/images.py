"""Container images made by hand: one layer, no registry.

The layout is that of the OCI image specification ("Image Layout", "Image Configuration"), packed as `ctr images import`
reads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
_MEDIA = "application/vnd.oci.image"
BUSYBOX = Path("/bin/busybox")
"""Debian's busybox-static."""


@dataclass(frozen=True)
class Image:
    """What goes into an image."""

    names: tuple[str, ...]
    """References, as pods write them."""
    files: dict[str, Path] = field(default_factory=dict)
    """Executables: where in the image, from which file."""
    links: dict[str, str] = field(default_factory=dict)
    """Symlinks: where in the image, to what."""
    config: dict[str, Any] = field(default_factory=dict)
    """Entrypoint, Cmd, User and so on, in the words of the specification."""

    def write(self, archive: Path) -> None:
        """Write the image as an archive for `ctr images import`."""
        layer = _layer(self.files, self.links)
        config = _json(
            {
                "architecture": _ARCHITECTURE[platform.machine()],
                "os": "linux",
                "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], **self.config},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": f"{_MEDIA}.manifest.v1+json",
                "config": _descriptor(f"{_MEDIA}.config.v1+json", config),
                "layers": [_descriptor(f"{_MEDIA}.layer.v1.tar", layer)],
            }
        )
        named = [
            {
                **_descriptor(f"{_MEDIA}.manifest.v1+json", manifest),
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
            }
            for name in self.names
        ]
        with tarfile.open(archive, "w") as tar:
            _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": named}))
            for blob in (layer, config, manifest):
                _add(tar, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob)


def pause() -> Image:
    """What holds the namespaces of a pod."""
    command = ["/bin/busybox", "sleep", "2147483647"]
    names = ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10.1")
    return Image(names, {"bin/busybox": BUSYBOX}, config={"Entrypoint": command})


def busybox() -> Image:
    """A shell with the usual tools.

    It also stands in for images that tests of Kubernetes (test/utils/image/manifest.go) take where any shell does.
    """
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    stands_for = ("busybox:1.37.0-1", "nginx:1.14-4", "nginx:1.15-4", "jessie-dnsutils:1.7")
    names = tuple(f"registry.k8s.io/e2e-test-images/{name}" for name in stands_for)
    links = {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
    return Image(names, {"bin/busybox": BUSYBOX}, links, {"Cmd": ["sh"]})


def agnhost(program: Path) -> Image:
    """The Swiss army knife of the tests of Kubernetes."""
    name = "registry.k8s.io/e2e-test-images/agnhost:2.56"
    shell = busybox()
    return Image((name,), {"agnhost": program, **shell.files}, shell.links, {"Entrypoint": ["/agnhost"]})


def command(name: str, program: Path) -> Image:
    """An image with nothing but one static program, as the sidecars' own are."""
    return Image((name,), {program.name: program}, config={"Entrypoint": [f"/{program.name}"], "User": "65532:65532"})


def _layer(files: dict[str, Path], links: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in _directories(files, links).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\nnobody:x:65534:\n")
        for name, source in files.items():
            _add(tar, name, source.read_bytes(), mode=0o755)
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


def _directories(files: dict[str, Path], links: dict[str, str]) -> dict[str, int]:
    """The usual ones and every parent, with their modes."""
    usual = ("dev", "etc", "home", "mnt", "proc", "root", "sys", "usr", "usr/bin", "var")
    parents = {str(parent) for name in (*files, *links) for parent in Path(name).parents if parent != Path()}
    return {**dict.fromkeys(sorted({*usual, *parents}), 0o755), "tmp": 0o1777}


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
