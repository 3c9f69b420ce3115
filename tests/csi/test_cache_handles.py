from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cachefetch.errors import InvalidRequest
from cachefetch.model import check_volume_id
from csi import cache_handles
from csi.disks.ids import Handle, cache_handle
from csi.pb import csi_pb2
from csi.requests import Access

VERSION = "ab" * 32
HANDLE = cache_handle("deps", VERSION, "pvc-1")
POD = {
    "csi.storage.k8s.io/pod.namespace": "team-a",
    "csi.storage.k8s.io/pod.name": "web",
    "csi.storage.k8s.io/serviceAccount.name": "default",
}


def request(mode: int = csi_pb2.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY, **given: Any) -> Any:
    capability = csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(),
        access_mode=csi_pb2.VolumeCapability.AccessMode(mode=mode),  # type: ignore[arg-type]  # a number of the enum
    )
    fields = {"volume_id": HANDLE, "target_path": "/pods/1", "volume_capability": capability, "volume_context": POD}
    return csi_pb2.NodePublishVolumeRequest(**{**fields, **given})


def test_handle_decides_and_not_the_volume_context() -> None:
    """A context is text that anybody may write into a PersistentVolume; readOnly of the pod is not needed."""
    context = {**POD, "cache": "other", "version": "00" * 32, "path": "../.."}
    wanted = cache_handles.parse_publish(request(volume_context=context), Handle("deps", VERSION))
    assert (wanted.cache, wanted.version, wanted.access, wanted.path) == ("deps", VERSION, Access.SHARED, "")
    assert (wanted.pod.namespace, wanted.pod.service_account, wanted.pod.name) == ("team-a", "default", "web")


def test_each_target_has_a_volume_of_its_own() -> None:
    ids = {cache_handles.volume_at(HANDLE, Path(f"/pods/{number}")) for number in range(3)}
    assert len(ids) == 3
    for id_ in ids:
        assert check_volume_id(id_)
    assert cache_handles.volume_at(HANDLE, Path("/pods/1")) in ids


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (request(target_path=""), "target_path"),
        (request(volume_context={}), "podInfoOnMount"),
        (request(csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER), "ReadOnlyMany"),
        (csi_pb2.NodePublishVolumeRequest(volume_id=HANDLE, target_path="/x"), "volume_capability"),
    ],
)
def test_what_is_wrong_is_named(bad: csi_pb2.NodePublishVolumeRequest, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        cache_handles.parse_publish(bad, Handle("deps", VERSION))
