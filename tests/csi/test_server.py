"""The socket's life, and short calls beside hundreds of waiting ones."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import Busy, ConfigError, Precondition
from cachefetch.sockets import SOCKET_PATH_MAX
from csi import waiters
from csi.identity import Identity
from csi.metrics import Metrics
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.server import WORKERS, Server, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Node(csi_pb2_grpc.NodeServicer):
    """Publishes of volumes named `wait…` wait for `go`, with a place among the waiters."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.stopping = False
        self.waiters = waiters.Waiters()

    def NodePublishVolume(  # noqa: N802 - the name in csi.proto
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        if request.volume_id.startswith("wait"):
            with self.waiters.waiting(self.wake):
                self.go.wait(60)
                if self.stopping:
                    raise Busy("the driver is stopping: try again")
        return csi_pb2.NodePublishVolumeResponse()

    def wake(self) -> None:
        self.stopping = True
        self.go.set()

    def NodeUnpublishVolume(  # noqa: N802 - the name in csi.proto
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        return csi_pb2.NodeUnpublishVolumeResponse()


def make(path: Path, node: Node | None = None) -> Server:
    identity = Identity(name="csi.goldlink.dev", version="1", services=[], ready=lambda: True)
    return Server(path, Metrics("1"), identity=identity, node=node)


@contextmanager
def serving(path: Path, node: Node | None = None) -> Iterator[Server]:
    server = make(path, node)
    server.start()
    try:
        yield server
    finally:
        if node:
            node.go.set()
        assert server.stop(10)


@contextmanager
def client(path: Path, *options: tuple[str, str]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        yield channel


def probe(path: Path) -> bool:
    with client(path) as channel:
        return csi_pb2_grpc.IdentityStub(channel).Probe(csi_pb2.ProbeRequest(), timeout=20).ready.value


def publish(channel: grpc.Channel, volume: str) -> grpc._CallFuture[csi_pb2.NodePublishVolumeResponse]:
    request = csi_pb2.NodePublishVolumeRequest(volume_id=volume)
    return csi_pb2_grpc.NodeStub(channel).NodePublishVolume.future(request, timeout=60)


def until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds; fail when that takes very long."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("the condition never held")


@pytest.mark.parametrize("endpoint", ["unix:///run/csi.sock", "unix:/run/csi.sock"])
def test_both_forms_of_unix_endpoints_are_read(endpoint: str) -> None:
    assert parse_endpoint(endpoint) == Path("/run/csi.sock")


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "/run/csi.sock",
        "tcp://127.0.0.1:10000",
        "unix://csi.sock",
        "unix:csi.sock",
        "unix:///run/csi",
        "unix-abstract:/csi.sock",
        "dns:///host:1",
        "UNIX:///run/csi.sock",
    ],
)
def test_other_endpoints_are_refused_with_an_example(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"--endpoint: .*for example unix:///csi/csi\.sock"):
        parse_endpoint(endpoint)


def test_the_longest_path_is_served_and_one_byte_more_refused(tmp_path: Path) -> None:
    room = SOCKET_PATH_MAX - len(os.fsencode(tmp_path)) - len("/.sock")
    path = tmp_path / ("a" * room + ".sock")
    with serving(parse_endpoint(f"unix://{path}")):
        assert probe(path)
    with pytest.raises(ConfigError, match="107 bytes"):
        parse_endpoint(f"unix://{tmp_path}/{'a' * (room + 1)}.sock")


@given(st.text())
def test_any_text_is_an_endpoint_or_a_config_error(text: str) -> None:
    try:
        path = parse_endpoint(text)
    except ConfigError:
        return
    assert path.is_absolute()
    assert path.suffix == ".sock" or path.name == ".sock"


def test_the_socket_appears_with_start_alone_in_a_new_directory_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "plugins" / "csi.goldlink.dev" / "csi.sock"
    server = make(path)
    assert not path.parent.exists()
    server.start()
    status = path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.geteuid()
    assert list(path.parent.iterdir()) == [path]
    assert server.stop(10)
    assert list(path.parent.iterdir()) == []


def test_a_socket_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    program = f"import os, socket; socket.socket(socket.AF_UNIX).bind({str(path)!r}); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", program], check=False, timeout=30)
    assert path.is_socket()
    with serving(path):
        assert probe(path)


def test_a_socket_that_somebody_serves_stays_theirs(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with serving(path):
        inode = path.stat().st_ino
        with pytest.raises(Precondition, match="another process serves"):
            make(path).start()
        assert path.stat().st_ino == inode
        assert probe(path)


def test_a_socket_whose_server_is_busy_stays_theirs(tmp_path: Path) -> None:
    """With a full backlog a connection would block: that is no refusal."""
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        with pytest.raises(Precondition, match="another process serves"):
            make(path).start()
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "fifo"])
def test_what_is_no_socket_is_left_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to("nowhere")
    else:
        os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(Precondition, match="not a socket"):
        make(path).start()
    assert path.lstat() == before


def test_an_unusable_directory_is_refused_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "csi.sock"
    with pytest.raises(Precondition, match=r"csi\.sock.*use a writable directory"):
        make(path).start()


def test_clients_that_call_themselves_localhost_are_served(tmp_path: Path) -> None:
    """Go clients send `:authority: localhost` over unix sockets."""
    path = tmp_path / "csi.sock"
    with serving(path), client(path, ("grpc.default_authority", "localhost")) as channel:
        stub = csi_pb2_grpc.IdentityStub(channel)
        assert stub.GetPluginInfo(csi_pb2.GetPluginInfoRequest(), timeout=20).name == "csi.goldlink.dev"


def test_beside_as_many_waiting_publishes_as_may_wait_short_calls_are_served_and_one_more_is_aborted(
    tmp_path: Path,
) -> None:
    path, node = tmp_path / "csi.sock", Node()
    with serving(path, node), client(path) as channel:
        waiting = [publish(channel, f"wait-{number}") for number in range(waiters.LIMIT)]
        until(lambda: node.waiters.count == waiters.LIMIT)
        assert publish(channel, "wait-more").code() is grpc.StatusCode.ABORTED
        assert probe(path)
        stub = csi_pb2_grpc.NodeStub(channel)
        for number in range(50):
            stub.NodeUnpublishVolume(csi_pb2.NodeUnpublishVolumeRequest(volume_id=f"v{number}"), timeout=20)
            assert publish(channel, f"v{number}").code() is grpc.StatusCode.OK
        assert not any(call.done() for call in waiting)
        node.go.set()
        assert {call.code() for call in waiting} == {grpc.StatusCode.OK}


def test_only_the_given_services_are_served(tmp_path: Path) -> None:
    """A method of a served service that is left out, and a service that is not served, differ in their texts."""
    path = tmp_path / "csi.sock"
    identity = Identity(name="csi.goldlink.dev", version="1", services=[], ready=lambda: True)
    server = Server(
        path,
        Metrics("1"),
        identity=identity,
        controller=csi_pb2_grpc.ControllerServicer(),
        group_controller=csi_pb2_grpc.GroupControllerServicer(),
    )
    server.start()
    with client(path) as channel:
        create = csi_pb2_grpc.ControllerStub(channel).CreateVolume.future(csi_pb2.CreateVolumeRequest())
        assert "CreateVolume is not offered" in create.details()
        group = csi_pb2_grpc.GroupControllerStub(channel)
        get = group.GetVolumeGroupSnapshot.future(csi_pb2.GetVolumeGroupSnapshotRequest())
        assert "GetVolumeGroupSnapshot is not offered" in get.details()
        info = csi_pb2_grpc.NodeStub(channel).NodeGetInfo.future(csi_pb2.NodeGetInfoRequest())
        assert info.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "is not offered" not in info.details()
    assert server.stop(10)


def test_more_threads_than_waiters() -> None:
    assert WORKERS >= waiters.LIMIT + 100


def test_stop_lets_running_calls_finish_and_refuses_new_ones(tmp_path: Path) -> None:
    path, node = tmp_path / "csi.sock", Node()
    server = make(path, node)
    server.start()
    with client(path) as channel:
        running = publish(channel, "wait")
        until(lambda: node.waiters.count == 1)
        results: list[bool] = []
        stopping = threading.Thread(target=lambda: results.append(server.stop(30)))
        stopping.start()
        until(lambda: not path.exists())
        assert publish(channel, "late").code() is grpc.StatusCode.UNAVAILABLE
        assert not running.done()
        node.go.set()
        assert running.code() is grpc.StatusCode.OK
        stopping.join(30)
    assert results == [True]
    assert not path.exists()


def test_closing_the_waiters_before_stop_aborts_those_who_wait(tmp_path: Path) -> None:
    path, node = tmp_path / "csi.sock", Node()
    server = make(path, node)
    server.start()
    with client(path) as channel:
        waiting = [publish(channel, f"wait-{number}") for number in range(20)]
        until(lambda: node.waiters.count == 20)
        node.waiters.close()
        assert {call.code() for call in waiting} == {grpc.StatusCode.ABORTED}
        assert server.stop(30)


def test_stop_tells_of_calls_that_outlive_the_grace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, node = tmp_path / "csi.sock", Node()
    server = make(path, node)
    server.start()
    with client(path) as channel:
        call = publish(channel, "wait")
        until(lambda: node.waiters.count == 1)
        assert not server.stop(0.2)
        assert call.code() is not grpc.StatusCode.OK
        assert not path.exists()
        assert "calls_unfinished" in [record.getMessage() for record in caplog.records]
        node.go.set()
        assert server.stop(10)


def test_wait_returns_when_another_thread_stops_the_server(tmp_path: Path) -> None:
    server = make(tmp_path / "csi.sock")
    server.start()
    waiting = threading.Thread(target=server.wait)
    waiting.start()
    assert server.stop(10)
    waiting.join(10)
    assert not waiting.is_alive()


def test_stop_without_start_is_fine(tmp_path: Path) -> None:
    assert make(tmp_path / "csi.sock").stop(1)


def test_a_server_starts_again_where_the_last_one_stopped(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    for _ in range(3):
        with serving(path):
            assert probe(path)
        assert not path.exists()
