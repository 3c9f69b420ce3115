"""The driver is in kubelet's plugin directory as long as it runs, whatever happens to the directory, and not longer."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from cachefetch.errors import ConfigError, Precondition
from csi.pb import pluginregistration_pb2 as pb
from csi.pb import pluginregistration_pb2_grpc as pb_grpc
from csi.registration import Registration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "csi.goldlink.dev"
ENDPOINT = "/var/lib/kubelet/plugins/csi.goldlink.dev/csi.sock"


def make(directory: Path, clock: Callable[[], float] = time.monotonic) -> Registration:
    return Registration(directory, driver_name=NAME, csi_socket=Path(ENDPOINT), clock=clock)


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[Registration]:
    driver = make(tmp_path)
    driver.start()
    yield driver
    driver.stop()


def ask(path: Path) -> pb.PluginInfo:
    """What kubelet learns at a registration socket."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        info: pb.PluginInfo = pb_grpc.RegistrationStub(channel).GetInfo(pb.InfoRequest(), timeout=10)
        return info


def refuse(path: Path) -> None:
    """Kubelet tells the driver that it was not registered."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        status = pb.RegistrationStatus(plugin_registered=False, error="the API server is away")
        pb_grpc.RegistrationStub(channel).NotifyRegistrationStatus(status, timeout=10)


def accept(path: Path) -> None:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        pb_grpc.RegistrationStub(channel).NotifyRegistrationStatus(
            pb.RegistrationStatus(plugin_registered=True), timeout=10
        )


def birth(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_kubelet_learns_name_socket_and_version(registered: Registration) -> None:
    info = ask(registered.socket)
    assert (info.type, info.name, info.endpoint) == ("CSIPlugin", NAME, ENDPOINT)
    assert list(info.supported_versions) == ["1.0.0"]


def test_the_socket_is_roots_alone_and_the_only_file(registered: Registration, tmp_path: Path) -> None:
    """Kubelet would take any other socket for a driver."""
    assert registered.socket.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / f"{NAME}-reg.sock"]


def test_stop_takes_the_entry_away_for_good(tmp_path: Path) -> None:
    driver = make(tmp_path)
    driver.start()
    driver.stop()
    driver.look()
    assert list(tmp_path.iterdir()) == []


def test_a_quiet_look_changes_nothing(registered: Registration) -> None:
    """A new socket makes kubelet deregister the driver for a moment."""
    before = birth(registered.socket)
    accept(registered.socket)
    registered.look()
    assert birth(registered.socket) == before


def test_a_killed_drivers_socket_is_replaced(tmp_path: Path) -> None:
    """Also the one in the making, which kubelet does not see."""
    stale = tmp_path / f"{NAME}-reg.sock"
    for path in (stale, tmp_path / f".{NAME}-reg.sock.0123abcd"):
        with closing(socket.socket(socket.AF_UNIX)) as dead:
            dead.bind(str(path))
    before = birth(stale)
    driver = make(tmp_path)
    driver.start()
    try:
        assert birth(stale) != before
        assert ask(stale).name == NAME
        assert list(tmp_path.iterdir()) == [stale]
    finally:
        driver.stop()


def test_the_place_is_never_empty_while_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """Replaced by rename: a process that opens the path all the time never misses it."""
    first, second = make(tmp_path), make(tmp_path)
    first.start()
    watch = subprocess.Popen(
        [sys.executable, "-c", "import os, sys\nprint(flush=True)\nwhile True: os.stat(sys.argv[1])", first.socket],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with watch:
        assert watch.stdout
        watch.stdout.readline()
        second.start()
        assert watch.poll() is None
        watch.kill()
    first.stop()
    second.stop()


def test_a_driver_that_was_replaced_leaves_the_newer_ones_socket(tmp_path: Path) -> None:
    old, new = make(tmp_path), make(tmp_path)
    old.start()
    new.start()
    old.look()
    old.stop()
    assert ask(new.socket).name == NAME
    new.stop()
    assert list(tmp_path.iterdir()) == []


def test_a_socket_that_was_removed_is_made_again(registered: Registration) -> None:
    registered.socket.unlink()
    registered.look()
    assert ask(registered.socket).name == NAME


def test_a_directory_that_is_gone_is_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "r"
    directory.mkdir()
    driver = make(directory)
    driver.start()
    driver.socket.unlink()
    directory.rmdir()
    with pytest.raises((OSError, RuntimeError)):
        driver.look()
    directory.mkdir()
    driver.look()
    assert ask(driver.socket).name == NAME
    driver.stop()


def test_a_refused_driver_asks_again_later_and_ever_later(tmp_path: Path) -> None:
    """Kubelet itself does not ask a second time."""
    clock = 0.0
    driver = make(tmp_path, lambda: clock)
    driver.start()
    pauses = []
    for _ in range(8):
        before, refused_at = birth(driver.socket), clock
        refuse(driver.socket)
        while birth(driver.socket) == before:
            driver.look()
            clock += 1
        pauses.append(clock - 1 - refused_at)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    accept(driver.socket)
    refuse(driver.socket)
    before, clock = birth(driver.socket), clock + 1
    driver.look()
    assert birth(driver.socket) != before
    driver.stop()


def test_a_path_too_long_for_a_socket_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plugin-registration-dir"):
        make(tmp_path / ("d" * 90))


def test_a_missing_directory_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Precondition, match="mount kubelet's plugins_registry"):
        make(tmp_path / "absent").start()


def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}-reg.sock").mkdir()
    with pytest.raises(Precondition):
        make(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}-reg.sock"]
