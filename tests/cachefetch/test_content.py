from __future__ import annotations

import io

from cachefetch.content import Measured, Resumed


class Continued:
    """Content of which the first bytes are of an earlier try; a thread has looked `ahead` at some of them already."""

    def __init__(self, content: bytes, left: int, ahead: int = 0) -> None:
        self._content = io.BytesIO(content)
        self._left = left
        self._ahead = ahead

    @property
    def recalled(self) -> int:
        return min(self._left, self._content.tell() + self._ahead)

    def read(self, size: int, /) -> bytes:
        return self._content.read(size)


def test_what_is_recalled_is_told_once_and_before_it_is_read() -> None:
    for ahead in (0, 3):
        told: list[int] = []
        content = Resumed(Continued(b"0123456789", 6, ahead), told.append)
        read = 0
        while chunk := content.read(4):
            read += len(chunk)
            assert sum(told) >= min(6, read)
        assert (read, sum(told)) == (10, 6)


def test_all_that_is_read_is_measured() -> None:
    told: list[int] = []
    content = Measured(io.BytesIO(b"012345"), told.append)
    assert [content.read(4) for _ in range(3)] == [b"0123", b"45", b""]
    assert told == [4, 2, 0]
