from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cachefetch.errors import InvalidRequest
from csi.disks.errors import UnknownSnapshot
from csi.group_controller import GroupController
from csi.pb import csi_pb2
from tests.csi.disks.kit import Kit
from tests.csi.test_controller import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(tmp_path)
    yield kit
    kit.jobs.close()


@pytest.fixture
def call(kit: Kit) -> Callable[..., Any]:
    groups = GroupController(kit.snapshots)

    def call(method: str, **given: Any) -> Any:
        return getattr(groups, method)(getattr(csi_pb2, f"{method}Request")(**given), Context())

    return call


def test_group_names_its_snapshots_and_they_name_it(kit: Kit, call: Callable[..., Any]) -> None:
    disks = [kit.create(f"disk-{number}").id for number in range(2)]
    group = call("CreateVolumeGroupSnapshot", name="set", source_volume_ids=disks).group_snapshot
    assert group.ready_to_use
    assert {snapshot.group_snapshot_id for snapshot in group.snapshots} == {group.group_snapshot_id}
    ids = [snapshot.snapshot_id for snapshot in group.snapshots]
    for snapshot_ids in ([], ids, ids[::-1]):
        got = call("GetVolumeGroupSnapshot", group_snapshot_id=group.group_snapshot_id, snapshot_ids=snapshot_ids)
        assert got.group_snapshot == group
    for method in ("GetVolumeGroupSnapshot", "DeleteVolumeGroupSnapshot"):
        with pytest.raises(InvalidRequest, match="do not match"):
            call(method, group_snapshot_id=group.group_snapshot_id, snapshot_ids=ids[:1])
    for _ in range(2):
        call("DeleteVolumeGroupSnapshot", group_snapshot_id=group.group_snapshot_id, snapshot_ids=ids)
    with pytest.raises(UnknownSnapshot):
        call("GetVolumeGroupSnapshot", group_snapshot_id=group.group_snapshot_id)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("CreateVolumeGroupSnapshot", {"source_volume_ids": ["x"]}),
        ("CreateVolumeGroupSnapshot", {"name": "x"}),
        ("CreateVolumeGroupSnapshot", {"name": "x", "source_volume_ids": ["x"], "parameters": {"color": "red"}}),
        ("DeleteVolumeGroupSnapshot", {}),
        ("GetVolumeGroupSnapshot", {}),
    ],
)
def test_missing_fields_are_named(call: Callable[..., Any], method: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        call(method, **fields)


def test_service_can_do_what_it_says(call: Callable[..., Any]) -> None:
    (capability,) = call("GroupControllerGetCapabilities").capabilities
    assert capability.rpc.type == capability.RPC.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
