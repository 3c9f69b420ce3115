from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachefetch.model import Totals, Version
from cachefetch.retention import superfluous

IDS = "abcdefgh"


def version(id_: str, published: float) -> Version:
    return Version("c", id_, Totals(0, 0, 0), published)


def dropped(current: str | None, used: str, retain: int, ids: str = IDS) -> str:
    versions = [version(id_, number) for number, id_ in enumerate(ids)]
    return "".join(each.id for each in superfluous(versions, current=current, used=used, retain=retain))


@given(st.permutations(IDS), st.sampled_from([None, *IDS]), st.sets(st.sampled_from(IDS)), st.integers(0, len(IDS) + 1))
def test_current_and_used_stay_and_so_do_the_newest_of_the_others(
    order: list[str], current: str | None, used: set[str], retain: int
) -> None:
    versions = [version(id_, IDS.index(id_)) for id_ in order]
    gone = [each.id for each in superfluous(versions, current=current, used=used, retain=retain)]
    assert current not in gone
    assert used.isdisjoint(gone)
    spare = set(IDS) - used - {current}
    room = retain if current is None or current in used else max(retain - 1, 0)
    assert len(gone) == max(len(spare) - room, 0)
    assert gone == sorted(spare)[: len(gone)], "the oldest go, oldest first"


def test_current_counts_as_one_of_the_retained() -> None:
    assert dropped(current="h", used="", retain=2) == "abcdef"


def test_used_versions_do_not_count() -> None:
    assert dropped(current="h", used="ab", retain=2) == "cdef"


def test_an_old_current_stays_because_new_volumes_get_it() -> None:
    assert dropped(current="a", used="", retain=2) == "bcdefg"


def test_of_an_undeclared_cache_only_what_is_used_stays() -> None:
    assert dropped(current=None, used="c", retain=0) == "abdefgh"


def test_without_versions_nothing_goes() -> None:
    assert dropped(current=None, used="", retain=1, ids="") == ""
