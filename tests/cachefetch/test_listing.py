from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cachefetch.journal import Failure, Journal
from cachefetch.listing import remembered, show, told
from cachefetch.refresh import identify
from cachefetch.store import Store
from cachefetch.work import State, Status
from tests.cachefetch.commandline import Output, cache, config, output, published, store, use
from tests.cachefetch.fakes import CACHE

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["output", "store"]


def status(name: str = CACHE, state: State = State.IDLE, next_in: float | None = 240, error: str = "") -> Status:
    return Status(name, state, "", 0, None, next_in, error, 2 if error else 0, f"what {name} does")


def test_the_list_has_a_row_for_every_version_and_for_a_cache_without_one(store: Store, output: Output) -> None:
    old = published(store, b"1")
    os.utime(store.manifest(CACHE, old.id).parent, (1, 1))
    new = published(store, b"22")
    use(store, old, "v1")
    use(store, old, "v2")
    gone = published(store, b"1", "gone")
    assert show(store, ["empty", CACHE], {}, output.terminal, as_json=False) == 0
    rows = [line.split() for line in output.out]
    assert rows[0] == ["CACHE", "VERSION", "SIZE", "FILES", "AGE", "USERS", "NOTE"]
    assert rows[1] == ["empty", "-", "-", "-", "-", "0", "no", "version"]
    assert [*rows[2][:5], *rows[2][6:]] == [CACHE, new.short, "98", "KiB", "2", "0", "current"]
    assert [*rows[3][:5], *rows[3][6:]] == [CACHE, old.short, "98", "KiB", "2", "2"]
    assert rows[4][0:2] + rows[4][-2:] == ["gone", gone.short, "current,", "undeclared"]
    assert all(len(line) <= 100 for line in output.out)


def test_the_longest_names_and_largest_figures_fit_a_hundred_columns(store: Store, output: Output) -> None:
    published(store, name="n" * 63)
    assert show(store, [], {}, output.terminal, as_json=False) == 0
    assert max(map(len, output.out)) <= 100
    assert "…" in output.out[1]


def test_the_list_as_json_has_whole_ids_and_plain_figures(store: Store, output: Output) -> None:
    version = published(store)
    use(store, version)
    assert show(store, ["empty", CACHE], {}, output.terminal, as_json=True) == 0
    empty, row = output.json()
    unknown = {"state": None, "next": None, "error": None, "failures": 0}
    assert empty == {"cache": "empty", "declared": True, "version": None, **unknown}
    assert row.pop("published").endswith("+00:00")
    assert row.pop("age") >= 0
    assert row == {
        "cache": CACHE, "declared": True, "version": version.id, "current": True, "users": 1, "damaged": False,
        "bytes": 100_001, "files": 2, "entries": 3, **unknown,
    }  # fmt: skip


def test_a_version_that_cannot_be_read_is_listed_as_damaged(store: Store, output: Output) -> None:
    version, other = published(store), published(store, b"22")
    store.manifest(CACHE, version.id).write_bytes(b"rubbish\n")
    store.manifest(CACHE, other.id).unlink()
    assert show(store, [CACHE], {}, output.terminal, as_json=False) == 0
    lines = {line.split()[1]: line for line in output.out[1:]}
    assert lines[version.short].endswith("  damaged")
    assert lines[other.short].endswith("  damaged, current")


def test_listing_makes_no_store(tmp_path: Path, output: Output) -> None:
    assert show(Store(tmp_path / "none"), [CACHE], {}, output.terminal, as_json=False) == 0
    assert output.out[1].split()[0] == CACHE
    assert not (tmp_path / "none").exists()


def test_what_the_fetcher_does_is_told_beside_the_current_version_and_below(store: Store, output: Output) -> None:
    old = published(store, b"1")
    os.utime(store.manifest(CACHE, old.id).parent, (1, 1))
    published(store, b"22")
    doings = told([status(), status("hand", next_in=None), status("bad", State.FAILED, error="it is away: connect it")])
    assert show(store, [CACHE, "hand", "bad"], doings, output.terminal, as_json=False) == 0
    assert output.out[1].endswith("current, next look in 4m00s")
    assert "next look" not in output.out[2]
    assert output.out[3].endswith("no version, by hand only")
    assert output.out[4].endswith("no version")
    assert output.out[5:] == ["bad: what bad does"]


def test_what_the_fetcher_does_is_in_the_json(store: Store, output: Output) -> None:
    doings = told([status(state=State.FAILED, next_in=12.34, error="it is away: connect it")])
    assert show(store, [CACHE], doings, output.terminal, as_json=True) == 0
    [row] = output.json()
    assert row["state"] == "failed"
    assert row["next"] == 12.3
    assert row["error"] == "it is away: connect it"
    assert row["failures"] == 2


def test_without_a_fetcher_the_last_failure_is_remembered_if_the_source_is_the_same(
    store: Store, output: Output
) -> None:
    failure = Failure(source=identify(cache()), count=3, error="it is away: connect it", retry=130.0)
    Journal.of(store.root).write({CACHE: failure, "other": failure})
    doings = remembered(store, config(CACHE, "other"), 100.0)
    assert show(store, [CACHE, "other"], doings, output.terminal, as_json=False) == 0
    assert output.out[3:] == ["deps: last try failed: it is away: connect it; no fetcher is running"]
    assert doings[CACHE].failures == 3
    assert doings[CACHE].next_in == 30.0
