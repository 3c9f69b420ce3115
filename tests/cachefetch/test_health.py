"""What Prometheus and the probes of Kubernetes get, over real sockets on loopback."""

from __future__ import annotations

import http.client
import socket
import struct
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge

from cachefetch.errors import ConfigError, Precondition
from cachefetch.health import HealthServer, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def healthy() -> str:
    return ""


@contextmanager
def serving(registry: CollectorRegistry, unhealthy: Callable[[], str] = healthy) -> Iterator[HealthServer]:
    server = HealthServer("127.0.0.1:0", registry, unhealthy)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def test_metrics_shows_the_registry_as_prometheus_text() -> None:
    registry = CollectorRegistry()
    Gauge("probe_value", "A value.", registry=registry).set(42)
    with serving(registry) as server:
        status, kind, body = get(server.port, "/metrics?name=all")
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    assert "probe_value 42.0\n" in body


def test_healthz_follows_the_check() -> None:
    reason = ""
    with serving(CollectorRegistry(), lambda: reason) as server:
        assert get(server.port, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
        reason = "the store is not mounted"
        assert get(server.port, "/healthz") == (503, "text/plain; charset=utf-8", "the store is not mounted\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz/../metrics", "/favicon.ico"])
def test_every_other_path_is_not_found(path: str) -> None:
    with serving(CollectorRegistry()) as server:
        assert get(server.port, path)[0] == 404


def test_only_get_is_served() -> None:
    with serving(CollectorRegistry()) as server:
        assert get(server.port, "/metrics", "POST")[0] == 501


def test_a_failing_check_answers_500_without_details_and_the_next_request_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> str:
        raise RuntimeError("token=hunter2")

    with serving(CollectorRegistry(), broken) as server:
        status, _, body = get(server.port, "/healthz")
        assert get(server.port, "/metrics")[0] == 200
    assert status == 500
    assert "hunter2" not in body
    assert [record.getMessage() for record in caplog.records] == ["http_request_failed"]


def test_a_client_that_says_nothing_does_not_hold_up_the_others() -> None:
    with serving(CollectorRegistry()) as server, socket.create_connection(("127.0.0.1", server.port), timeout=10):
        assert get(server.port, "/healthz")[0] == 200


def test_a_client_that_resets_the_connection_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(CollectorRegistry()) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as rude:
                rude.sendall(b"GET /healthz")
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends a reset
        assert get(server.port, "/healthz")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_after_stop_the_port_is_free_again() -> None:
    with serving(CollectorRegistry()) as server:
        port = server.port
        get(port, "/healthz")
    again = HealthServer(f"127.0.0.1:{port}", CollectorRegistry(), healthy)
    again.start()
    again.stop()


def test_stop_without_start_frees_the_port() -> None:
    server = HealthServer("127.0.0.1:0", CollectorRegistry(), healthy)
    port = server.port
    server.stop()
    HealthServer(f"127.0.0.1:{port}", CollectorRegistry(), healthy).stop()


def test_an_address_in_use_is_refused_with_the_address() -> None:
    with serving(CollectorRegistry()) as server, pytest.raises(Precondition, match=f"127.0.0.1:{server.port}"):
        HealthServer(f"127.0.0.1:{server.port}", CollectorRegistry(), healthy)


def test_a_host_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(Precondition, match=r"192\.0\.2\.1:9808"):
        HealthServer("192.0.2.1:9808", CollectorRegistry(), healthy)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9808", ("127.0.0.1", 9808)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:9808", ("::1", 9808)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
    ],
)
def test_host_and_port_are_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9808",
        ":9808",
        "127.0.0.1",
        "127.0.0.1:",
        "::1:9808",
        "[::1]",
        "[]:1",
        "h:65536",
        "h:-1",
        "h:\u0661",
        "a b:1",
    ],
)
def test_malformed_addresses_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--metrics-address: .* 127\.0\.0\.1:9808"):
        parse_address(text)


@given(st.text())
def test_any_text_is_an_address_or_a_config_error(text: str) -> None:
    try:
        host, port = parse_address(text)
    except ConfigError:
        return
    assert host
    assert 0 <= port <= 65535
