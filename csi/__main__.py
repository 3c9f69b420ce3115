"""Builds the driver from its parts and runs it until SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch import __version__, durable, logs
from cachefetch.errors import ConfigError, GoldlinkError
from cachefetch.follow import Follower
from cachefetch.logs import fields
from cachefetch.reaper import Reaper
from cachefetch.store import Store
from csi.arrivals import StoreArrivals
from csi.health import HealthServer
from csi.identity import Identity
from csi.metrics import Metrics
from csi.mount import KernelMounter
from csi.node import Node
from csi.options import Options, parse_options
from csi.recheck import needs_recheck, recheck
from csi.server import Server
from csi.targets import Targets
from csi.volumes import Volumes
from csi.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefetch.config import Config
    from cachefetch.linktree import LinkReport

_log = logging.getLogger("csi")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_GRACE = 8.0  # seconds; kubelet's own grace period is 30, and the contract says 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the driver: 0 after SIGTERM, 1 when it cannot work, 2 when it was started wrongly."""
    os.umask(0o022)
    try:
        options = parse_options(arguments)
        logs.setup(options.log_level, "csi", "cachefetch")
        with ExitStack() as running:
            finished = _run(options, running)
    except GoldlinkError as error:
        print(f"goldlink-csi: {error}", file=sys.stderr)  # noqa: T201  (the one line for whoever started it)
        return error.exit_status
    except OSError as error:
        _log.exception("failed")
        print(f"goldlink-csi: {error}: the state directory must be a writable local one", file=sys.stderr)  # noqa: T201
        return 1
    if not finished:
        # Python would wait for the threads of hanging calls, perhaps for ever; the next start undoes what they did
        _log.warning("abandoned", extra=fields(effect="unfinished calls end with the process"))
        os._exit(0)
    return 0


def _run(options: Options, running: ExitStack) -> bool:
    """Build, recover, serve, wait for a signal, stop; `running` ends in reverse order what was started.

    Returns whether every call finished.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.role != "node":
        raise ConfigError(f"role {options.role!r} is not offered yet: use 'node'")
    metrics = Metrics(__version__)
    config = _follow(options, metrics, running)
    store = Store.open(options.state_dir)
    busy = f"another driver runs with --state-dir {options.state_dir}: stop it, or give this one a directory of its own"
    running.enter_context(durable.exclusive(store.root / "locks" / "node", busy))
    waiters = Waiters()
    metrics.waiting_publishes.set_function(lambda: waiters.count)
    node = Node(
        _recovered(store, metrics, running, stop),
        StoreArrivals(store, waiters, options.fetch_wait),
        config=lambda: config.current,
        node_id=options.node_id,
        max_volumes=options.max_volumes,
    )
    identity = Identity(name=options.driver_name, version=__version__, services=(), ready=lambda: True)
    server = Server(options.endpoint, metrics, identity=identity, node=node)
    if options.metrics_address:
        health = HealthServer(options.metrics_address, metrics.registry, lambda: "stopping" if stop.is_set() else "")
        health.start()
        _log.info("measuring", extra=fields(address=options.metrics_address, port=health.port))
        running.callback(health.stop)
    server.start()
    _log.info("serving", extra=fields(endpoint=options.endpoint, driver=options.driver_name, node=options.node_id))
    stop.wait()
    _log.info("stopping")
    waiters.close()
    return server.stop(_GRACE)


def _follow(options: Options, metrics: Metrics, running: ExitStack) -> Follower:
    def on_change(config: Config) -> None:
        metrics.config_valid.set(1)
        _log.info("config", extra=fields(caches=[cache.name for cache in config.caches]))

    def on_error(error: ConfigError) -> None:
        metrics.config_valid.set(0)
        _log.error("config", extra=fields(error=str(error), effect="the last valid configuration stays in force"))

    follower = Follower(options.config, on_change, on_error)
    metrics.config_valid.set(1)
    follower.start()
    running.callback(follower.stop)
    return follower


def _recovered(store: Store, metrics: Metrics, running: ExitStack, stop: threading.Event) -> Volumes:
    """The volumes of this node: those that live are known, what was half-made is in the trash."""
    boot_id = _BOOT_ID.read_text().strip()
    reaper = Reaper(store.trash)

    def on_link(report: LinkReport, seconds: float) -> None:
        metrics.link_seconds.labels(mode=report.mode).observe(seconds)
        for (mode, cause), count in report.fallbacks.items():
            metrics.link_fallbacks.labels(mode=mode, cause=cause).inc(count)
        if report.fallbacks:
            _log.warning("link_fallback", extra=fields(links=str(report)))

    targets = Targets(KernelMounter(store.root / "run" / "mounts"))
    volumes = Volumes(store, targets, boot_id=boot_id, on_link=on_link, on_discard=reaper.wake)
    _log.info("recovered", extra=fields(volumes=volumes.recover()))
    metrics.watch_volumes(volumes.count)
    reaper.start()
    running.callback(reaper.stop)
    if needs_recheck(store, boot_id):
        threading.Thread(target=recheck, args=(store, boot_id, stop), name="recheck", daemon=True).start()
    return volumes


if __name__ == "__main__":
    sys.exit(main())
