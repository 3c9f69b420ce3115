"""The registry alone: what skopeo pushes and pulls, who may, and what it counts."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.servers.faulty import CutOff
from tests.servers.images import CONFIG, TAR_ZSTD, Layout, layer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.registry import Registry

FILES = {"bin/tool": bytes(range(256)) * 4000, "etc/.wh.gone": b""}


@pytest.fixture(params=["registry", "token_registry"])
def either(request: pytest.FixtureRequest) -> Registry:
    server: Registry = request.getfixturevalue(request.param)
    return server


def pull(reference: str, directory: Path, login: str = "") -> subprocess.CompletedProcess[str]:
    """Pull the image by skopeo into a directory of plain blobs, named by their digests."""
    credentials = ["--src-creds", login] if login else ["--src-no-creds"]
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", *credentials]
    arguments = [*command, f"docker://{reference}", f"dir:{directory}"]
    return subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=60)


def blobs(layout: Layout, reference_digest: object) -> list[dict[str, object]]:
    """The descriptors of the layers of a manifest in a layout."""
    digest = str(reference_digest).removeprefix("sha256:")
    manifest = json.loads((layout.directory / "blobs" / "sha256" / digest).read_bytes())
    layers: list[dict[str, object]] = manifest["layers"]
    return layers


def test_an_image_comes_back_as_it_was_pushed_and_each_blob_is_counted_once(either: Registry, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    image = layout.image([layer(FILES), layer({"second": b"layer"})])
    layout.tag(image)
    reference = either.push(layout, "team/tools:v1")
    assert either.proxy.traffic.of() == []
    done = pull(reference, tmp_path / "pulled", f"{either.user}:{either.password}")
    assert done.returncode == 0, done.stderr
    for blob in blobs(layout, image["digest"]):
        name = str(blob["digest"]).removeprefix("sha256:")
        pulled = (tmp_path / "pulled" / name).read_bytes()
        assert pulled == (layout.directory / "blobs" / "sha256" / name).read_bytes()
        assert either.sent("team/tools", str(blob["digest"])) == blob["size"] == len(pulled)


def test_without_or_with_a_wrong_password_nothing_is_given(either: Registry, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image([layer(FILES)]))
    reference = either.push(layout, "team/tools:v1")
    for login in ("", f"{either.user}:wrong"):
        done = pull(reference, tmp_path / "pulled", login)
        assert done.returncode != 0
        assert "unauthorized" in done.stderr or "authentication required" in done.stderr
    assert either.proxy.traffic.sent("/v2/team/tools/blobs/") == 0


def test_a_public_repository_needs_a_token_but_no_password(token_registry: Registry, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image([layer(FILES)]))
    reference = token_registry.push(layout, "public/tools:v1")
    done = pull(reference, tmp_path / "pulled")
    assert done.returncode == 0, done.stderr
    assert token_registry.token_traffic
    (asked,) = token_registry.token_traffic.of("/token?")
    assert "scope=repository%3Apublic%2Ftools%3Apull" in asked.path


def test_a_token_that_has_expired_is_refused(token_registry: Registry, tmp_path: Path) -> None:
    """The registry grants a leeway of a minute, so these are older than that when they are given."""
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image([layer(FILES)]))
    reference = token_registry.push(layout, "public/tools:v1")
    assert token_registry.tokens
    token_registry.tokens.lifetime = -120
    assert pull(reference, tmp_path / "pulled").returncode != 0
    refused = [exchange.status for exchange in token_registry.proxy.traffic.of("/v2/public/")]
    assert refused
    assert set(refused) == {401}


def test_each_architecture_gets_its_image(registry: Registry, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    images = {name: layout.image([layer({"name": name.encode()})], architecture=name) for name in ("amd64", "arm64")}
    layout.tag(layout.index(images))
    reference = registry.push(layout, "team/tools:v1")
    command = ["skopeo", "--override-arch", "arm64", "inspect", "--config", "--tls-verify=false"]
    login = ["--creds", f"{registry.user}:{registry.password}"]
    done = subprocess.run([*command, *login, f"docker://{reference}"], check=True, capture_output=True, timeout=60)
    assert json.loads(done.stdout)["architecture"] == "arm64"


def test_layers_of_other_kinds_keep_their_type_and_digest(registry: Registry, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    packed = layout.blob(TAR_ZSTD, b"not looked at by the registry")
    rootfs = {"type": "layers", "diff_ids": [packed["digest"]]}
    layout.tag(
        layout.manifest(layout.json(CONFIG, {"architecture": "amd64", "os": "linux", "rootfs": rootfs}), [packed])
    )
    reference = registry.push(layout, "team/other:v1")
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", f"{registry.user}:{registry.password}"]
    done = subprocess.run([*command, f"docker://{reference}"], check=True, capture_output=True, timeout=60)
    assert json.loads(done.stdout)["layers"] == [packed]


def test_a_blob_is_cut_off_on_request(registry: Registry, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    image = layout.image([layer(FILES)])
    layout.tag(image)
    reference = registry.push(layout, "team/tools:v1")
    (blob,) = blobs(layout, image["digest"])
    registry.proxy.inject(CutOff(after=10), path=f"/v2/team/tools/blobs/{blob['digest']}")
    assert pull(reference, tmp_path / "pulled", f"{registry.user}:{registry.password}").returncode != 0
    cut = registry.proxy.traffic.of(f"/v2/team/tools/blobs/{blob['digest']}")
    assert cut
    assert all(exchange.sent == 10 for exchange in cut)
