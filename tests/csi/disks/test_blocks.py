from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi.disks import blocks

BLOCK = blocks.BLOCK


def ignore(_count: int) -> None:
    pass


def make(path: Path, size: int, *parts: tuple[int, bytes]) -> Path:
    """A file of that size with these bytes at these places, the rest being holes."""
    with path.open("wb") as file:
        file.truncate(size)
        for place, content in parts:
            file.seek(place)
            file.write(content)
    return path


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5 * BLOCK), st.lists(st.tuples(st.integers(0, 5 * BLOCK), st.binary(max_size=64)), max_size=4))
def test_list_depends_on_content_and_not_on_holes(size: int, parts: list[tuple[int, bytes]]) -> None:
    with TemporaryDirectory() as directory:
        kept = [(place, content) for place, content in parts if place + len(content) <= size]
        sparse = make(Path(directory, "sparse"), size, *kept)
        full = Path(directory, "full")
        full.write_bytes(sparse.read_bytes())
        assert blocks.compute(sparse, ignore) == blocks.compute(full, ignore)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3 * BLOCK - 1), st.integers(1, 255))
def test_any_changed_byte_is_found_and_its_block_named(place: int, change: int) -> None:
    with TemporaryDirectory() as directory:
        image = make(Path(directory, "image"), 3 * BLOCK, (5, b"begin"), (BLOCK + 7, b"middle"))
        listed = blocks.compute(image, ignore)
        beside = Path(directory, "blocks")
        beside.write_bytes(listed)
        digest = blocks.digest(listed)
        assert blocks.damage(image, beside, digest, ignore) == ""
        with image.open("r+b") as file:
            file.seek(place)
            before = file.read(1)[0]
            file.seek(place)
            file.write(bytes((before ^ change,)))
        found = blocks.damage(image, beside, digest, ignore)
        assert found.startswith(f"block {place // BLOCK} (bytes {place // BLOCK * BLOCK} ")


def test_every_byte_is_passed_once(tmp_path: Path) -> None:
    """Progress ends at the size, holes or not; whoever listens may stop it."""
    size = 4 * BLOCK + 3
    for parts in ((), ((0, b"x"),), ((2 * BLOCK + 5, b"x"), (size - 1, b"x"))):
        counts: list[int] = []
        blocks.compute(make(tmp_path / "image", size, *parts), counts.append)
        assert sum(counts) == size

    def stop(_count: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        blocks.compute(tmp_path / "image", stop)


def test_missing_files_wrong_sizes_and_damaged_lists_are_named(tmp_path: Path) -> None:
    image = make(tmp_path / "image", 2 * BLOCK, (3, b"x"))
    beside = tmp_path / "blocks"
    beside.write_bytes(blocks.compute(image, ignore))
    digest = blocks.digest(beside.read_bytes())
    os.truncate(image, 2 * BLOCK - 1)
    assert (
        blocks.damage(image, beside, digest, ignore) == f"file {image} has {2 * BLOCK - 1} bytes instead of {2 * BLOCK}"
    )
    image.unlink()
    assert blocks.damage(image, beside, digest, ignore) == f"file {image} is missing"
    shutil.copy(beside, tmp_path / "copy")
    beside.write_bytes(beside.read_bytes() + b"5 x\n")
    assert blocks.damage(image, beside, digest, ignore) == f"file {beside} is damaged"
    beside.unlink()
    assert blocks.damage(image, beside, digest, ignore) == f"file {beside} is missing"


def test_identity_changes_with_whatever_may_damage(tmp_path: Path) -> None:
    path = make(tmp_path / "image", 10)
    seen = {blocks.identity(path)}
    path.write_bytes(b"0123456789")
    seen.add(blocks.identity(path))
    os.truncate(path, 9)
    seen.add(blocks.identity(path))
    shutil.copy2(path, tmp_path / "other")
    (tmp_path / "other").rename(path)
    seen.add(blocks.identity(path))
    assert len(seen) == 4
