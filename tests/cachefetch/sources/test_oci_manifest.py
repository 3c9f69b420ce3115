from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.config import ImageLayout
from cachefetch.errors import DataError
from cachefetch.images import Platform
from cachefetch.sources.oci_manifest import Index, Layer, Made, Manifest, check_config, choose, decode, plan

DIGEST = "sha256:" + "0a" * 32
OTHER = "sha256:" + "0b" * 32
OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
AMD64 = Platform("linux", "amd64")


def blob(media_type: str = "", digest: str = DIGEST, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": 5, **more}


def image(*layers: dict[str, Any], config: str = f"{OCI}config.v1+json") -> Manifest:
    document = {"schemaVersion": 2, "config": blob(config), "layers": layers}
    found = decode(json.dumps(document).encode(), "it")
    assert isinstance(found, Manifest)
    return found


def index(*platforms: str | None) -> Index:
    manifests = []
    for number, platform in enumerate(platforms):
        entry = blob(f"{OCI}manifest.v1+json", f"sha256:{number:064x}")
        if platform is not None:
            system, architecture, *variant = platform.split("/")
            entry["platform"] = {"os": system, "architecture": architecture, "os.version": "1"}
            if variant:
                entry["platform"]["variant"] = variant[0]
        manifests.append(entry)
    found = decode(json.dumps({"schemaVersion": 2, "manifests": manifests}).encode(), "it")
    assert isinstance(found, Index)
    return found


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "no proper manifest"),
        (b"[]", "no proper manifest"),
        (b"{}", "no proper manifest"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1"),
        (b'{"schemaVersion": 2}', "neither an image nor an index"),
        (b'{"schemaVersion": 2, "layers": []}', "without `config`"),
    ],
)
def test_what_is_no_manifest_is_refused(document: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=f"^it has .*{reason}"):
        decode(document, "it")


def test_a_document_that_is_both_image_and_index_is_refused() -> None:
    """Two readers would see two images (CVE-2021-41190)."""
    both = {"schemaVersion": 2, "manifests": [], "config": blob(), "layers": []}
    with pytest.raises(DataError, match="neither an image nor an index"):
        decode(json.dumps(both).encode(), "it")


@pytest.mark.parametrize("digest", ["", "sha256:0a", "sha512:" + "0a" * 64, DIGEST.upper(), "sha256:" + "/" * 64])
def test_a_digest_that_could_not_be_checked_is_refused(digest: str) -> None:
    with pytest.raises(DataError, match="no proper manifest"):
        image(blob(f"{OCI}layer.v1.tar", digest))


def test_sizes_below_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no proper manifest"):
        image({"mediaType": f"{OCI}layer.v1.tar", "digest": DIGEST, "size": -1})


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["schemaVersion", "layers", "config", "manifests", "digest"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused(document: object) -> None:
    try:
        decode(json.dumps(document).encode(), "it")
    except DataError as error:
        assert str(error).startswith("it has ")


@pytest.mark.parametrize(
    ("there", "wanted", "number"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["linux/arm64/v8", "linux/amd64"], "linux/arm64", 0),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm", 1),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", 0),
        (["windows/amd64", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64", "linux/amd64/v3"], "linux/amd64", 0),
        (["unknown/unknown", "linux/amd64"], "linux/amd64", 1),
        ([None], "linux/amd64", 0),
        ([None, "linux/amd64"], "linux/amd64", 1),
        (["linux/arm64", None, None], "linux/amd64", 1),
    ],
)
def test_each_platform_gets_its_manifest(there: list[str | None], wanted: str, number: int) -> None:
    system, architecture, *variant = wanted.split("/")
    chosen = choose(index(*there), Platform(system, architecture, *variant), "it")
    assert int(chosen.digest.removeprefix("sha256:"), 16) == number


def test_a_platform_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(DataError, match=r"^it is not made for linux/amd64 but for linux/arm/v6, linux/arm64: set"):
        choose(index("linux/arm64", "linux/arm/v6", "unknown/unknown"), AMD64, "it")
    with pytest.raises(DataError, match="but for nothing"):
        choose(index(), AMD64, "it")


def test_a_configuration_tells_the_platform() -> None:
    check_config(b'{"os": "linux", "architecture": "amd64", "config": {}}', AMD64, "it")
    for wrong in (b'{"os": "linux", "architecture": "arm64"}', b"{}", b"x"):
        with pytest.raises(DataError, match=r"^it "):
            check_config(wrong, AMD64, "it")


TITLE = "org.opencontainers.image.title"


@pytest.mark.parametrize(
    "media_type",
    [
        f"{OCI}layer.v1.tar",
        f"{OCI}layer.v1.tar+gzip",
        f"{OCI}layer.v1.tar+zstd",
        f"{OCI}layer.nondistributable.v1.tar+gzip",
        f"{DOCKER}image.rootfs.diff.tar.gzip",
        f"{DOCKER}image.rootfs.diff.tar.zstd",
        f"{DOCKER}image.rootfs.diff.tar",
    ],
)
@pytest.mark.parametrize("config", [f"{OCI}config.v1+json", f"{DOCKER}container.image.v1+json"])
def test_layers_of_an_image_are_changes(media_type: str, config: str) -> None:
    made = plan(image(blob(media_type), config=config), ImageLayout.AUTO, "it")
    assert made == [Layer(DIGEST, 5, Made.CHANGES)]


def test_layers_of_an_artifact_are_files_or_trees() -> None:
    manifest = image(
        blob("text/plain", annotations={TITLE: "a/b.txt"}),
        blob(f"{OCI}layer.v1.tar+gzip", annotations={TITLE: "dir/", "io.deis.oras.content.unpack": "true"}),
        blob(f"{OCI}layer.v1.tar+gzip", annotations={TITLE: "packed.tar.gz"}),
        blob("application/vnd.cncf.flux.content.v1.tar+gzip"),
        config="application/vnd.oci.empty.v1+json",
    )
    assert [(layer.made, layer.name) for layer in plan(manifest, ImageLayout.AUTO, "it")] == [
        (Made.FILE, b"a/b.txt"),
        (Made.TREE, b"dir"),
        (Made.FILE, b"packed.tar.gz"),
        (Made.TREE, b""),
    ]


def test_the_layout_can_be_told() -> None:
    layer = blob(f"{OCI}layer.v1.tar", annotations={TITLE: "x"})
    assert plan(image(layer), ImageLayout.ARTIFACT, "it")[0].made is Made.FILE
    assert plan(image(layer, config="x"), ImageLayout.ROOTFS, "it")[0].made is Made.CHANGES


def test_what_nothing_can_be_made_of_is_refused() -> None:
    with pytest.raises(DataError, match="no root filesystem"):
        plan(image(blob("text/plain")), ImageLayout.AUTO, "it")
    with pytest.raises(DataError, match="without a name"):
        plan(image(blob("text/plain"), config="x"), ImageLayout.AUTO, "it")
    twice = blob("text/plain", annotations={TITLE: "x"})
    with pytest.raises(DataError, match="two files titled 'x'"):
        plan(image(twice, twice, config="x"), ImageLayout.AUTO, "it")


def test_other_things_made_of_the_same_bytes_have_other_tokens() -> None:
    tokens = {
        Layer(digest, 5, made, name).token for digest in (DIGEST, OTHER) for made in Made for name in (b"", b"a", b"b")
    }
    assert len(tokens) == 18
