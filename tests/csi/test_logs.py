"""Annotations end up with the RPC that runs, and with no other."""

from __future__ import annotations

import threading

import pytest

from csi.logs import annotate, collecting


def test_annotations_of_the_body_are_collected_and_later_ones_win() -> None:
    with collecting() as fields:
        annotate(cache="deps", version="a")
        annotate(version="b", link_mode="hardlink")
    assert fields == {"cache": "deps", "version": "b", "link_mode": "hardlink"}


def test_annotations_outside_of_an_rpc_go_nowhere() -> None:
    annotate(cache="before")
    with collecting() as fields:
        pass
    annotate(cache="after")
    assert fields == {}


def test_annotations_survive_an_error() -> None:
    def fail() -> None:
        annotate(cache="deps")
        raise KeyError

    with pytest.raises(KeyError), collecting() as fields:
        fail()
    assert fields == {"cache": "deps"}


def test_two_threads_do_not_mix() -> None:
    barrier = threading.Barrier(2, timeout=10)
    seen: dict[str, dict[str, object]] = {}

    def serve(name: str) -> None:
        with collecting() as fields:
            barrier.wait()
            annotate(volume=name)
            barrier.wait()
        seen[name] = fields

    threads = [threading.Thread(target=serve, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == {"one": {"volume": "one"}, "two": {"volume": "two"}}
