"""The Controller service on a real backend, in this process; over sockets it is tested in tests/csi/disks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cachefetch.config import parse
from cachefetch.errors import Conflict, InvalidRequest, NotAllowed, NotReady, UnknownVolume
from csi.controller import CAPABILITIES, Controller
from csi.disks.errors import BadToken, UnknownSnapshot
from csi.pb import csi_pb2
from csi.permissions import CLAIM_NAMESPACE
from tests.cachefetch.fakes import File, publish
from tests.csi.disks.cluster import READERS, WRITER, MiB
from tests.csi.disks.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi.arrivals import Caller
    from csi.requests import Pod

CONFIG = parse("""
caches:
  - {name: deps, source: {type: directory, path: /srv}}
  - {name: vault, source: {type: directory, path: /srv}, access: {namespaces: [bank]}}
""")
TEAM = {CLAIM_NAMESPACE: "team-a"}
BANK = {CLAIM_NAMESPACE: "bank"}


class Context:
    """What the handlers ask of the RPC."""

    def time_remaining(self) -> float | None:
        return None


class Arriving:
    """Arrivals of which one is current, and pinned ones are there."""

    def __init__(self) -> None:
        self.current = ""
        self.asked: list[tuple[str, str]] = []

    def wait(self, cache: str, version: str, caller: Caller, pod: Pod | None = None) -> str:
        self.asked.append((cache, version))
        if not (version or self.current):
            raise NotReady("nothing is here yet")
        return version or self.current


class Service:
    """A controller and its parts."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.arrivals = Arriving()
        self.controller = Controller(kit.images, kit.snapshots, self.arrivals, config=lambda: CONFIG)

    def call(self, method: str, **given: Any) -> Any:
        message = getattr(csi_pb2, f"{method}Request")(**given)
        return getattr(self.controller, method)(message, Context())

    def create(self, name: str = "disk", capability: Any = WRITER, **given: Any) -> Any:
        return self.call("CreateVolume", name=name, volume_capabilities=[capability], **given).volume


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    kit = Kit(tmp_path)
    yield Service(kit)
    kit.jobs.close()


def size(required: int, limit: int = 0) -> csi_pb2.CapacityRange:
    return csi_pb2.CapacityRange(required_bytes=required, limit_bytes=limit)


def from_snapshot(snapshot_id: str) -> csi_pb2.VolumeContentSource:
    return csi_pb2.VolumeContentSource(snapshot=csi_pb2.VolumeContentSource.SnapshotSource(snapshot_id=snapshot_id))


def from_volume(volume_id: str) -> csi_pb2.VolumeContentSource:
    return csi_pb2.VolumeContentSource(volume=csi_pb2.VolumeContentSource.VolumeSource(volume_id=volume_id))


def test_capabilities_are_those_of_the_service(service: Service) -> None:
    answer = service.call("ControllerGetCapabilities")
    assert tuple(capability.rpc.type for capability in answer.capabilities) == CAPABILITIES


def test_repeated_create_gives_the_same_and_another_is_a_conflict(service: Service) -> None:
    volume = service.create(capacity_range=size(2 * MiB, 3 * MiB))
    assert volume == service.create(capacity_range=size(MiB))
    with pytest.raises(Conflict):
        service.create(capacity_range=size(3 * MiB))
    for _ in range(2):
        service.call("DeleteVolume", volume_id=volume.volume_id)


def test_repeat_keeps_the_version_that_was_chosen_first(service: Service) -> None:
    first = publish(service.kit.store, (File(b"a", b"1"),))
    second = publish(service.kit.store, (File(b"a", b"2"),))
    service.arrivals.current = first.id
    volume = service.create("c", READERS, parameters={**TEAM, "cache": "deps"})
    assert volume.volume_context == {"cache": "deps", "version": first.id}
    service.arrivals.current = second.id
    assert service.create("c", READERS, parameters={**TEAM, "cache": "deps"}) == volume
    pinned = service.create("p", READERS, parameters={**TEAM, "cache": "deps", "version": second.id})
    assert pinned.volume_context["version"] == second.id
    assert service.arrivals.asked == [("deps", ""), ("deps", second.id)]


def test_what_is_sealed_needs_the_store_no_more(service: Service) -> None:
    """Neither a repeat nor another disk of a pinned version waits for a fetcher."""
    store = service.kit.store
    version = service.arrivals.current = publish(store, (File(b"a", b"1"),)).id
    first = service.create("c", READERS, parameters={**TEAM, "cache": "deps"})
    store.drop("deps", version)
    service.arrivals.current = ""
    assert service.create("c", READERS, parameters={**TEAM, "cache": "deps"}) == first
    service.create("p", READERS, parameters={**TEAM, "cache": "deps", "version": version})
    assert len(service.arrivals.asked) == 1


def test_who_may_not_use_a_cache_learns_nothing_and_waits_for_nothing(service: Service) -> None:
    for parameters in (TEAM, {}):
        with pytest.raises((NotAllowed, InvalidRequest)):
            service.create("c", READERS, parameters={**parameters, "cache": "vault"})
    with pytest.raises(InvalidRequest, match="ReadOnlyMany"):
        service.create("c", WRITER, parameters={**BANK, "cache": "vault"})
    assert service.arrivals.asked == []
    with pytest.raises(NotReady):
        service.create("c", READERS, parameters={**BANK, "cache": "vault"})


def test_sources_are_named_in_the_answer(service: Service) -> None:
    """The provisioner deletes a volume whose answer does not name its source."""
    disk = service.create(capacity_range=size(MiB)).volume_id
    snapshot = service.call("CreateSnapshot", name="s", source_volume_id=disk).snapshot
    for number, source in enumerate((from_snapshot(snapshot.snapshot_id), from_volume(disk))):
        for capability in (READERS, WRITER):
            name = f"copy-{number}-{capability.access_mode.mode}"
            volume = service.create(name, capability, volume_content_source=source)
            assert volume.content_source == source
            assert service.call("ControllerGetVolume", volume_id=volume.volume_id).volume == volume
    with pytest.raises(UnknownSnapshot):
        service.create("x", volume_content_source=from_snapshot("snap-x"))
    with pytest.raises(UnknownVolume):
        service.create("x", volume_content_source=from_volume("disk-x"))


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("DeleteVolume", {}),
        ("ControllerPublishVolume", {"node_id": "n1", "volume_capability": WRITER}),
        ("ControllerPublishVolume", {"volume_id": "x", "volume_capability": WRITER}),
        ("ControllerPublishVolume", {"volume_id": "x", "node_id": "n1"}),
        ("ControllerUnpublishVolume", {}),
        ("ValidateVolumeCapabilities", {"volume_capabilities": [WRITER]}),
        ("ValidateVolumeCapabilities", {"volume_id": "x"}),
        ("ControllerGetVolume", {}),
        ("ControllerExpandVolume", {"capacity_range": size(1)}),
        ("ControllerExpandVolume", {"volume_id": "x"}),
        ("ControllerModifyVolume", {}),
        ("CreateSnapshot", {"source_volume_id": "x"}),
        ("CreateSnapshot", {"name": "x"}),
        ("CreateSnapshot", {"name": "x", "source_volume_id": "x", "parameters": {"color": "red"}}),
        ("DeleteSnapshot", {}),
        ("GetSnapshot", {}),
    ],
)
def test_missing_fields_come_before_anything_else(service: Service, method: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        service.call(method, **fields)


def test_publishing_is_seen_in_the_lists(service: Service) -> None:
    disk = service.create(capacity_range=size(MiB)).volume_id
    request = {"volume_id": disk, "node_id": "n1", "volume_capability": WRITER, "readonly": True}
    for _ in range(2):
        assert service.call("ControllerPublishVolume", **request).publish_context == {"readonly": "true"}
    (entry,) = service.call("ListVolumes").entries
    assert list(entry.status.published_node_ids) == ["n1"]
    assert not entry.status.volume_condition.abnormal
    for node in ("n2", "n1", "n1", ""):
        service.call("ControllerUnpublishVolume", volume_id=disk, node_id=node)
    (entry,) = service.call("ListVolumes").entries
    assert list(entry.status.published_node_ids) == []


def test_a_list_reads_no_image_and_a_question_does(service: Service) -> None:
    service.arrivals.current = publish(service.kit.store, (File(b"a", b"1"),)).id
    disk = service.create("c", READERS, parameters={**TEAM, "cache": "deps"}).volume_id
    (entry,) = service.call("ListVolumes").entries
    assert "not read yet" in entry.status.volume_condition.message
    service.call("ControllerGetVolume", volume_id=disk)
    (entry,) = service.call("ListVolumes").entries
    assert "is what was sealed" in entry.status.volume_condition.message


def test_what_is_not_offered_is_said_and_not_confirmed(service: Service) -> None:
    disk = service.create(capacity_range=size(MiB)).volume_id
    good = service.call("ValidateVolumeCapabilities", volume_id=disk, volume_capabilities=[WRITER])
    assert list(good.confirmed.volume_capabilities) == [WRITER]
    bad = service.call("ValidateVolumeCapabilities", volume_id=disk, volume_capabilities=[WRITER, READERS])
    assert not bad.HasField("confirmed")
    assert "building" in bad.message
    block = csi_pb2.VolumeCapability(block=csi_pb2.VolumeCapability.BlockVolume())
    assert service.call("GetCapacity", volume_capabilities=[block]).available_capacity == 0
    assert service.call("GetCapacity").available_capacity > 0


def test_snapshots_are_listed_by_id_and_source(service: Service) -> None:
    disks = [service.create(f"d{number}", capacity_range=size(MiB)).volume_id for number in range(2)]
    made = [
        service.call("CreateSnapshot", name=f"s{number}", source_volume_id=disks[number % 2]).snapshot
        for number in range(4)
    ]
    assert all(snapshot.ready_to_use and snapshot.size_bytes == MiB for snapshot in made)

    def listed(**given: Any) -> list[str]:
        return [entry.snapshot.snapshot_id for entry in service.call("ListSnapshots", **given).entries]

    ids = sorted(snapshot.snapshot_id for snapshot in made)
    assert listed() == ids
    assert listed(snapshot_id=ids[1]) == [ids[1]]
    assert listed(source_volume_id=disks[0]) == sorted(made[number].snapshot_id for number in (0, 2))
    assert listed(snapshot_id="x") == listed(source_volume_id="x") == []
    first = service.call("ListSnapshots", max_entries=3)
    assert listed(starting_token=first.next_token) == ids[3:]
    with pytest.raises(BadToken):
        listed(starting_token="disk-x")
    assert service.call("GetSnapshot", snapshot_id=ids[0]).snapshot.snapshot_id == ids[0]
    service.call("DeleteSnapshot", snapshot_id=ids[0])
    with pytest.raises(UnknownSnapshot):
        service.call("GetSnapshot", snapshot_id=ids[0])


def test_settings_are_all_applied_or_none(service: Service) -> None:
    disk = service.create(capacity_range=size(MiB), mutable_parameters={"pin": "true"}).volume_id
    with pytest.raises(InvalidRequest):
        service.call("ControllerModifyVolume", volume_id=disk, mutable_parameters={"pin": "false", "x": "y"})
    assert service.kit.images.get(disk).settings == {"pin": "true"}
    service.call("ControllerModifyVolume", volume_id=disk, mutable_parameters={})
    assert service.kit.images.get(disk).settings == {"pin": "true"}


def test_growing_needs_nothing_of_the_node(service: Service) -> None:
    disk = service.create(capacity_range=size(MiB)).volume_id
    answer = service.call("ControllerExpandVolume", volume_id=disk, capacity_range=size(3 * MiB))
    assert (answer.capacity_bytes, answer.node_expansion_required) == (3 * MiB, False)
