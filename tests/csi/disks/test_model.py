from __future__ import annotations

import msgspec
import pytest

from csi.disks.model import Disk, Filesystem, Mode, Origin, Seal
from csi.pb import csi_pb2
from tests.csi.disks.kit import reader, writer


def test_modes_are_those_of_csi_without_writers_on_several_nodes() -> None:
    names = set(csi_pb2.VolumeCapability.AccessMode.Mode.keys())
    assert {mode.value for mode in Mode} == {
        name for name in names if not name.startswith("MULTI_NODE") or name == "MULTI_NODE_READER_ONLY"
    } - {"UNKNOWN"}


def test_only_writers_that_may_write_write() -> None:
    assert writer().writes
    assert not writer(readonly=True).writes
    assert not reader().writes


def test_record_keeps_everything_and_writes_no_defaults() -> None:
    seal = Seal(key="0" * 64, filesystem=Filesystem.EROFS, blocks="1" * 64, size=4096)
    disk = Disk(
        id="disk-1", name="n", size=1, created=1.5, origin=Origin(cache="deps"), seal=seal, attached=(reader(),)
    )
    assert msgspec.json.decode(msgspec.json.encode(disk), type=Disk) == disk
    assert disk.holds == (reader(),)
    plain = msgspec.json.decode(msgspec.json.encode(Disk(id="disk-1", name="n", size=1, created=0.0)))
    assert set(plain) == {"id", "name", "size", "created"}


def test_record_of_a_newer_version_with_more_fields_is_read() -> None:
    text = b'{"id": "disk-1", "name": "n", "size": 1, "created": 0, "later": [1], "format": 1}'
    assert msgspec.json.decode(text, type=Disk).name == "n"


@pytest.mark.parametrize("text", [b'{"id": "disk-1"}', b'{"id": 1, "name": "n", "size": 1, "created": 0}'])
def test_record_without_what_it_needs_is_an_error(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(text, type=Disk)
