from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import ConfigError
from cachefetch.sources.secretfile import read_secret

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("content", [b"hunter2", b"hunter2\n", b"hunter2\r\n"])
def test_a_secret_is_the_line_without_its_end(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    assert read_secret(str(tmp_path / "s"), "key") == "hunter2"


@pytest.mark.parametrize("content", [b"", b"\n", b"hunter2\nhunter3\n", b"hunter2\0", b"\xffhunter2", b"x" * (1 << 17)])
def test_what_is_no_line_of_text_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(ConfigError, match="does not hold one line of text: write the secret of `key`") as caught:
        read_secret(str(tmp_path / "s"), "key")
    assert "hunter" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_missing_file_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/s cannot be read: No such file or directory; .* correct `passwordFile`"):
        read_secret(str(tmp_path / "s"), "passwordFile")
