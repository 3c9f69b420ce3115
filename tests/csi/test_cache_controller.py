from __future__ import annotations

from typing import Any

import pytest

from cachefetch.errors import GoldlinkError, InvalidRequest, NotAllowed, Precondition, UnknownCache, UnknownVolume
from csi.cache_controller import CacheController
from csi.disks.ids import Handle, parse_handle
from csi.pb import csi_pb2
from tests.csi.disks.cluster import READERS, WRITER
from tests.csi.test_controller import CONFIG, TEAM, Arriving, Context, from_volume, size

VERSION = "ab" * 32


@pytest.fixture
def arrivals() -> Arriving:
    arrivals = Arriving()
    arrivals.current = VERSION
    return arrivals


@pytest.fixture
def controller(arrivals: Arriving) -> CacheController:
    return CacheController(arrivals, config=lambda: CONFIG)


def call(controller: CacheController, method: str, **given: Any) -> Any:
    return getattr(controller, method)(getattr(csi_pb2, f"{method}Request")(**given), Context())


def create(controller: CacheController, name: str = "pvc-1", capability: Any = READERS, **given: Any) -> Any:
    given = {"parameters": {**TEAM, "cache": "deps"}, **given}
    return call(controller, "CreateVolume", name=name, volume_capabilities=[capability], **given).volume


def test_handle_says_cache_and_version(controller: CacheController) -> None:
    volume = create(controller, capacity_range=size(7))
    assert parse_handle(volume.volume_id) == Handle("deps", VERSION)
    assert volume.capacity_bytes == 7
    assert volume == create(controller, capacity_range=size(7))
    assert volume.volume_id != create(controller, "pvc-2").volume_id
    for _ in range(2):
        call(controller, "DeleteVolume", volume_id=volume.volume_id)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"parameters": TEAM}, Precondition),
        ({"volume_content_source": from_volume("disk-x")}, Precondition),
        ({"capability": WRITER}, InvalidRequest),
        ({"parameters": {**TEAM, "cache": "vault"}}, NotAllowed),
        ({"parameters": {**TEAM, "cache": "none"}}, UnknownCache),
        ({"parameters": {"cache": "deps"}}, InvalidRequest),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_waited_for(
    controller: CacheController, arrivals: Arriving, given: dict[str, Any], error: type[GoldlinkError]
) -> None:
    with pytest.raises(error):
        create(controller, **given)
    assert arrivals.asked == []


def test_capabilities_are_validated_by_the_handle(controller: CacheController) -> None:
    volume_id = create(controller).volume_id
    validate = "ValidateVolumeCapabilities"
    good = call(controller, validate, volume_id=volume_id, volume_capabilities=[READERS])
    assert list(good.confirmed.volume_capabilities) == [READERS]
    for bad in (WRITER, csi_pb2.VolumeCapability(block=csi_pb2.VolumeCapability.BlockVolume())):
        answer = call(controller, validate, volume_id=volume_id, volume_capabilities=[bad])
        assert answer.message
        assert not answer.HasField("confirmed")
    with pytest.raises(UnknownVolume):
        call(controller, validate, volume_id="other", volume_capabilities=[READERS])
    for missing in ({"volume_id": volume_id}, {"volume_capabilities": [READERS]}):
        with pytest.raises(InvalidRequest):
            call(controller, validate, **missing)


def test_disks_of_another_arrangement_are_not_said_to_be_deleted(controller: CacheController) -> None:
    with pytest.raises(Precondition, match="--disk-dir"):
        call(controller, "DeleteVolume", volume_id="disk-" + "0" * 40)
    call(controller, "DeleteVolume", volume_id="fake")
    offered = {capability.rpc.type for capability in call(controller, "ControllerGetCapabilities").capabilities}
    assert csi_pb2.ControllerServiceCapability.RPC.PUBLISH_UNPUBLISH_VOLUME not in offered
