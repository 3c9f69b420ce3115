"""Builds the driver from its parts and runs it until SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cachefetch import __version__, durable, logs, trash
from cachefetch.background import Background
from cachefetch.errors import GoldlinkError
from cachefetch.follow import Follower
from cachefetch.health import HealthServer
from cachefetch.logs import fields
from cachefetch.reaper import Reaper
from cachefetch.sockets import fetch_socket
from cachefetch.store import Store
from csi.cache_controller import CacheController
from csi.controller import Controller
from csi.disk_calls import DiskCalls
from csi.disks.condition import Inspector, check_ahead
from csi.disks.files import DiskFiles
from csi.disks.images import ImageBackend
from csi.disks.jobs import Jobs
from csi.disks.mounts import KernelImages
from csi.disks.node import NodeDisks
from csi.disks.periodic import Periodic
from csi.disks.references import References
from csi.disks.snapshots import ImageSnapshots
from csi.disks.stages import Stages
from csi.disks.tools import check_tools
from csi.fetch_client import FetchArrivals
from csi.group_controller import GroupController
from csi.identity import Identity
from csi.metrics import Metrics
from csi.mount import KernelMounter
from csi.node import Node
from csi.options import Options, parse_options
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.pool import Pool
from csi.private import OverlayViews
from csi.recheck import needs_recheck, recheck
from csi.registration import LOOK, Registration
from csi.registry import NodeEntry, NodeRegistry
from csi.requests import Access
from csi.server import Server
from csi.targets import Targets
from csi.volumes import Volumes
from csi.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cachefetch.config import Config
    from cachefetch.errors import ConfigError
    from cachefetch.linktree import LinkReport
    from csi.arrivals import Arrivals

_log = logging.getLogger("csi")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SWEEP, _AHEAD = 60.0, 10.0  # seconds between two looks
_NOTICE = 0.5  # seconds until a signal is noticed at the latest
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
    metrics = Metrics(__version__)
    config = _follow(options, metrics, running)
    store = Store.open(options.state_dir)
    lock = store.root / "locks" / ("controller" if options.role == "controller" else "node")
    busy = f"another driver runs with --state-dir {options.state_dir}: stop it, or give this one a directory of its own"
    running.enter_context(durable.exclusive(lock, busy))
    waiters = Waiters()
    metrics.waiting_publishes.set_function(lambda: waiters.count)
    arrivals = FetchArrivals(store, waiters, options.fetch_wait, fetch_socket(store.root))
    running.callback(arrivals.close)
    disks = _disks(options, running)
    node = None
    if options.role != "controller":
        node = Node(
            _recovered(store, config, metrics, running, stop),
            arrivals,
            config=lambda: config.current,
            node_id=options.node_id,
            max_volumes=options.max_volumes,
            disks=DiskCalls(_node_disks(options, disks, running), lambda: config.current) if disks else None,
        )
    controller, groups = None, None
    if options.role != "node":
        controller, groups = _controllers(disks, store, arrivals, config, running)
    identity = _identity(options, disks)
    server = Server(
        options.endpoint, metrics, identity=identity, node=node, controller=controller, group_controller=groups
    )
    if options.metrics_address:
        health = HealthServer(options.metrics_address, metrics.registry, lambda: "stopping" if stop.is_set() else "")
        health.start()
        _log.info("measuring", extra=fields(address=options.metrics_address, port=health.port))
        running.callback(health.stop)
    server.start()
    _log.info("serving", extra=fields(endpoint=options.endpoint, driver=options.driver_name, node=options.node_id))
    with _registered(options):
        # Not for ever at once: a signal may arrive in any thread, and Python runs its handler in this one only, when it
        # wakes (measured: under load about one SIGTERM in twenty was noticed by nobody).
        while not stop.wait(_NOTICE):
            pass
    _log.info("stopping")
    waiters.close()
    if disks:
        disks.jobs.close()
    return server.stop(_GRACE)


@contextmanager
def _registered(options: Options) -> Iterator[None]:
    """Kubelet knows the driver during the block, if that was asked for."""
    if options.kubelet_registration_path is None:
        yield
        return
    registration = Registration(
        options.plugin_registration_dir,
        driver_name=options.driver_name,
        csi_socket=options.kubelet_registration_path,
    )
    registration.start()
    looking = Periodic("registration", registration.look, LOOK)
    looking.start()
    try:
        yield
    finally:
        looking.stop()
        registration.stop()


@dataclass(frozen=True)
class _Disks:
    """What the halves of a driver with a disk directory share."""

    files: DiskFiles
    jobs: Jobs
    inspector: Inspector
    nodes: NodeRegistry


def _disks(options: Options, running: ExitStack) -> _Disks | None:
    """The disk directory; None when there is none, and `all` always has one."""
    directory = options.disk_dir
    if directory is None and options.role == "all":
        directory = options.state_dir / "disks"
    if directory is None:
        return None
    files, jobs = DiskFiles.open(directory.absolute()), Jobs()
    running.callback(jobs.close)
    return _Disks(files, jobs, Inspector(files, jobs), NodeRegistry(files.nodes))


def _controllers(
    disks: _Disks | None, store: Store, arrivals: Arrivals, config: Follower, running: ExitStack
) -> tuple[csi_pb2_grpc.ControllerServicer, GroupController | None]:
    """The controller services: of disks where there is a disk directory, else of handles to caches only."""
    if disks is None:
        return CacheController(arrivals, config=lambda: config.current), None
    backend, snapshots = _backends(disks, store, running)
    return Controller(backend, snapshots, arrivals, config=lambda: config.current), GroupController(snapshots)


def _backends(disks: _Disks, store: Store, running: ExitStack) -> tuple[ImageBackend, ImageSnapshots]:
    """The controller's half: what crashes left is swept, what is deleted goes in the background."""
    check_tools()
    reaper = Reaper(disks.files.trash, trash.empty)
    references = References(disks.files, reaper.wake)
    sweep = Periodic("sweep", references.sweep, _SWEEP)
    for background in (reaper, sweep):
        background.start()
        running.callback(background.stop)
    backend = ImageBackend(disks.files, references, disks.inspector, store=store, jobs=disks.jobs, nodes=disks.nodes)
    return backend, ImageSnapshots(disks.files, references, disks.jobs)


def _node_disks(options: Options, disks: _Disks, running: ExitStack) -> NodeDisks:
    """The node's half: it announces itself, and gives back what it had before a crash or reboot."""
    run = options.state_dir / "run"
    mounter = KernelMounter(run / "disk-mounts")
    node = NodeDisks(
        disks.files,
        Stages(run / "disks", _BOOT_ID.read_text().strip()),
        disks.inspector,
        mounter=mounter,
        images=KernelImages(mounter),
        targets=Targets(mounter),
        node_id=options.node_id,
    )
    _log.info("disks_recovered", extra=fields(disks=node.recover()))
    disks.nodes.announce(NodeEntry(id=options.node_id, max_volumes=options.max_volumes))
    ahead = Periodic("prefetch", lambda: check_ahead(disks.files, disks.inspector), _AHEAD)
    ahead.start()
    running.callback(ahead.stop)
    return node


def _identity(options: Options, disks: _Disks | None) -> Identity:
    """The same from node and controller, as long as both have the same --disk-dir (CSI, GetPluginCapabilities)."""
    service = csi_pb2.PluginCapability.Service
    services = [service.CONTROLLER_SERVICE, *([service.GROUP_CONTROLLER_SERVICE] if disks else [])]
    return Identity(
        name=options.driver_name,
        version=__version__,
        services=services,
        ready=lambda: True,
        expands=disks is not None,
    )


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


def _recovered(store: Store, config: Follower, metrics: Metrics, running: ExitStack, stop: threading.Event) -> Volumes:
    """The volumes of this node: those that live are known, what was half-made is in the trash."""
    boot_id = _BOOT_ID.read_text().strip()
    background = Background(stop)
    reaper = Reaper(store.trash, background.empty)

    def on_link(report: LinkReport, seconds: float) -> None:
        metrics.link_seconds.labels(mode=report.mode).observe(seconds)
        for (mode, cause), count in report.fallbacks.items():
            metrics.link_fallbacks.labels(mode=mode, cause=cause).inc(count)
        if report.fallbacks:
            _log.warning("link_fallback", extra=fields(links=str(report)))

    mounter = KernelMounter(store.root / "run" / "mounts")
    targets, views = Targets(mounter), OverlayViews(mounter, stop)
    pool = Pool(store, background, config=lambda: config.current, on_link=on_link, on_discard=reaper.wake)
    volumes = Volumes(store, targets, pool, views, boot_id=boot_id, on_discard=reaper.wake)
    _log.info("recovered", extra=fields(volumes=volumes.recover()))
    metrics.watch_volumes(volumes.count)
    metrics.watch_private(lambda: volumes.count(Access.PRIVATE))
    metrics.watch_pool(pool.ready)
    pool.start(volumes.linked())
    reaper.start()
    for part in (pool, reaper):
        running.callback(part.stop)
    if needs_recheck(store, boot_id):
        threading.Thread(target=recheck, args=(store, boot_id, stop), name="recheck", daemon=True).start()
    return volumes


if __name__ == "__main__":
    sys.exit(main())
