"""The command line of cachefetch: reads the arguments, checks the configuration, builds what a command needs, runs it.

Exit status: 0 ok, 1 the work failed, 2 bad usage or configuration, which is checked first. Imports are late, because
`populate` is compared with `cp -al` and most commands need neither the network nor a progress bar.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import sys
import threading
import time
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cachefetch import __version__
from cachefetch.errors import ConfigError, GoldlinkError
from cachefetch.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from cachefetch.client import Fetcher
    from cachefetch.cluster import ApiServer
    from cachefetch.reports import Place
    from cachefetch.store import Store

# ruff: noqa: PLC0415  (late imports, see above)

_WHERE = "--state-dir /var/lib/goldlink --config caches.yaml"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"cachefetch: {message}: see '{self.prog} --help'\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, that of the process when None; returns the exit status."""
    os.umask(0o022)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: every clean-up runs
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the locale cannot write is no reason to fail
    terminal = Terminal(sys.stdout, sys.stderr)
    run: Callable[[argparse.Namespace, Terminal], int] = args.run
    try:
        return run(args, terminal)
    except GoldlinkError as error:
        terminal.complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        terminal.complain("interrupted: run the same command again to go on")
        return 1
    except BrokenPipeError:
        # Who read stdout has gone; nothing may be written there any more, not even by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        terminal.complain(f"{error.filename or 'the work failed'}: {error.strerror or error}")
        return 1


def _fetcher(root: Path) -> AbstractContextManager[Fetcher | None]:
    """The fetcher that runs on the store at `root`, if one does. Without one, gRPC need not be imported."""
    from cachefetch import sockets

    if not sockets.served(sockets.fetch_socket(root)):
        return nullcontext()
    from cachefetch import client

    return client.connect(root)


def _refresh(args: argparse.Namespace, terminal: Terminal) -> int:
    from cachefetch import commands, config, selection
    from cachefetch.sources import open_source
    from cachefetch.store import Store

    caches = selection.declared(config.load(args.config), args.cache)
    with _fetcher(args.state_dir) as fetcher:
        if fetcher:
            from cachefetch import remote

            return remote.refresh(Store(args.state_dir), fetcher, caches, terminal)
        return commands.refresh(Store.open(args.state_dir), caches, open_source, terminal)


def _list(args: argparse.Namespace, terminal: Terminal) -> int:
    from cachefetch import config, listing
    from cachefetch.store import Store

    store = Store(args.state_dir)
    with _fetcher(args.state_dir) as fetcher:
        if fetcher:  # which says what is in force, also when the file is not valid any more
            doings = listing.told(fetcher.statuses())
            names = list(doings)
        else:
            declared = config.load(args.config)
            doings = listing.remembered(store, declared, time.time())
            names = [cache.name for cache in declared.caches]
    return listing.show(store, names, doings, terminal, as_json=args.output == "json")


def _verify(args: argparse.Namespace, terminal: Terminal) -> int:
    from cachefetch import commands, config, selection
    from cachefetch.store import Store

    declared, store = config.load(args.config), Store(args.state_dir)
    name, prefix = selection.split(args.version)
    if args.version:
        selection.check_known(store, declared, name)
    return commands.verify(store, name, prefix, terminal, as_json=args.output == "json")


def _gc(args: argparse.Namespace, terminal: Terminal) -> int:
    from cachefetch import commands, config
    from cachefetch.store import Store

    declared = config.load(args.config)
    return commands.gc(Store.open(args.state_dir), declared, terminal, as_json=args.output == "json")


def _populate(args: argparse.Namespace, terminal: Terminal) -> int:
    from cachefetch import config, populate, selection
    from cachefetch.store import Store

    declared, store = config.load(args.config), Store(args.state_dir)
    name, prefix = selection.split(args.version)
    selection.check_known(store, declared, name)
    dest = args.dest.resolve()
    populate.check_dest(dest)
    return populate.populate(store, name, prefix, dest, terminal)


def _run(args: argparse.Namespace, _terminal: Terminal) -> int:
    from cachefetch import config, health, logs
    from cachefetch.store import Store

    if args.metrics_address:
        health.parse_address(args.metrics_address)
    config.load(args.config)  # before the store is made: a bad configuration changes nothing
    cluster = _cluster(args.node_id) if args.node_id else None
    logs.setup("INFO", "cachefetch")
    with suppress(KeyboardInterrupt), ExitStack() as running:  # a signal is how a daemon is told to end
        _serve(args, Store.open(args.state_dir), cluster, running)
    return 0


def _serve(args: argparse.Namespace, store: Store, cluster: tuple[ApiServer, Place] | None, running: ExitStack) -> None:
    """Be the daemon of this store; `running` ends in reverse order what was started."""
    from cachefetch import daemon, durable, service
    from cachefetch.fetches import Fetches
    from cachefetch.journal import Journal
    from cachefetch.metrics import Metrics
    from cachefetch.sockets import fetch_socket
    from cachefetch.sources import open_source
    from cachefetch.waiting import Waiting

    busy = f"another cachefetch daemon runs on {store.root}: stop that one first, or name another --state-dir"
    running.enter_context(durable.exclusive(store.root / "locks" / "@daemon", busy))
    metrics = Metrics(__version__)
    fetches = Fetches(store, Journal.of(store.root), random.random)
    limits, ending = daemon.Limits(args.concurrency, args.bandwidth), threading.Event()
    sources = partial(open_source, stopping=ending.is_set)
    fetcher = daemon.Daemon(store, fetches, sources, metrics, limits, ending=ending)
    fetcher.follow(args.config, running)
    if args.metrics_address:
        metrics.watch(fetches.statuses, store)
        fetcher.measure(args.metrics_address, running)
    waiting = Waiting()
    server = service.make_server(fetch_socket(store.root), service.Fetch(fetches, metrics.waiting.set, waiting))
    running.callback(server.stop, 1.0)
    running.callback(fetcher.stop)
    if cluster:
        from cachefetch.reporter import Reporter

        api, place = cluster
        running.callback(api.close)
        reporter = Reporter(api, place, store, fetches, waiting)  # from here on selectors count: nothing is fetched yet
        running.callback(reporter.stop)
        reporter.start()
    fetcher.start()
    server.start()
    fetcher.wait()


def _cluster(node: str) -> tuple[ApiServer, Place]:
    """The cluster that this pod is in, and the pod, as kubelet's downward API names it."""
    from cachefetch.cluster import ApiServer
    from cachefetch.reports import Place
    from cachefetch.waiting import Pod

    names = [os.environ.get(f"POD_{part}", "") for part in ("NAMESPACE", "NAME", "UID")]
    if not all(names):
        raise ConfigError("--node-id: set POD_NAMESPACE, POD_NAME and POD_UID, as the chart does, or leave it out")
    return ApiServer.of_pod(), Place(node, Pod(*names))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cachefetch",
        description="Fetches caches, keeps their versions in a store, and hands them out as link trees.",
        epilog="exit status: 0 ok, 1 the work failed, 2 bad usage or configuration",
    )
    parser.add_argument("--version", action="version", version=f"cachefetch {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    text = "run in the foreground: refresh every cache when it is due, and serve who waits for one"
    run = _command(commands, "run", _run, text, "--bandwidth 50Mi")
    run.add_argument(
        "--concurrency", type=_count, default=4, metavar="N", help="caches that are fetched at a time (default: 4)"
    )
    run.add_argument(
        "--bandwidth", type=_size, metavar="SIZE", help="bytes a second of all fetches together (default: no limit)"
    )
    run.add_argument("--metrics-address", metavar="HOST:PORT", help="serve /metrics and /healthz (default: off)")

    run.add_argument("--node-id", metavar="ID", help="be this node of the cluster: tell what is here (default: none)")

    refresh = _command(commands, "refresh", _refresh, "fetch what changed, once", "node-modules")
    refresh.add_argument("cache", nargs="*", metavar="CACHE", help="cache to refresh; none: all that are declared")

    text = "show caches and their versions; names that do not fit are cut, the JSON has everything"
    _output(_command(commands, "list", _list, text, "-o json"))

    text = "hash the files of versions again, and name every path that is damaged"
    verify = _output(_command(commands, "verify", _verify, text, "node-modules"))
    verify.add_argument("version", nargs="?", default="", metavar="CACHE[@VERSION]", help="none: everything there is")

    text = "drop the versions that nobody needs: all but those in use, and the `retain` newest of a declared cache"
    _output(_command(commands, "gc", _gc, text, ""))

    populate = _command(commands, "populate", _populate, _POPULATE, "node-modules ./node_modules")
    populate.add_argument("version", metavar="CACHE[@VERSION]", help="no version: the current one")
    populate.add_argument("dest", type=Path, metavar="DEST", help="absent or an empty directory, on the same mount")
    return parser


_POPULATE = """\
make a link tree of a version at DEST, as fast as cp -al and without its space

Its files are hardlinks to the golden ones: read-only for everybody but root, whose writes in place would
damage every user of the version. 'cachefetch verify' finds such damage; a read-only mount rules it out.
"""


def _command(
    commands: argparse._SubParsersAction[_Parser],
    name: str,
    run: Callable[[argparse.Namespace, Terminal], int],
    description: str,
    example: str,
) -> _Parser:
    parser = commands.add_parser(
        name,
        help=description.partition("\n")[0].partition(";")[0],
        description=description,
        epilog=f"example: cachefetch {name} {_WHERE} {example}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--state-dir", type=Path, required=True, metavar="DIR", help="where the store is")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="which caches there are (YAML)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of caches: use 1 or more")
    return int(text)


def _size(text: str) -> int:
    from cachefetch import units

    try:
        return int(units.size(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _output(parser: _Parser) -> _Parser:
    parser.add_argument("-o", dest="output", choices=["text", "json"], default="text", help="default: text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
