from __future__ import annotations

import platform as machine

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachefetch.images import Platform, Reference, normal, parse, parse_platform, this_machine

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("nginx", ("docker.io", "library/nginx", "latest", "")),
        ("nginx:1.27", ("docker.io", "library/nginx", "1.27", "")),
        ("team/app", ("docker.io", "team/app", "latest", "")),
        ("docker.io/nginx", ("docker.io", "library/nginx", "latest", "")),
        ("index.docker.io/nginx", ("docker.io", "library/nginx", "latest", "")),
        ("localhost/app", ("localhost", "app", "latest", "")),
        ("localhost:5000/a/b:c", ("localhost:5000", "a/b", "c", "")),
        ("registry.example/team/app:tag", ("registry.example", "team/app", "tag", "")),
        ("registry.example/app@" + DIGEST, ("registry.example", "app", "", DIGEST)),
        ("registry.example/app:1@" + DIGEST, ("registry.example", "app", "1", DIGEST)),
        ("[::1]:5000/a__b/c--d", ("[::1]:5000", "a__b/c--d", "latest", "")),
        ("Team/app", ("Team", "app", "latest", "")),
    ],
)
def test_a_name_means_what_it_means_to_docker(text: str, reference: tuple[str, str, str, str]) -> None:
    assert parse(text) == Reference(*reference)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "registry.example/",
        "registry.example/App",
        "registry.example/a//b",
        "registry.example/a___b",
        "registry.example/../b",
        "registry.example/a:",
        "registry.example/a:-x",
        "registry.example/a:" + "x" * 129,
        "registry.example/a@",
        "registry.example/a@sha256:0a",
        "registry.example/a@sha512:" + "0a" * 64,
        "registry.example/a@" + DIGEST.upper(),
        "registry.example:99999/a",
        "registry.example:x/a",
        "https://registry.example/a",
        "me:secret@registry.example/a",
        "registry.example/" + "a" * 250,
        "registry.example/a b",
        "registry.example/a\n",
        "registry.example/a?x",
        "-a.example/b",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the name of an image"):
        parse(text)


def test_a_password_in_a_name_is_never_shown() -> None:
    for text in ("me:hunter2@registry.example/a", "https://me:hunter2@registry.example/a", "a:hunter2@b@c"):
        with pytest.raises(ValueError, match="is not the name of an image") as caught:
            parse(text)
        assert "hunter2" not in str(caught.value)


COMPONENT = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)?", fullmatch=True).filter(lambda text: len(text) < 20)
REGISTRY = st.from_regex(r"[a-z0-9]{1,9}\.[a-z]{2,5}(:[1-9][0-9]{0,3})?", fullmatch=True)
REPOSITORY = st.lists(COMPONENT, min_size=1, max_size=4).map("/".join)
TAG = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", fullmatch=True)


@given(REGISTRY, REPOSITORY, TAG, st.sampled_from(["", DIGEST]))
def test_the_whole_name_of_an_image_names_the_same_image(registry: str, repository: str, tag: str, digest: str) -> None:
    reference = Reference(registry, repository, tag, digest)
    assert parse(str(reference)) == reference


@given(st.text() | st.text(alphabet="ab/:.@-_[]0"))
@example("a" * 100_000)
@example("a.a" * 50_000 + "/")
def test_a_text_is_refused_or_gives_a_name_that_stays_what_it_is(text: str) -> None:
    """And nothing that could lead a URL elsewhere gets into host or path."""
    try:
        reference = parse(text)
    except ValueError:
        return
    assert parse(str(reference)) == reference
    assert not set("/?#@%\\ ") & set(reference.registry)
    assert not set("?#@%\\ :") & set(reference.repository)
    assert ".." not in reference.repository.split("/")


@pytest.mark.parametrize(
    ("registry", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.9.10", True),
        ("[::1]:5000", True),
        ("[::2]", False),
        ("10.0.0.1:5000", False),
        ("localhost.example", False),
        ("docker.io", False),
    ],
)
def test_only_this_machine_is_loopback(registry: str, loopback: bool) -> None:
    assert Reference(registry, "a", "b", "").loopback is loopback


def test_docker_hub_is_served_by_a_host_of_another_name() -> None:
    assert parse("nginx").host == "registry-1.docker.io"
    assert parse("registry.example:5000/nginx").host == "registry.example:5000"


@pytest.mark.parametrize(
    ("text", "platform", "shown"),
    [
        ("linux/amd64", ("linux", "amd64", ""), "linux/amd64"),
        ("linux/arm64/v8", ("linux", "arm64", ""), "linux/arm64"),
        ("linux/arm/v7", ("linux", "arm", ""), "linux/arm"),
        ("linux/arm/v6", ("linux", "arm", "v6"), "linux/arm/v6"),
        ("linux/amd64/v3", ("linux", "amd64", "v3"), "linux/amd64/v3"),
    ],
)
def test_a_platform_has_one_form(text: str, platform: tuple[str, str, str], shown: str) -> None:
    assert parse_platform(text) == Platform(*platform) == normal(parse_platform(text))
    assert str(parse_platform(text)) == shown


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/a b"])
def test_what_names_no_platform_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a platform"):
        parse_platform(text)


def test_this_machine_has_a_platform() -> None:
    expected = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
    assert str(this_machine()) == expected.get(machine.machine(), str(this_machine()))
