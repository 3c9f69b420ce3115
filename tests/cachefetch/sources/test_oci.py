"""Images and artifacts from the distribution project's registry, with both of its ways to log in."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from cachefetch.config import ImageAuth, Oci
from cachefetch.errors import DataError, SourceError, UnsafeEntry
from cachefetch.images import this_machine
from cachefetch.sources import open_source
from cachefetch.sources.oci import OciSource
from cachefetch.sources.web import Patience
from tests.servers.faulty import Answer, CutOff, Fault, FaultyProxy, Flip
from tests.servers.images import CONFIG, INDEX, MANIFEST, TAR_GZIP, TAR_ZSTD, Layout, layer
from tests.servers.web import serving

if TYPE_CHECKING:
    from pathlib import Path

    from cachefetch.refresh import Refreshed
    from tests.cachefetch.sources.conftest import Fetched
    from tests.servers.images import Descriptor
    from tests.servers.registry import Registry
    from tests.servers.web import Request

BIG = {f"d/{number}": bytes([number]) * 5000 + number.to_bytes(4, "big") * 5000 for number in range(40)}
EMPTY = "application/vnd.oci.empty.v1+json"


@pytest.fixture(params=["registry", "token_registry"])
def either(request: pytest.FixtureRequest) -> Registry:
    server: Registry = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


Refresh = Callable[..., "Refreshed"]


@pytest.fixture
def login(tmp_path: Path) -> Callable[[Registry], ImageAuth]:
    """A docker configuration with the login of a registry."""

    def write(server: Registry, password: str | None = None) -> ImageAuth:
        auth = base64.b64encode(f"{server.user}:{password or server.password}".encode()).decode()
        path = tmp_path / f"docker-{password}" / ".dockerconfigjson"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
        return ImageAuth(docker_config=str(path.parent))

    return write


@pytest.fixture
def refresh(fetched: Fetched, login: Callable[[Registry], ImageAuth]) -> Refresh:
    """Refreshes the cache from an image: `refresh(registry, "team/app:v1", platform=…)`."""

    def go(server: Registry, name: str, **more: Any) -> Refreshed:
        config = Oci(image=f"{server.host}/{name}", **({"auth": login(server)} | more))
        return fetched.refresh(config, OciSource(config, lambda: Patience(lambda _: None)))

    return go


def push(layout: Layout, server: Registry, name: str, *layers: bytes) -> Descriptor:
    """Push an image of plain tar layers."""
    image = layout.image(layers)
    layout.tag(image)
    server.push(layout, name)
    return image


def asked(server: Registry, prefix: str = "/v2/") -> list[tuple[str, str, int]]:
    return [(each.method, each.path, each.status) for each in server.proxy.traffic.of(prefix)]


def test_each_kind_has_its_source() -> None:
    assert isinstance(open_source(Oci(image="registry.example/a")), OciSource)


# What arrives


def test_an_image_becomes_its_root_filesystem(
    either: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    lower = layer({"bin/tool": b"1", "etc/old": b"2", "opt/x": b"3"})
    push(layout, either, "team/app:v1", lower, layer({"etc/.wh.old": b"", "opt/.wh..wh..opq": b"", "opt/y": b"4"}))
    done = refresh(either, "team/app:v1")
    assert done.changed
    assert {path: entry.size for path, entry in fetched.entries().items() if entry.digest} == {
        b"bin/tool": 1,
        b"opt/y": 1,
    }
    assert b"etc" in fetched.entries()
    assert (fetched.tree / "opt" / "y").read_bytes() == b"4"


def test_what_did_not_change_costs_one_question(either: Registry, layout: Layout, refresh: Refresh) -> None:
    push(layout, either, "team/app:v1", layer(BIG))
    refresh(either, "team/app:v1")
    either.proxy.traffic.clear()
    assert not refresh(either, "team/app:v1").changed
    assert asked(either) == [
        ("HEAD", "/v2/team/app/manifests/v1", 401),
        ("HEAD", "/v2/team/app/manifests/v1", 200),
    ]


def test_a_known_digest_costs_no_question(registry: Registry, layout: Layout, refresh: Refresh) -> None:
    image = push(layout, registry, "team/app:v1", layer(BIG))
    refresh(registry, f"team/app@{image['digest']}")
    registry.proxy.traffic.clear()
    assert not refresh(registry, f"team/app@{image['digest']}").changed
    assert asked(registry) == []


def test_a_tag_that_moves_is_followed_and_a_digest_is_not(
    registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    first = push(layout, registry, "team/app:v1", layer({"a": b"1"}))
    refresh(registry, "team/app:v1")
    push(layout, registry, "team/app:v1", layer({"a": b"2"}))
    assert refresh(registry, "team/app:v1").changed
    assert (fetched.tree / "a").read_bytes() == b"2"
    assert refresh(registry, f"team/app:v1@{first['digest']}").changed
    assert (fetched.tree / "a").read_bytes() == b"1"


def test_the_images_of_docker_s_older_form_are_read(
    registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    push(layout, registry, "team/app:oci", layer({"a": b"1"}))
    login = f"{registry.user}:{registry.password}"
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--quiet", "--format", "v2s2", "--src-creds", login, "--dest-creds",
         login, "--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{registry.host}/team/app:oci",
         f"docker://{registry.host}/team/app:docker"],
        check=True, timeout=60,
    )  # fmt: skip
    refresh(registry, "team/app:docker")
    assert (fetched.tree / "a").read_bytes() == b"1"


def test_layers_of_zstd_are_read(registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched) -> None:
    packed = subprocess.run(["zstd"], input=layer({"a": b"1"}), capture_output=True, check=True).stdout
    layout.tag(layout.manifest(layout.json(CONFIG, {}), [layout.blob(TAR_ZSTD, packed)]))
    registry.push(layout, "team/app:v1")
    refresh(registry, "team/app:v1")
    assert (fetched.tree / "a").read_bytes() == b"1"


def test_an_artifact_becomes_its_files(registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched) -> None:
    title, unpack = "org.opencontainers.image.title", "io.deis.oras.content.unpack"
    packed = subprocess.run(["gzip"], input=layer({"dir/a": b"1"}), capture_output=True, check=True).stdout
    parts = [
        {**layout.blob("text/plain", b"weights"), "annotations": {title: "model/weights.bin"}},
        {**layout.blob(TAR_GZIP, packed), "annotations": {title: "dir", unpack: "true"}},
    ]
    layout.tag(layout.manifest(layout.json(EMPTY, {}), parts))
    registry.push(layout, "team/model:v1")
    refresh(registry, "team/model:v1")
    assert set(fetched.entries()) == {b"model", b"model/weights.bin", b"dir", b"dir/a"}
    assert (fetched.tree / "model" / "weights.bin").read_bytes() == b"weights"


def test_each_platform_gets_its_image(registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched) -> None:
    here, names = this_machine().architecture, ("amd64", "arm64", "s390x")
    images = {name: layout.image([layer({"name": name.encode()})], architecture=name) for name in names}
    layout.tag(layout.index(images))
    registry.push(layout, "team/app:v1")
    refresh(registry, "team/app:v1")
    assert (fetched.tree / "name").read_text() == here
    refresh(registry, "team/app:v1", platform="linux/s390x")
    assert (fetched.tree / "name").read_text() == "s390x"
    with pytest.raises(DataError, match=r"for linux/riscv64 but for linux/amd64, linux/arm64, linux/s390x: set"):
        refresh(registry, "team/app:v1", platform="linux/riscv64")


def test_a_new_platform_beside_ours_changes_nothing(registry: Registry, layout: Layout, refresh: Refresh) -> None:
    ours = layout.image([layer({"a": b"1"})], architecture=this_machine().architecture)
    for images in ({this_machine().architecture: ours}, {this_machine().architecture: ours, "s390x": ours}):
        layout.tag(layout.index(images))
        registry.push(layout, "team/app:v1")
        done = refresh(registry, "team/app:v1")
    assert not done.changed
    assert [path for _, path, _ in asked(registry) if "/blobs/" in path] == []


def test_an_image_for_one_platform_is_taken_unless_another_one_is_named(
    registry: Registry, layout: Layout, refresh: Refresh
) -> None:
    layout.tag(layout.image([layer({"a": b"1"})], architecture="s390x"))
    registry.push(layout, "team/data:v1")
    assert refresh(registry, "team/data:v1").changed
    refresh(registry, "team/data:v1", platform="linux/s390x")
    with pytest.raises(DataError, match="not made for linux/arm64 but for linux/s390x"):
        refresh(registry, "team/data:v1", platform="linux/arm64")


def test_indexes_may_be_nested_but_not_without_end(
    registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    here = this_machine().architecture
    top = push(layout, registry, "team/app:v1", layer({"a": b"1"}))
    for depth in range(1, 5):
        top = layout.index({here: top})
        digest = str(top["digest"]).removeprefix("sha256:")
        put(registry, "deep", INDEX, (layout.directory / "blobs" / "sha256" / digest).read_bytes())
        if depth < 4:
            refresh(registry, "team/app:deep")
            assert (fetched.tree / "a").read_bytes() == b"1"
    with pytest.raises(DataError, match="more than 4 indexes within each other"):
        refresh(registry, "team/app:deep")


# How much is fetched


def test_a_registry_that_says_no_digest_is_compared_by_what_it_sends(
    registry: Registry, layout: Layout, refresh: Refresh
) -> None:
    """Docker-Content-Digest may be missing (distribution-spec, "Pulling manifests")."""
    push(layout, registry, "team/app:v1", layer(BIG))
    refresh(registry, "team/app:v1")
    registry.proxy.traffic.clear()
    registry.proxy.inject(Answer(200), skip=1, times=1)  # to the question that carries the login
    assert not refresh(registry, "team/app:v1").changed
    assert [(method, status) for method, _, status in asked(registry)] == [("HEAD", 401), ("HEAD", 200), ("GET", 200)]


def test_only_new_layers_are_fetched(registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched) -> None:
    push(layout, registry, "team/app:v1", layer(BIG))
    refresh(registry, "team/app:v1")
    before = (fetched.tree / "d" / "7").stat().st_ino
    push(layout, registry, "team/app:v1", layer(BIG), layer({"d/8": b"new", "d/.wh.9": b""}))
    done = refresh(registry, "team/app:v1")
    assert done.changed
    assert len([path for _, path, status in asked(registry, "/v2/team/app/blobs/") if status == 200]) == 1
    assert (fetched.tree / "d" / "7").stat().st_ino == before
    assert (fetched.tree / "d" / "8").read_bytes() == b"new"
    assert not (fetched.tree / "d" / "9").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_percent_of_a_hundred_thousand_files_costs_one_percent(
    registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    """At most 2 % of the bytes are transferred, and every other file keeps its inode."""
    import random

    noise = random.Random(1)
    files = {f"{number // 1000}/{number}": noise.randbytes(200) for number in range(100_000)}
    base = layer(files)
    push(layout, registry, "team/deps:v1", base)
    refresh(registry, "team/deps:v1")
    whole = registry.proxy.traffic.sent()
    inodes = {path: (fetched.tree / path).stat().st_ino for path in files}
    changed = {path: noise.randbytes(200) for path in noise.sample(sorted(files), 1000)}
    push(layout, registry, "team/deps:v1", base, layer(changed))
    done = refresh(registry, "team/deps:v1")
    assert registry.proxy.traffic.sent() <= whole * 0.02
    assert done.links is not None
    kept = {path for path, inode in inodes.items() if (fetched.tree / path).stat().st_ino == inode}
    assert kept == set(files) - set(changed)
    assert all((fetched.tree / path).read_bytes() == content for path, content in changed.items())


# What goes wrong on the way


def blob_path(layout: Layout, image: Descriptor, number: int = 0, name: str = "team/app") -> str:
    digest = str(image["digest"]).removeprefix("sha256:")
    manifest = json.loads((layout.directory / "blobs" / "sha256" / digest).read_bytes())
    return f"/v2/{name}/blobs/{manifest['layers'][number]['digest']}"


def test_a_layer_that_breaks_off_is_resumed(
    either: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    image = push(layout, either, "team/app:v1", layer(BIG))
    path = blob_path(layout, image)
    either.proxy.inject(CutOff(after=1000), path=path, skip=1, times=1)
    refresh(either, "team/app:v1")
    assert len(fetched.entries()) == len(BIG) + 1
    _, first, second = either.proxy.traffic.of(path)  # before them, one without a login
    assert (first.sent, second.range, second.status) == (1000, "bytes=1000-", 206)


def test_a_layer_is_resumed_by_the_next_refresh_and_whole_layers_are_not_fetched_again(
    registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    image = push(layout, registry, "team/app:v1", layer(BIG), layer({"upper": b"1" * 5000}))
    lower, upper = blob_path(layout, image, 0), blob_path(layout, image, 1)
    registry.proxy.inject(CutOff(after=1000), path=lower, times=1)
    registry.proxy.inject(Answer(503), path=lower)
    with pytest.raises(SourceError, match="503"):
        refresh(registry, "team/app:v1")
    registry.proxy.heal()
    registry.proxy.traffic.clear()
    refresh(registry, "team/app:v1")
    assert len(fetched.entries()) == len(BIG) + 2
    assert [each.range for each in registry.proxy.traffic.of(lower)] == ["bytes=1000-"]
    assert registry.proxy.traffic.sent(upper) < 1000  # the refusal of an empty range


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_registry_is_waited_for(
    registry: Registry, layout: Layout, fetched: Fetched, login: Callable[[Registry], ImageAuth], status: int
) -> None:
    push(layout, registry, "team/app:v1", layer(BIG))
    registry.proxy.inject(Answer(status, {"Retry-After": "7"}), times=1)
    registry.proxy.inject(Answer(status, {"Retry-After": "8"}), path="/v2/team/app/blobs/", times=1)
    waits: list[float] = []
    config = Oci(image=f"{registry.host}/team/app:v1", auth=login(registry))
    fetched.refresh(config, OciSource(config, lambda: Patience(waits.append)))
    assert waits == [7, 8]


def test_a_token_that_ends_in_the_middle_is_renewed(
    token_registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    image = push(layout, token_registry, "team/app:v1", layer(BIG), layer({"upper": b"1"}))
    path = blob_path(layout, image)
    refused = subprocess.run(
        ["curl", "-si", f"http://{token_registry.host}{path}"], capture_output=True, text=True, check=True
    ).stdout
    challenge = next(line for line in refused.splitlines() if line.lower().startswith("www-authenticate"))
    assert token_registry.token_traffic is not None
    token_registry.proxy.inject(
        Answer(401, {"WWW-Authenticate": challenge.partition(":")[2].strip()}), path=path, times=1
    )
    refresh(token_registry, "team/app:v1")
    assert len(fetched.entries()) == len(BIG) + 2
    assert len(token_registry.token_traffic.of("/token")) == 3  # to resolve, to fetch, and again


def test_a_redirect_to_a_place_of_blobs_carries_no_login(
    registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    image = push(layout, registry, "team/app:v1", layer(BIG))
    path, shown = blob_path(layout, image), []
    digest = path.rpartition(":")[2]

    def serve(request: Request) -> None:
        shown.append(request.headers.get("Authorization"))
        request.reply(200, (layout.directory / "blobs" / "sha256" / digest).read_bytes())

    with serving(serve) as elsewhere:
        registry.proxy.inject(Answer(401, {"WWW-Authenticate": 'Basic realm="x"'}), path=path, times=1)
        registry.proxy.inject(Answer(307, {"Location": f"{elsewhere.url}/signed?by=x"}), path=path)
        refresh(registry, "team/app:v1")
    assert shown == [None]
    assert len(fetched.entries()) == len(BIG) + 1


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
def test_wrong_bytes_are_refused_and_not_kept(
    registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched, kind: str
) -> None:
    push(layout, registry, "team/app:v1", layer(BIG))
    registry.proxy.inject(Flip(at=100), path=f"/v2/team/app/{kind}/")
    with pytest.raises(DataError, match="has digest sha256:"):
        refresh(registry, "team/app:v1")
    assert fetched.version == ""
    registry.proxy.heal()
    refresh(registry, "team/app:v1")
    assert len(fetched.entries()) == len(BIG) + 1


def test_a_layer_of_another_size_than_announced_is_refused(
    registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched
) -> None:
    for wrong in (-1, 1):
        blob = layout.blob(TAR_GZIP, b"x" * 1000)
        blob["size"] = 1000 + wrong
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": layout.json(CONFIG, {}), "layers": [blob]}
        layout.tag(layout.image([layer({"a": b"1"})]))
        registry.push(layout, "team/app:v1")
        data = json.dumps(document).encode()
        put_whole(registry, layout, blob, data)
        with pytest.raises(DataError, match=f"has not the {1000 + wrong} bytes"):
            refresh(registry, "team/app:wrong")
    assert fetched.version == ""


def put_whole(server: Registry, layout: Layout, blob: Descriptor, manifest: bytes) -> None:
    """Push what skopeo would refuse to push, as `team/app:wrong`."""
    login, base = f"{server.user}:{server.password}", f"http://{server.host}/v2/team/app"
    digests = [str(blob["digest"]), str(json.loads(manifest)["config"]["digest"])]
    for digest in digests:
        path = layout.directory / "blobs" / "sha256" / digest.removeprefix("sha256:")
        curl = ["curl", "-sS", "-u", login, "-X", "POST", "-D", "-", "-o", "/dev/null", f"{base}/blobs/uploads/"]
        headers = subprocess.run(curl, capture_output=True, text=True, check=True).stdout
        place = next(
            line.partition(":")[2].strip() for line in headers.splitlines() if line.lower().startswith("location")
        )
        place = place if place.startswith("http") else f"http://{server.host}{place}"
        joined = f"{place}{'&' if '?' in place else '?'}digest={digest}"
        subprocess.run(
            ["curl", "-sSf", "-u", login, "-T", path, "-H", "Content-Type: application/octet-stream", joined],
            check=True,
        )
    put(server, "wrong", MANIFEST, manifest)


def put(server: Registry, tag: str, media_type: str, manifest: bytes) -> None:
    """Push a manifest that skopeo would not push, as `team/app:TAG`; count nothing of it."""
    url, login = f"http://{server.host}/v2/team/app/manifests/{tag}", f"{server.user}:{server.password}"
    curl = ["curl", "-sSf", "-u", login, "-X", "PUT", "-H", f"Content-Type: {media_type}", "--data-binary", "@-", url]
    subprocess.run(curl, input=manifest, check=True)
    server.proxy.traffic.clear()


def test_a_hostile_layer_is_refused(registry: Registry, layout: Layout, refresh: Refresh, fetched: Fetched) -> None:
    push(layout, registry, "team/app:v1", layer({"a": b"1", "../../x": b"2"}))
    with pytest.raises(UnsafeEntry):
        refresh(registry, "team/app:v1")
    assert fetched.version == ""


def test_who_may_not_read_is_told_so_without_a_secret(
    either: Registry,
    layout: Layout,
    refresh: Refresh,
    login: Callable[..., ImageAuth],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    push(layout, either, "team/app:v1", layer(BIG))
    with pytest.raises(SourceError, match="does not let anybody without a login read team/app") as nobody:
        refresh(either, "team/app:v1", auth=None)
    with pytest.raises(SourceError, match="does not let the login read team/app") as wrong:
        refresh(either, "team/app:v1", auth=login(either, password="hunter2"))
    refresh(either, "team/app:v1")
    said = f"{nobody.value} {wrong.value} {caplog.text}"
    assert "hunter2" not in said
    assert either.password not in said
    assert "Bearer ey" not in said


def test_everyone_may_read_what_is_public(token_registry: Registry, layout: Layout, refresh: Refresh) -> None:
    push(layout, token_registry, "public/app:v1", layer(BIG))
    assert refresh(token_registry, "public/app:v1", auth=None).changed


def test_a_login_may_come_from_a_helper(
    registry: Registry, layout: Layout, refresh: Refresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(layout, registry, "team/app:v1", layer(BIG))
    answer = json.dumps({"ServerURL": "x", "Username": registry.user, "Secret": registry.password})
    program = tmp_path / "docker-credential-mine"
    program.write_text(f"#!/bin/sh\nread host; test $host = {registry.host} && echo '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "mine"}}))
    assert refresh(registry, "team/app:v1", auth=ImageAuth(docker_config=str(tmp_path / "config.json"))).changed


def test_an_image_that_is_not_there_is_named(registry: Registry, refresh: Refresh) -> None:
    for name in ("team/none:v1", "team/none@sha256:" + "0a" * 32):
        with pytest.raises(SourceError, match=rf"{registry.host}/{name} is not in its registry"):
            refresh(registry, name)


# Mirrors


@pytest.fixture
def mirror(registry: Registry, faulty: Callable[[str], FaultyProxy]) -> FaultyProxy:
    """Another way to the same registry."""
    return faulty(registry.proxy.url)


def test_a_mirror_is_asked_for_everything_and_told_for_whom_it_stands(
    registry: Registry, layout: Layout, refresh: Refresh, mirror: FaultyProxy, tmp_path: Path
) -> None:
    push(layout, registry, "team/app:v1", layer(BIG))
    auth = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    host = mirror.url.removeprefix("http://")
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    refresh(registry, "team/app:v1", mirrors=(f"{mirror.url}/",), auth=ImageAuth(docker_config=str(tmp_path)))
    asked_mirror = [each for each in mirror.traffic.of() if each.status == 200]
    assert len(asked_mirror) == 3
    assert all(each.path.endswith(f"?ns={registry.host}") for each in asked_mirror)
    assert len(registry.proxy.traffic.of()) == len(mirror.traffic.of())  # by way of the mirror only


FAULTS = [Answer(404), Answer(500), Answer(401, {"WWW-Authenticate": "Basic"}), CutOff(after=100), Flip(at=100)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mirror_that_does_not_deliver_is_passed_over(
    registry: Registry, layout: Layout, refresh: Refresh, mirror: FaultyProxy, fault: Fault
) -> None:
    image = push(layout, registry, "team/app:v1", layer(BIG))
    mirror.inject(fault)
    refresh(registry, "team/app:v1", mirrors=("http://127.0.0.1:1", mirror.url))
    assert mirror.traffic.of()
    direct = [each.status for each in registry.proxy.traffic.of(blob_path(layout, image)) if "?ns=" not in each.path]
    assert 200 in direct


def test_what_a_mirror_began_is_finished_elsewhere(
    registry: Registry, layout: Layout, refresh: Refresh, mirror: FaultyProxy, tmp_path: Path
) -> None:
    image = push(layout, registry, "team/app:v1", layer(BIG))
    path = blob_path(layout, image)
    auth = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    hosts = (mirror.url.removeprefix("http://"), registry.host)
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth} for host in hosts}}))
    mirror.inject(CutOff(after=1000), path=path)
    refresh(registry, "team/app:v1", mirrors=(mirror.url,), auth=ImageAuth(docker_config=str(tmp_path)))
    direct = [each for each in registry.proxy.traffic.of(path) if "?ns=" not in each.path and each.status == 206]
    assert [each.range for each in direct] == ["bytes=1000-"]


def test_a_mirror_gets_no_login_that_is_not_its_own(registry: Registry, layout: Layout, refresh: Refresh) -> None:
    push(layout, registry, "team/app:v1", layer(BIG))
    shown: list[str | None] = []

    def serve(request: Request) -> None:
        shown.append(request.headers.get("Authorization"))
        request.reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    with serving(serve) as thief:
        refresh(registry, "team/app:v1", mirrors=(thief.url,))
    assert shown
    assert set(shown) == {None}
