"""The command line is a contract: what it means, and what it refuses before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cachefetch.errors import ConfigError
from csi.options import parse_options

REQUIRED = ("--endpoint", "unix:///csi/csi.sock", "--state-dir", "/state", "--config", "/caches.yaml")


def test_the_defaults() -> None:
    options = parse_options(["node", *REQUIRED])
    assert (options.role, options.endpoint, options.state_dir) == ("node", Path("/csi/csi.sock"), Path("/state"))
    assert (options.config, options.driver_name, options.node_id) == (
        Path("/caches.yaml"),
        "csi.goldlink.dev",
        socket.gethostname(),
    )
    assert (options.fetch_wait, options.max_volumes, options.log_level) == (90.0, 0, "INFO")
    assert (options.metrics_address, options.disk_dir) == (None, None)
    assert options.kubelet_registration_path is None
    assert options.plugin_registration_dir == Path("/var/lib/kubelet/plugins_registry")


def test_every_option_is_read() -> None:
    options = parse_options([
        "node", *REQUIRED, "--node-id", "n1", "--driver-name", "a.b", "--disk-dir", "/d", "--fetch-wait", "1500ms",
        "--metrics-address", "[::1]:9808", "--max-volumes", "7", "--log-level", "debug",
    ])  # fmt: skip
    assert (options.node_id, options.driver_name, options.disk_dir) == ("n1", "a.b", Path("/d"))
    assert (options.fetch_wait, options.metrics_address, options.max_volumes) == (1.5, "[::1]:9808", 7)
    assert options.log_level == "DEBUG"
    register = ("--kubelet-registration-path", "/k/plugins/x/csi.sock", "--plugin-registration-dir", "/registration")
    options = parse_options(["node", *REQUIRED, *register])
    assert options.kubelet_registration_path == Path("/k/plugins/x/csi.sock")
    assert options.plugin_registration_dir == Path("/registration")


@pytest.mark.parametrize(
    ("role", "path"), [("node", "plugins/csi.sock"), ("all", "/plugins/csi"), ("controller", "/plugins/csi.sock")]
)
def test_a_registration_path_is_an_absolute_socket_of_a_node(role: str, path: str) -> None:
    with pytest.raises(ConfigError, match="--kubelet-registration-path"):
        parse_options([role, *REQUIRED, "--kubelet-registration-path", path])


def test_a_relative_state_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in volume records must not depend on where the driver was started."""
    monkeypatch.chdir(tmp_path)
    options = parse_options(["node", "--endpoint", "unix:///s.sock", "--state-dir", "state", "--config", "c.yaml"])
    assert options.state_dir == tmp_path / "state"


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (("--fetch-wait", "0s"), "'0s'"),
        (("--fetch-wait", "forever"), "'forever'"),
        (("--max-volumes", "-1"), "'-1'"),
        (("--max-volumes", "many"), "'many'"),
        (("--node-id", ""), "''"),
        (("--node-id", "n" * 257), "256"),
        (("--node-id", "a\nb"), "'a\\nb'"),
        (("--log-level", "loud"), "'loud'"),
        (("--colour",), "--colour"),
    ],
)
def test_wrong_values_end_with_2_and_are_named(
    wrong: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse_options(["node", *REQUIRED, *wrong])
    assert end.value.code == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (("--endpoint", "tcp://1.2.3.4:5"), "--endpoint"),
        (("--endpoint", "unix://relative.sock"), "--endpoint"),
        (("--driver-name", "9"), "--driver-name"),
        (("--metrics-address", "9808"), "--metrics-address"),
        (("--metrics-address", "localhost:99999"), "--metrics-address"),
    ],
)
def test_values_with_rules_of_their_own_are_named_too(wrong: tuple[str, ...], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as error:
        parse_options(["node", *REQUIRED, *wrong])
    assert error.value.exit_status == 2


@pytest.mark.parametrize("missing", ["--endpoint", "--state-dir", "--config"])
def test_what_has_no_default_is_required(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    at = REQUIRED.index(missing)
    with pytest.raises(SystemExit) as end:
        parse_options(["node", *REQUIRED[:at], *REQUIRED[at + 2 :]])
    assert end.value.code == 2
    assert missing in capsys.readouterr().err
