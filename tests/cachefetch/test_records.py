from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.records import FORMAT, Records, VolumeRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = VolumeRecord(id="csi-1", cache="deps", version="0a" * 32, target="/var/lib/kubelet/pods/x/mount")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
RECORDS = st.builds(
    VolumeRecord,
    id=st.from_regex(r"csi-[0-9a-f]{1,64}", fullmatch=True),
    cache=TEXTS,
    version=TEXTS,
    target=TEXTS,
    path=TEXTS,
    access=TEXTS,
    asked_version=TEXTS,
    namespace=TEXTS,
    pod=TEXTS,
    pod_uid=TEXTS,
    boot_id=TEXTS,
    slot=TEXTS,
    created=st.floats(0, 1e10),
)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    yield Records(tmp_path)
    assert not list(tmp_path.glob("*/.*")), "no half-written record is left"


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: VolumeRecord) -> None:
    with TemporaryDirectory() as place:
        records = Records(Path(place))
        records.write(record)
        assert records.read(record.id) == record
        assert list(records.all()) == [record]


@given(
    st.binary(max_size=200)
    | st.binary(max_size=9).map(lambda junk: b'{"id":"' + junk + b'"}')
    | st.just(b'{"pod":' + b"[" * 100_000)
    | st.just(b"")
    | st.recursive(st.none(), st.lists).map(json.dumps).map(str.encode)
)
def test_a_damaged_record_reads_as_none(content: bytes) -> None:
    """After a power cut the file may hold anything, and its volume is unmounted then anyway."""
    with TemporaryDirectory() as place:
        records = Records(Path(place))
        records.write(RECORD)
        (records.place(RECORD.id) / "volume.json").write_bytes(content)
        assert records.read(RECORD.id) is None
        assert records.ids() == [RECORD.id]
        assert list(records.all()) == []


@given(st.data())
def test_a_record_that_is_cut_off_reads_as_none(data: st.DataObject) -> None:
    with TemporaryDirectory() as place:
        records = Records(Path(place))
        records.write(RECORD)
        path = records.place(RECORD.id) / "volume.json"
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        assert records.read(RECORD.id) is None


def test_the_last_written_record_counts(records: Records) -> None:
    records.write(RECORD)
    newer = VolumeRecord(id=RECORD.id, cache="deps", version="0b" * 32, target=RECORD.target, slot="0a")
    records.write(newer)
    assert list(records.all()) == [newer]


def test_a_volume_with_a_directory_but_no_record_is_listed_by_its_id(records: Records) -> None:
    records.place("csi-2").mkdir()
    records.write(RECORD)
    assert records.ids() == ["csi-1", "csi-2"]
    assert records.read("csi-2") is None
    assert records.read("absent") is None
    assert list(records.all()) == [RECORD]


def test_a_stray_file_among_the_volumes_is_no_record(records: Records) -> None:
    (records.directory / "stray").write_text("{}")
    assert records.read("stray") is None
    assert list(records.all()) == []


def test_without_a_directory_there_are_no_volumes(tmp_path: Path) -> None:
    records = Records(tmp_path / "absent")
    assert records.ids() == []
    assert list(records.all()) == []


def test_a_record_of_a_later_goldlink_with_more_keys_is_read(records: Records) -> None:
    """An older node plug-in after a downgrade must still know which versions are in use."""
    records.write(RECORD)
    path = records.place(RECORD.id) / "volume.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": FORMAT + 1, "later": [1]}))
    read = records.read(RECORD.id)
    assert read is not None
    assert (read.version, read.format) == (RECORD.version, FORMAT + 1)


def test_only_root_sees_what_pods_use(records: Records) -> None:
    records.write(RECORD)
    assert records.place(RECORD.id).stat().st_mode & 0o777 == 0o700
