"""The command line of the driver: a contract that may grow and never changes."""

from __future__ import annotations

import argparse
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch import __version__, units
from cachefetch.errors import ConfigError
from cachefetch.health import parse_address
from csi.identity import check_driver_name
from csi.server import parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

NODE_ID_MAX = 256
"""Bytes; CSI specification, NodeGetInfo."""


@dataclass(frozen=True)
class Options:
    """What the driver was started with."""

    role: str
    endpoint: Path
    state_dir: Path
    config: Path
    node_id: str
    driver_name: str
    disk_dir: Path | None
    fetch_wait: float
    """Seconds."""
    metrics_address: str | None
    max_volumes: int
    """0: no limit."""
    log_level: str
    kubelet_registration_path: Path | None
    """The CSI socket as kubelet sees it; None: kubelet is not told of the driver."""
    plugin_registration_dir: Path


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """The checked command line; prints usage and exits with 2 when it is wrong.

    Raises:
        ConfigError: a value is not allowed.
    """
    given = _parser().parse_args(arguments)
    if given.metrics_address:
        parse_address(given.metrics_address)
    return Options(
        role=given.role,
        endpoint=parse_endpoint(given.endpoint),
        state_dir=given.state_dir.absolute(),
        config=given.config,
        node_id=given.node_id or socket.gethostname(),
        driver_name=check_driver_name(given.driver_name),
        disk_dir=given.disk_dir,
        fetch_wait=given.fetch_wait,
        metrics_address=given.metrics_address,
        max_volumes=given.max_volumes,
        log_level=given.log_level.upper(),
        kubelet_registration_path=_registration_path(given.kubelet_registration_path, given.role),
        plugin_registration_dir=given.plugin_registration_dir,
    )


def _registration_path(path: Path | None, role: str) -> Path | None:
    if path is not None and (not path.is_absolute() or path.suffix != ".sock"):
        raise ConfigError(
            f"--kubelet-registration-path: {str(path)!r} is not a socket: use the absolute path at which kubelet sees "
            "that of --endpoint"
        )
    if path is not None and role == "controller":
        raise ConfigError(f"--kubelet-registration-path: {str(path)!r} is for nodes: leave it out for a controller")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="goldlink-csi",
        description="The goldlink CSI driver: hardlinks golden cache versions read-only into pod volumes.",
        epilog="example: goldlink-csi node --endpoint unix:///csi/csi.sock --state-dir /var/lib/goldlink "
        "--config caches.yaml",
    )
    parser.add_argument("role", choices=("node", "controller", "all"), help="which CSI services to serve")
    parser.add_argument("--endpoint", required=True, metavar="unix:///…/csi.sock", help="socket to serve on")
    parser.add_argument("--state-dir", required=True, type=Path, metavar="DIR", help="the store, on a local disk")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the caches, as YAML")
    parser.add_argument("--node-id", type=_node_id, metavar="ID", help="name of this node (default: the host name)")
    parser.add_argument("--driver-name", default="csi.goldlink.dev", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--disk-dir", type=Path, metavar="DIR", help="images of cache disks, shared by all nodes")
    parser.add_argument(
        "--fetch-wait", type=_duration, default=90.0, metavar="90s", help="longest wait for a version (default: 90s)"
    )
    parser.add_argument("--metrics-address", metavar="HOST:PORT", help="serve /metrics and /healthz (default: off)")
    parser.add_argument(
        "--max-volumes", type=_count, default=0, metavar="N", help="most volumes of this node (default: no limit)"
    )
    parser.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="default: %(default)s"
    )
    parser.add_argument(
        "--kubelet-registration-path",
        type=Path,
        metavar="/…/csi.sock",
        help="register with kubelet, which sees the socket of --endpoint at this path (default: do not)",
    )
    parser.add_argument(
        "--plugin-registration-dir",
        type=Path,
        default=Path("/var/lib/kubelet/plugins_registry"),
        metavar="DIR",
        help="where kubelet looks for drivers (default: %(default)s)",
    )
    parser.add_argument("--version", action="version", version=f"goldlink {__version__}")
    return parser


def _duration(text: str) -> float:
    try:
        return float(units.duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of volumes: use 0 (no limit) or more")
    return int(text)


def _node_id(text: str) -> str:
    if not text or len(text.encode()) > NODE_ID_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a node: use 1 to {NODE_ID_MAX} printable bytes")
    return text
