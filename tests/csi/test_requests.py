"""Whatever a request holds: a checked request or INVALID_ARGUMENT that names the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import Code, InvalidRequest
from csi.requests import Access, Pod, parse_publish, parse_subtree, parse_target
from tests.csi.client import publish_request

if TYPE_CHECKING:
    from csi.pb import csi_pb2

VERSION = "ab" * 32


def refusal(request: csi_pb2.NodePublishVolumeRequest) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse_publish(request)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return str(caught.value)


def test_every_field_is_read() -> None:
    request = publish_request(
        "v", "/t/mount", namespace="n", service_account="s", version=VERSION, path="a/b", access="shared"
    )
    wanted = parse_publish(request)
    assert (wanted.volume_id, wanted.target, wanted.cache, wanted.version) == ("v", Path("/t/mount"), "deps", VERSION)
    assert (wanted.access, wanted.path) == (Access.SHARED, "a/b")
    assert wanted.pod == Pod(namespace="n", service_account="s", name="pod-of-v", uid="5c0e5c0e")


def test_the_cache_alone_is_enough() -> None:
    wanted = parse_publish(publish_request("v", "/t"))
    assert (wanted.version, wanted.access, wanted.path) == ("", Access.SHARED, "")


def test_kubelets_own_keys_are_no_attributes() -> None:
    request = publish_request("v", "/t")
    request.volume_context["csi.storage.k8s.io/something.new"] = "1"
    assert parse_publish(request).cache == "deps"


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"Cache": "x"}, ["'Cache'", "'x'", "cache, version, access, path"]),
        ({"cache": ""}, ["'cache' is missing"]),
        ({"cache": "Deps"}, ["'Deps'", "lower-case"]),
        ({"cache": ".."}, ["'..'", "lower-case"]),
        ({"cache": "a/b"}, ["'a/b'", "lower-case"]),
        ({"version": "latest"}, ["'latest'", "64 hexadecimal"]),
        ({"access": "exclusive"}, ["access", "'exclusive'", "shared or private"]),
        ({"access": ""}, ["access", "''", "shared or private"]),
        ({"path": "/etc"}, ["path", "'/etc'", "relative"]),
        ({"path": "a/../../b"}, ["path", "'a/../../b'", "relative"]),
        ({"path": "./a"}, ["path", "'./a'", "relative"]),
        ({"path": "a//b"}, ["path", "'a//b'", "relative"]),
        ({"path": "a" * 256}, ["path", "aaa'", "255 bytes"]),
        ({"path": "/".join(["a" * 200] * 30)}, ["path", "'aaa", "4000 bytes"]),
        ({"namespace": ""}, ["csi.storage.k8s.io/pod.namespace", "podInfoOnMount: true"]),
        ({"readonly": False}, ["readonly is false", "readOnly: true", "SELinux"]),
        ({"access": "shared", "readonly": False}, ["readonly is false", "readOnly: true", "SELinux"]),
        ({"access": "private", "readonly": True}, ["readonly is true", "readOnly: false", "access: shared"]),
    ],
)
def test_attributes_that_are_not_allowed(given_: dict[str, object], words: list[str]) -> None:
    text = refusal(publish_request("v", "/t", **given_))  # type: ignore[arg-type]
    assert [word for word in words if word not in text] == []


def test_a_missing_cache_is_told_how_to_name_one() -> None:
    request = publish_request("v", "/t")
    del request.volume_context["cache"]
    assert "cache: node-modules" in refusal(request)


def test_a_private_volume_is_writable() -> None:
    request = publish_request("v", "/t", access="private", readonly=False)
    assert parse_publish(request).access is Access.PRIVATE
    request.volume_capability.mount.mount_flags.append("ro")
    assert "readonly is true" in refusal(request)


@pytest.mark.parametrize("volume_id", ["", ".", "..", "a/b", "/", "a\nb", "a\0b", "é" * 65, "v" * 129])
def test_a_volume_id_is_one_path_component(volume_id: str) -> None:
    assert "volume_id" in refusal(publish_request(volume_id, "/t"))


@pytest.mark.parametrize(
    "target",
    ["", "pods/x", "./x", "/a/../b", "/..", "/a\0b", "/" + "a" * 256, "/x" * 2048],
    ids=["empty", "relative", "dot", "up", "top", "nul", "name", "path"],
)
def test_a_target_is_absolute_and_leads_where_it_says(target: str) -> None:
    assert "target_path" in refusal(publish_request("v", target))


@pytest.mark.parametrize("target", ["/a b/ü\n/x", "/" + "/".join(["d"] * 200) + "/m", "/x" * 2000, "/" + "é" * 127])
def test_targets_of_any_other_form_are_taken(target: str) -> None:
    assert parse_publish(publish_request("v", target)).target == Path(target)


def test_block_access_is_refused() -> None:
    request = publish_request("v", "/t")
    request.volume_capability.block.SetInParent()
    assert "volumeMode Filesystem" in refusal(request)


def test_a_capability_is_required() -> None:
    request = publish_request("v", "/t")
    request.ClearField("volume_capability")
    assert "volume_capability is missing" in refusal(request)


def test_mount_flags_are_refused_but_for_the_one_that_holds_anyway() -> None:
    request = publish_request("v", "/t")
    request.volume_capability.mount.mount_flags.append("ro")
    assert parse_publish(request)
    request.volume_capability.mount.mount_flags.append("exec")
    assert "'exec'" in refusal(request)


@given(st.text())
def test_a_subtree_never_leads_out(path: str) -> None:
    """Joined to any directory it stays inside, and it is written in one way only."""
    try:
        parsed = parse_subtree(path)
    except InvalidRequest:
        return
    assert Path("/tree", parsed).is_relative_to("/tree")
    assert ".." not in Path(parsed).parts
    assert parse_subtree(parsed) == parsed


@given(st.text(alphabet=st.sampled_from("ab/.\0 é"), max_size=40))
def test_a_target_is_refused_or_absolute(path: str) -> None:
    try:
        target = parse_target(path)
    except InvalidRequest:
        return
    assert target.is_absolute()
    assert ".." not in target.parts


@given(st.dictionaries(st.text(), st.text(), max_size=4), st.text(), st.text(), st.booleans())
def test_any_request_is_parsed_or_refused(context: dict[str, str], volume_id: str, target: str, readonly: bool) -> None:
    request = publish_request(volume_id, target, readonly=readonly)
    request.volume_context.update(context)
    try:
        wanted = parse_publish(request)
    except InvalidRequest:
        return
    assert wanted.target.is_absolute()
    assert "/" not in wanted.volume_id
