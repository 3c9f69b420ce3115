from __future__ import annotations

import os
import threading
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING

import pytest

from cachefetch.errors import ConfigError
from cachefetch.follow import Follower

if TYPE_CHECKING:
    from cachefetch.config import Config


def text(name: str) -> str:
    return f"caches:\n- name: {name}\n  source: {{type: directory, path: /x}}\n"


class Seen:
    """Collects what a follower tells, and lets a test wait for it."""

    def __init__(self, path: Path, interval: float = 1.0) -> None:
        self.changes: list[Config] = []
        self.errors: list[ConfigError] = []
        self.told = threading.Event()
        self.follower = Follower(path, self._change, self._error, interval)

    def _change(self, config: Config) -> None:
        self.changes.append(config)
        self.told.set()

    def _error(self, error: ConfigError) -> None:
        self.errors.append(error)
        self.told.set()

    def names(self) -> list[str]:
        return [cache.name for cache in self.follower.current.caches]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text("one"))
    return path


@pytest.mark.parametrize("content", [None, "caches: 3", "{"])
def test_an_invalid_file_at_the_start_is_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError):
        Seen(path)


def test_an_untouched_or_merely_touched_file_tells_nothing(path: Path) -> None:
    seen = Seen(path)
    seen.follower.poll()
    os.utime(path, (1, 1))
    seen.follower.poll()
    assert not seen.changes
    assert not seen.errors


def test_an_edit_in_place_of_equal_size_and_time_is_noticed(path: Path) -> None:
    seen = Seen(path)
    before = path.stat()
    path.write_text(text("two"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    seen.follower.poll()
    assert seen.names() == ["two"]
    assert seen.changes == [seen.follower.current]


def test_a_config_map_swap_is_noticed(tmp_path: Path) -> None:
    """A new `..data` symlink is renamed over the old one; the file that is followed is a symlink through it."""
    for version, name in (("..1", "one"), ("..2", "two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "config.yaml").write_text(text(name))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    seen = Seen(tmp_path / "config.yaml")
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    seen.follower.poll()
    assert seen.names() == ["two"]


def test_a_broken_file_is_reported_once_per_content_and_the_last_valid_one_stays(path: Path) -> None:
    seen = Seen(path)
    for content in ("caches: 1", "caches: 1", "caches: 2"):
        path.write_text(content)
        seen.follower.poll()
    path.unlink()
    seen.follower.poll()
    seen.follower.poll()
    assert len(seen.errors) == 3
    assert seen.names() == ["one"]
    assert not seen.changes


def test_back_to_valid_is_told_even_when_it_is_the_old_content(path: Path) -> None:
    seen = Seen(path)
    path.write_text("{")
    seen.follower.poll()
    path.write_text(text("one"))
    seen.follower.poll()
    assert [[cache.name for cache in config.caches] for config in seen.changes] == [["one"]]


def test_a_half_written_file_is_not_taken(path: Path) -> None:
    """The first half of a list of caches is valid YAML; taking it would drop the other half for a moment."""
    seen = Seen(path)
    whole = text("one") + "- name: two\n  source: {type: directory, path: /x}\n"
    path.write_text(text("two"))
    writer = threading.Timer(0.05, path.write_text, [whole])
    writer.start()
    seen.follower.poll()
    writer.join()
    assert [len(config.caches) for config in seen.changes] == [2]


class Restless(PosixPath):
    """A file that somebody changes again and again, until it is left alone."""

    changes = 0
    alone = False

    def read_bytes(self) -> bytes:
        if not self.alone:
            self.changes += 1
            self.write_text(text(f"n{self.changes}"))
        return super().read_bytes()


def test_a_file_that_is_still_being_written_waits_for_the_next_look(tmp_path: Path) -> None:
    path = Restless(tmp_path / "config.yaml")
    seen = Seen(path)
    assert seen.names() == ["n1"]
    seen.follower.poll()
    assert path.changes > 2
    assert seen.names() == ["n1"]
    path.alone = True
    seen.follower.poll()
    assert seen.names() == [f"n{path.changes}"]
    assert not seen.errors


def test_the_thread_notices_and_survives_a_failing_callback(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    def change(config: Config) -> None:
        told.set()
        if config.caches[0].name == "two":
            raise RuntimeError("callback failed")

    follower = Follower(path, change, lambda _: None, interval=0.01)
    follower.start()
    try:
        for name in ("two", "three"):
            told.clear()
            path.write_text(text(name))
            assert told.wait(10)
    finally:
        follower.stop()
    assert follower.current.caches[0].name == "three"
    assert "was not applied" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "config"]
