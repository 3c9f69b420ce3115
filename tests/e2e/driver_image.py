"""The image that people would run, built from the Dockerfile as it is.

Its base is made by debootstrap, because a machine that runs tests need not reach an image registry. Everything that can
be used again stays below the user's cache directory; a build after a change of the code takes seconds.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "localhost/goldlink:test"
_BASE = "localhost/goldlink-base:bookworm"
_SUITE = "bookworm"  # from the mirror that debootstrap itself knows
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "goldlink" / "e2e" / "images"


def build(archive: Path, source: Path = ROOT, name: str = NAME) -> None:
    """Write the driver's image, from the checkout `source`, as an archive for `Cluster.import_image`."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE.parent / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _buildah("images", "--quiet", "--filter", f"reference={_BASE}"):
            _make_base()
        options = ["--isolation=chroot", "--network=host", f"--build-arg=BASE={_BASE}", *_host_settings()]
        _buildah("build", "--quiet", "--layers", *options, f"--tag={name}", str(source))
        archive.unlink(missing_ok=True)
        _buildah("push", "--quiet", "--disable-compression", name, f"oci-archive:{archive}:{name}")


def sizes() -> tuple[int, int]:
    """Bytes of the image, and of the base in it, as buildah rounds them."""
    image, base = (_bytes(_buildah("images", "--format={{.Size}}", name)) for name in (NAME, _BASE))
    return image, base


def _bytes(text: str) -> int:
    number, unit = text.split()
    return int(float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()])


def _make_base() -> None:
    with tempfile.TemporaryDirectory(dir=_CACHE.parent) as directory:
        # with certificates, so that no build step writes where those of the host are mounted
        _run("debootstrap", "--variant=minbase", "--include=ca-certificates", _SUITE, directory)
        container = _buildah("from", "scratch")
        _buildah("add", "--quiet", container, directory, "/")
        _buildah("commit", "--quiet", "--rm", container, _BASE)


def _host_settings() -> Iterator[str]:
    """How this machine reaches package indexes, which is no business of the Dockerfile."""
    for path in ("/etc/pip.conf", "/etc/ssl/certs"):
        if Path(path).exists():
            yield f"--volume={path}:{path}:ro"


def _buildah(*arguments: str) -> str:
    return _run("buildah", f"--root={_CACHE}", f"--runroot={_CACHE.parent}/images-run", *arguments)


def _run(*command: str) -> str:
    result = subprocess.run(["nice", *command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}:\n{result.stdout}{result.stderr}"
    return result.stdout.strip()
