"""Fixtures of the store: every test that uses one leaves it sound."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cachefetch.store import Store
from tests.cachefetch.fakes import check_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store in a directory of its own; afterwards every golden version still equals its manifest."""
    store = Store.open(tmp_path / "state")
    yield store
    check_store(store)


def run(*command: str | Path) -> None:
    """Run a command that must succeed; its output is in the error."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a file system at a new directory of tmp_path, until the end of the test: `mount(name, *arguments)`."""
    done: list[Path] = []

    def make(name: str, *arguments: str | Path) -> Path:
        place = tmp_path / name
        place.mkdir(exist_ok=True, parents=True)
        run("mount", *arguments, place)
        done.append(place)
        return place

    yield make
    try:
        for place in reversed(done):
            run("umount", place)
    except AssertionError:
        for place in done:
            subprocess.run(["umount", "--lazy", place], check=False)
        raise


@pytest.fixture
def image(tmp_path: Path, mount: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a file system in a file and mounts it: `image(name, megabytes, *mkfs)`; mount(8) takes a loop device."""

    def make(name: str, megabytes: int, *mkfs: str) -> Path:
        file = tmp_path / f"{name}.img"
        with file.open("wb") as out:
            out.truncate(megabytes << 20)
        run(*mkfs, file)
        return mount(name, "-o", "loop", file)

    return make


@pytest.fixture
def umask() -> Iterator[None]:
    """The umask of a careful administrator, which must not reach golden trees."""
    before = os.umask(0o077)
    yield
    os.umask(before)
