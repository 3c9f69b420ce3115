"""After a reboot every version is looked at once, and what lost something is withdrawn by name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from csi.recheck import boot_file, needs_recheck, recheck
from tests.cachefetch.fakes import CACHE, File, publish
from tests.csi.driver import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachefetch.store import Store


def shorten(store: Store, version_id: str) -> None:
    tree = store.tree(CACHE, version_id)
    (tree / "file").chmod(0o644)
    (tree / "file").write_bytes(b"")


def remove_file(store: Store, version_id: str) -> None:
    (store.tree(CACHE, version_id) / "file").unlink()


def remove_tree(store: Store, version_id: str) -> None:
    tree = store.tree(CACHE, version_id)
    tree.rename(store.trash / "gone")


def cut_manifest(store: Store, version_id: str) -> None:
    manifest = store.manifest(CACHE, version_id)
    manifest.write_bytes(manifest.read_bytes()[:40])


def empty_manifest(store: Store, version_id: str) -> None:
    store.manifest(CACHE, version_id).write_bytes(b"")


def remove_manifest(store: Store, version_id: str) -> None:
    store.manifest(CACHE, version_id).unlink()


def turn_to_directory(store: Store, version_id: str) -> None:
    remove_manifest(store, version_id)
    store.manifest(CACHE, version_id).mkdir()


def add_file(store: Store, version_id: str) -> None:
    (store.tree(CACHE, version_id) / "more").write_bytes(b"")


DAMAGES = (
    shorten, remove_file, remove_tree, cut_manifest, empty_manifest, remove_manifest, turn_to_directory, add_file,
)  # fmt: skip


def test_a_boot_is_checked_once(store: Store) -> None:
    publish(store, [File(b"file", b"x")])
    assert needs_recheck(store, "boot-1")
    assert recheck(store, "boot-1", threading.Event()) == []
    assert not needs_recheck(store, "boot-1")
    assert needs_recheck(store, "boot-2")


def test_an_empty_store_is_sound(store: Store) -> None:
    assert recheck(store, "boot-1", threading.Event()) == []
    assert not needs_recheck(store, "boot-1")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_is_withdrawn_and_named(
    store: Store, damage: Callable[[Store, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    bad = publish(store, [File(b"file", b"bad")])
    good = publish(store, [File(b"file", b"good")])
    other = publish(store, [File(b"file", b"other")], cache="model")
    damage(store, bad.id)
    assert recheck(store, "boot-1", threading.Event()) == [bad.id]
    assert [version.id for version in store.versions(CACHE)] == [good.id]
    assert (store.current(CACHE), store.current("model")) == (good.id, other.id)
    (record,) = (record for record in caplog.records if record.getMessage() == "withdrawn")
    told = record.goldlink_fields  # type: ignore[attr-defined]
    assert (told["cache"], told["version"]) == (CACHE, bad.short)
    assert told["damage"]
    assert not needs_recheck(store, "boot-1")


def test_a_damaged_current_version_is_withdrawn_too(store: Store) -> None:
    """Absent is better than wrong: the next publish waits for a new one."""
    version = publish(store, [File(b"file", b"x")])
    remove_file(store, version.id)
    assert recheck(store, "boot-1", threading.Event()) == [version.id]
    assert store.current(CACHE) is None


def test_what_is_in_use_is_withdrawn_later(store: Store) -> None:
    version = publish(store, [File(b"file", b"x")])
    remove_file(store, version.id)
    found: list[str] = []
    with store.pin(CACHE):
        thread = threading.Thread(
            target=lambda: found.extend(recheck(store, "boot-1", threading.Event(), again=0.02)), daemon=True
        )
        thread.start()
        thread.join(0.2)
        assert store.has(CACHE, version.id)
        assert needs_recheck(store, "boot-1")
    until(lambda: not thread.is_alive())
    assert found == [version.id]
    assert not needs_recheck(store, "boot-1")


def test_stopping_leaves_the_boot_unchecked(store: Store, tmp_path: Path) -> None:
    version = publish(store, [File(b"file", b"x")])
    stop = threading.Event()
    stop.set()
    assert recheck(store, "boot-1", stop) == []
    assert needs_recheck(store, "boot-1")
    remove_file(store, version.id)
    stop = threading.Event()
    with store.pin(CACHE):
        thread = threading.Thread(target=recheck, args=(store, "boot-1", stop, 60), daemon=True)
        thread.start()
        thread.join(0.2)
        stop.set()
        until(lambda: not thread.is_alive())
    assert not boot_file(store).exists()
    store.drop(CACHE, version.id)
