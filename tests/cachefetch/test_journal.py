from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cachefetch.journal import Failure, Journal

if TYPE_CHECKING:
    from pathlib import Path

FAILURE = Failure(source="abc", count=3, error="it is away: connect it", retry=12.5)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "failures.json")
    journal.write({"deps": FAILURE})
    assert Journal(tmp_path / "failures.json").read() == {"deps": FAILURE}
    journal.write({})
    assert journal.read() == {}


def test_without_a_file_nothing_failed(tmp_path: Path) -> None:
    assert Journal.of(tmp_path).read() == {}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"deps": {"count": "many"}}', b"\xff", b'{"\xff": 1}', b"[" * 100_000]
)
def test_a_damaged_file_is_no_failure_and_is_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "failures.json"
    path.write_bytes(content)
    assert Journal(path).read() == {}
    assert [record.getMessage() for record in caplog.records] == ["journal_damaged"]
