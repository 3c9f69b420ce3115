"""What a caller and the log get for everything a handler can do, over a real socket."""

from __future__ import annotations

import errno
import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from cachefetch import errors
from cachefetch.logs import LogfmtFormatter, fields_of
from cachefetch.rpc import TEXT_MAX, outcome
from csi.logs import annotate
from csi.metrics import Metrics
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "hunter2"
ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GoldlinkError)]


class Node(csi_pb2_grpc.NodeServicer):
    """Does what the test wants in NodePublishVolume; leaves most other methods out."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.ended = threading.Event()

    def NodePublishVolume(  # noqa: N802 - the name in csi.proto
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        context.add_callback(self.ended.set)
        self.act()
        return csi_pb2.NodePublishVolumeResponse()

    def NodeGetCapabilities(  # noqa: N802 - the name in csi.proto
        self, request: csi_pb2.NodeGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        return csi_pb2.NodeGetCapabilitiesResponse()


class Face:
    """A server with `act` as its NodePublishVolume, and a client of it."""

    def __init__(self, path: Path, act: Callable[[], None]) -> None:
        self.metrics = Metrics("1")
        self.handler = Node(act)
        self.server = Server(path, self.metrics, identity=csi_pb2_grpc.IdentityServicer(), node=self.handler)
        self.server.start()
        self.channel = grpc.insecure_channel(f"unix:{path}")
        self.node = csi_pb2_grpc.NodeStub(self.channel)

    def publish(self, timeout: float = 20, **request: Any) -> tuple[grpc.StatusCode, str | None]:
        """Code and text of one NodePublishVolume; fails when the status has details."""
        call = self.node.NodePublishVolume.future(csi_pb2.NodePublishVolumeRequest(**request), timeout=timeout)
        assert "grpc-status-details-bin" not in dict(call.trailing_metadata())
        return call.code(), call.details()

    def close(self) -> None:
        """Ends both; all calls are logged afterwards."""
        self.channel.close()
        assert self.server.stop(10)


@contextmanager
def serving(directory: Path, act: Callable[[], None]) -> Iterator[Face]:
    face = Face(directory / "csi.sock", act)
    try:
        yield face
    finally:
        face.close()


def raising(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def nothing() -> None:
    """A handler that succeeds."""


def rpc_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """The fields of all lines of RPCs, with their level."""
    return [
        {"level": record.levelname, **fields_of(record)} for record in caplog.records if record.getMessage() == "rpc"
    ]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_of_ours_arrives_with_its_code_and_text_and_no_details(
    kind: type[errors.GoldlinkError], tmp_path: Path
) -> None:
    with serving(tmp_path, raising(kind("cache 'x' is wrong: fix it"))) as face:
        assert face.publish() == (grpc.StatusCode[kind.code.name], "cache 'x' is wrong: fix it")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_resource_exhausted_and_named(number: int, tmp_path: Path) -> None:
    with serving(tmp_path, raising(OSError(number, "full", "/state/x"))) as face:
        code, text = face.publish()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text is not None
    assert "'/state/x'" in text


def test_another_os_error_is_internal_with_its_reason_and_path(tmp_path: Path) -> None:
    with serving(tmp_path, raising(OSError(errno.EIO, "Input/output error", "/state/x"))) as face:
        code, text = face.publish()
    assert code is grpc.StatusCode.INTERNAL
    assert text == "NodePublishVolume failed with Input/output error at '/state/x': see the log"


def test_an_unexpected_exception_is_internal_its_text_stays_here_and_its_traceback_is_in_the_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path, raising(RuntimeError("nobody expected this"))) as face:
        answer = face.publish(volume_id="v1")
    assert answer == (
        grpc.StatusCode.INTERNAL,
        "NodePublishVolume failed with RuntimeError: see the log",
    )
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    line = LogfmtFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert "RuntimeError: nobody expected this" in line
    assert "test_interceptors.py" in line


def test_a_method_that_is_left_out_is_unimplemented(tmp_path: Path) -> None:
    with serving(tmp_path, nothing) as face:
        call = face.node.NodeStageVolume.future(csi_pb2.NodeStageVolumeRequest(), timeout=20)
        assert call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "NodeStageVolume" in call.details()


def test_a_service_that_is_not_served_is_unimplemented(tmp_path: Path) -> None:
    with serving(tmp_path, nothing) as face:
        controller = csi_pb2_grpc.ControllerStub(face.channel)
        call = controller.CreateVolume.future(csi_pb2.CreateVolumeRequest(), timeout=20)
        assert call.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", "\udcff", "\n"])
def test_a_long_text_of_any_bytes_arrives_with_its_start_and_its_remedy(letter: str, tmp_path: Path) -> None:
    with serving(tmp_path, raising(errors.Conflict(f"path {letter * 5000} is taken: use another"))) as face:
        code, text = face.publish()
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert text is not None
    assert text.startswith("path ")
    assert text.endswith(" is taken: use another")


@given(st.text(st.characters()))
def test_any_text_fits_and_encodes(text: str) -> None:
    code, clipped = outcome(errors.Busy(text), "Probe")
    assert code is grpc.StatusCode.ABORTED
    assert 0 < len(clipped.encode()) <= TEXT_MAX


def test_one_line_for_each_rpc_with_what_the_handler_annotated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def act() -> None:
        annotate(cache="deps", version="abc", link_mode="hardlink", pool="hit")

    with serving(tmp_path, act) as face:
        assert face.publish(volume_id="v1") == (grpc.StatusCode.OK, "")
    (line,) = rpc_lines(caplog)
    milliseconds = line.pop("ms")
    assert isinstance(milliseconds, float)
    assert milliseconds >= 0
    assert line == {
        "level": "INFO",
        "method": "NodePublishVolume",
        "code": "OK",
        "volume": "v1",
        "cache": "deps",
        "version": "abc",
        "link_mode": "hardlink",
        "pool": "hit",
    }


def test_a_refused_call_is_a_warning_with_its_text_and_annotations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def act() -> None:
        annotate(cache="deps")
        raise errors.NotReady("41 % is here: try again")

    with serving(tmp_path, act) as face:
        face.publish(volume_id="v1")
    (line,) = rpc_lines(caplog)
    assert (line["level"], line["code"], line["cache"]) == ("WARNING", "ABORTED", "deps")
    assert line["error"] == "41 % is here: try again"


def test_quiet_methods_are_logged_at_debug_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path, nothing) as face:
        caplog.set_level(logging.INFO)
        face.node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest(), timeout=20)
        caplog.set_level(logging.DEBUG, "csi")
        face.node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest(), timeout=20)
    assert [(line["level"], line["method"]) for line in rpc_lines(caplog)] == [("DEBUG", "NodeGetCapabilities")]


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
@pytest.mark.parametrize("error", [None, RuntimeError("broken"), errors.Busy("busy")])
def test_secrets_never_reach_the_log(
    level: int, error: Exception | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(level)
    with serving(tmp_path, raising(error) if error else nothing) as face:
        face.publish(
            volume_id="v1",
            secrets={"password": SECRET},
            volume_context={"cache": "deps", "csi.storage.k8s.io/serviceAccount.tokens": SECRET},
        )
    text = "\n".join(LogfmtFormatter().format(record) for record in caplog.records)
    assert "volume=v1" in text
    assert SECRET not in text
    assert ("request=" in text) is (level == logging.DEBUG)


def test_a_client_that_left_is_noted_because_it_does_not_know_the_outcome(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    entered = threading.Event()
    faces: list[Face] = []

    def act() -> None:
        entered.set()
        assert faces[0].handler.ended.wait(20)

    with serving(tmp_path, act) as face:
        faces.append(face)
        call = face.node.NodePublishVolume.future(csi_pb2.NodePublishVolumeRequest(volume_id="v1"))
        assert entered.wait(20)
        call.cancel()
    (line,) = rpc_lines(caplog)
    assert (line["code"], line["client"]) == ("OK", "gone")


def test_calls_are_counted_under_method_and_code(tmp_path: Path) -> None:
    answers = iter([None, errors.Busy("busy"), RuntimeError("broken")])

    def act() -> None:
        error = next(answers)
        if error:
            raise error

    with serving(tmp_path, act) as face:
        for _ in range(3):
            face.publish()
    text = generate_latest(face.metrics.registry).decode()
    for code in ("OK", "ABORTED", "INTERNAL"):
        assert f'goldlink_rpc_seconds_count{{code="{code}",method="NodePublishVolume"}} 1.0' in text
    assert "goldlink_rpc_in_flight 0.0" in text


def test_running_calls_are_counted_while_they_run(tmp_path: Path) -> None:
    seen: list[str] = []
    faces: list[Face] = []

    def act() -> None:
        seen.extend(generate_latest(faces[0].metrics.registry).decode().splitlines())

    with serving(tmp_path, act) as face:
        faces.append(face)
        face.publish()
    assert "goldlink_rpc_in_flight 1.0" in seen
