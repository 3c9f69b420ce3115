from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import InvalidRequest
from csi import disk_requests
from csi.disks.errors import BadToken
from csi.disks.ids import disk_id
from csi.disks.model import Mode, Origin
from csi.disks.rules import Range
from csi.pb import csi_pb2

AccessMode = csi_pb2.VolumeCapability.AccessMode


def capability(mode: str = "SINGLE_NODE_WRITER", *, fs_type: str = "", flags: tuple[str, ...] = ()) -> Any:
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=flags),
        access_mode=AccessMode(mode=AccessMode.Mode.Value(mode)),
    )


def request(*capabilities: Any, **given: Any) -> csi_pb2.CreateVolumeRequest:
    return csi_pb2.CreateVolumeRequest(
        **{"name": "pvc-1", "volume_capabilities": capabilities or [capability()], **given}
    )


def test_request_says_what_is_wanted() -> None:
    source = csi_pb2.VolumeContentSource(snapshot=csi_pb2.VolumeContentSource.SnapshotSource(snapshot_id="snap-1"))
    wanted = disk_requests.parse_create(
        request(
            capability("MULTI_NODE_READER_ONLY"),
            capability("SINGLE_NODE_READER_ONLY", fs_type="ext4"),
            capacity_range=csi_pb2.CapacityRange(required_bytes=5, limit_bytes=7),
            volume_content_source=source,
            mutable_parameters={"pin": "true"},
            parameters={"csi.storage.k8s.io/pv/name": "x"},
        )
    )
    assert (wanted.name, wanted.capacity, wanted.reads_only) == ("pvc-1", Range(5, 7), True)
    assert (wanted.origin, wanted.settings) == (Origin(snapshot="snap-1"), {"pin": "true"})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (request(name=""), "name is missing"),
        (csi_pb2.CreateVolumeRequest(name="x"), "volume_capabilities is missing"),
        (request(capability("MULTI_NODE_MULTI_WRITER")), "access mode 5 is not offered"),
        (request(csi_pb2.VolumeCapability(block=csi_pb2.VolumeCapability.BlockVolume())), "volumeMode Filesystem"),
        (request(capability(), capability("MULTI_NODE_READER_ONLY")), "do not go together"),
        (request(capability(fs_type="xfs")), "'xfs'"),
        (request(capability(flags=("sync",))), "'sync'"),
        (request(parameters={"color": "red"}), "'color'"),
        (request(parameters={"cache": "../x"}), "cache name"),
        (request(parameters={"cache": "deps", "version": "1"}), "version '1'"),
        (request(parameters={"version": "0" * 64}), "stands alone"),
        (request(mutable_parameters={"color": "red"}), "'color'"),
        (request(volume_content_source=csi_pb2.VolumeContentSource()), "is empty"),
        (request(capacity_range=csi_pb2.CapacityRange(required_bytes=-1)), "-1"),
    ],
)
def test_what_is_wrong_is_named(bad: csi_pb2.CreateVolumeRequest, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        disk_requests.parse_create(bad)


def test_modes_keep_their_names() -> None:
    for mode in Mode:
        assert disk_requests.parse_mode(capability(mode.value)) is mode


IDS = st.lists(st.integers(0, 60), unique=True, max_size=40).map(
    lambda numbers: sorted(disk_id(str(number)) for number in numbers)
)


@given(IDS, st.integers(1, 7), st.data())
def test_pages_show_each_item_once_whatever_comes_and_goes(ids: list[str], most: int, data: st.DataObject) -> None:
    """Items that are there all the time are on exactly one page."""
    stay = set(data.draw(st.sets(st.sampled_from(ids)))) if ids else set()
    seen: list[str] = []
    token = ""
    while True:
        others = set(data.draw(st.sets(st.sampled_from(ids)))) if ids else set()
        shown, token = disk_requests.page(sorted(stay | others), str, "disk", token, most)
        assert len(shown) <= most
        seen += shown
        if not token:
            break
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)


def test_without_a_limit_there_is_one_page() -> None:
    ids = sorted(disk_id(str(number)) for number in range(20))
    assert disk_requests.page(ids, str, "disk", "", 0) == (ids, "")
    assert disk_requests.page(ids, str, "disk", ids[4], 0) == (ids[5:], "")
    with pytest.raises(InvalidRequest):
        disk_requests.page(ids, str, "disk", "", -1)
    with pytest.raises(BadToken):
        disk_requests.page(ids, str, "snap", ids[4], 0)
