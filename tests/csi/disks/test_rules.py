from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import Conflict, InvalidRequest, Precondition
from csi.disks import rules
from csi.disks.errors import OutOfRange
from csi.disks.model import Disk, Filesystem, Hold, Mode, Origin, Seal
from csi.disks.rules import Range
from tests.csi.disks.kit import reader, writer

BUILDING = Disk(id="disk-1", name="one", size=rules.MINIMUM, created=0.0)
SEALED = Disk(
    id="disk-2",
    name="two",
    size=5,
    created=0.0,
    seal=Seal(key="0" * 64, filesystem=Filesystem.EROFS, blocks="1" * 64, size=5),
)
SIZES = st.integers(0, 2**63 - 1)


@given(SIZES, SIZES, st.integers(1, 2**50), st.integers(1, 2**50))
def test_size_is_exact_or_refused(required: int, limit: int, default: int, most: int) -> None:
    """Whatever comes out is what was asked for; what is required and possible comes out exactly."""
    if limit and limit < required:
        with pytest.raises(InvalidRequest):
            rules.check_range(required, limit)
        return
    asked = rules.check_range(required, limit)
    try:
        size = rules.choose_size(asked, least=rules.MINIMUM, default=default, most=most)
    except OutOfRange:
        assert (
            required > most
            or (limit and limit < rules.MINIMUM)
            or most < max(rules.MINIMUM, min(default, limit or default))
        )
        return
    assert asked.admits(size)
    assert rules.MINIMUM <= size <= most
    if required >= rules.MINIMUM:
        assert size == required


@pytest.mark.parametrize(("required", "limit"), [(-1, 0), (0, -1), (2, 1)])
def test_what_is_no_range_is_refused(required: int, limit: int) -> None:
    with pytest.raises(InvalidRequest):
        rules.check_range(required, limit)


@pytest.mark.parametrize("mode", list(Mode))
def test_building_disks_have_writers_and_sealed_ones_readers(mode: Mode) -> None:
    good, bad = (SEALED, BUILDING) if mode.reads_only else (BUILDING, SEALED)
    rules.check_mode(good, mode)
    with pytest.raises(InvalidRequest, match=mode.value):
        rules.check_mode(bad, mode)


def test_only_readers_of_many_nodes_share_a_disk() -> None:
    rules.check_holders(SEALED, [reader("n1"), reader("n3")], reader("n2"))
    alone = Hold(node="n1", mode=Mode.SINGLE_NODE_READER_ONLY, readonly=False)
    for held, wanted in ((writer("n1"), writer("n2")), (alone, reader("n2")), (reader("n2"), alone)):
        with pytest.raises(Precondition, match=held.node):
            rules.check_holders(SEALED, [held], wanted)


def test_same_node_must_ask_for_the_same() -> None:
    rules.check_holders(BUILDING, [writer()], writer())
    with pytest.raises(Conflict, match="readonly"):
        rules.check_holders(BUILDING, [writer()], writer(readonly=True))


def test_readonly_holds_do_not_disturb_a_snapshot() -> None:
    def held(hold: Hold) -> Disk:
        return Disk(id="disk-1", name="one", size=1, created=0.0, staged=(hold,))

    rules.check_quiet(held(writer(readonly=True)), "x")
    rules.check_quiet(held(reader()), "x")
    with pytest.raises(Precondition, match="n1"):
        rules.check_quiet(held(writer()), "x")
    with pytest.raises(Precondition, match="n1"):
        rules.check_unused(held(reader()), "x")


@pytest.mark.parametrize(
    ("name", "asked", "origin", "reads_only"),
    [
        ("other", Range(), Origin(), False),
        ("one", Range(rules.MINIMUM + 1), Origin(), False),
        ("one", Range(0, rules.MINIMUM - 1), Origin(), False),
        ("one", Range(), Origin(snapshot="snap-1"), False),
        ("one", Range(), Origin(), True),
    ],
)
def test_repeat_that_differs_is_a_conflict(name: str, asked: Range, origin: Origin, reads_only: bool) -> None:
    rules.check_same_disk(BUILDING, "one", Range(1, 2 * rules.MINIMUM), Origin(), reads_only=False)
    with pytest.raises(Conflict):
        rules.check_same_disk(BUILDING, name, asked, origin, reads_only=reads_only)


@pytest.mark.parametrize(
    "given", [{"x": ""}, {"pin": "yes"}, {"prefetch": ""}, {"retention": "1"}, {"retention": "-1s"}]
)
def test_settings_without_a_meaning_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(given))):
        rules.check_settings({"pin": "true", **given})


def test_settings_with_a_meaning_are_taken() -> None:
    given = {"pin": "true", "prefetch": "always", "retention": "24h"}
    assert rules.check_settings(given) == given
    assert rules.retention_seconds("24h") == 86400
    assert rules.retention_seconds("0") == rules.retention_seconds("") == 0
