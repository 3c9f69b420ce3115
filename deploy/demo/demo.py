"""Shows what goldlink does, on this machine, without Kubernetes: `make demo`.

Everything is real: the driver, the command line, the mounts, the files. Every statement of the report is checked;
exit status 0 says that all of them hold, 1 that one does not (it is named), 2 that the demo cannot run here.

Needs root or, for anybody else, user namespaces: then it starts itself again with `unshare -Urm`, as root of a
namespace of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.dont_write_bytecode = True  # the compiled files would appear in the packages that the demo copies

import grpc  # noqa: E402  (see above)
from report import ClaimFailed, Report  # noqa: E402
from story import Story  # noqa: E402
from workplace import INTERRUPTIONS, Broken, Workplace  # noqa: E402

from cachefetch.errors import GoldlinkError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTRODUCTION = (
    "Containers often start by downloading or copying the same thing: packages, models, toolchains. goldlink keeps one "
    "verified copy on each machine and shows it, read-only, to any number of them at once. This demo takes about half "
    "a minute and needs no Kubernetes. A line that begins with 'ok' was checked."
)
_LOG_LINES = 15
_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    given = _parser().parse_args(arguments)
    if reason := _missing():
        print(f"demo: {reason}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        sys.stdout.flush()
        os.execvp("unshare", ["unshare", "-Urm", sys.executable, __file__, *sys.argv[1:]])
    os.umask(0o022)
    for number in INTERRUPTIONS:
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: everything is cleaned up
    report = Report(sys.stdout)
    try:
        return _show(report, given.dir)
    except GoldlinkError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # Who read the report has gone; nothing may be written there any more, not even by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted, everything was cleaned up", file=sys.stderr)
        return _INTERRUPTED


def _show(report: Report, parent: Path) -> int:
    failure = log = ""
    with Workplace(parent) as place:
        report.title("goldlink: one copy, many containers", _INTRODUCTION)
        report.paragraph(_where(place.root))
        try:
            Story(report, place).run()
        except ClaimFailed as error:
            failure = f"this does not hold: {error}"
        except grpc.RpcError as error:
            failure = f"the driver answered {error.code().name}: {error.details()}"
        except (Broken, OSError, subprocess.SubprocessError) as error:
            failure = str(error)
        if failure and place.log.exists():
            log = "\n".join(place.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
    if failure:
        if log:
            report.heading("The last words of the driver")
            report.output(log)
        report.failed(f"{failure} (everything was cleaned up)")
    return 1 if failure else 0


def _where(root: Path) -> str:
    inside = Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
    who = "root of a user namespace, an ordinary user outside" if inside else "root"
    return f"In {root}, Linux {platform.release()}, Python {platform.python_version()}, as {who}."


def _missing() -> str:
    """What this machine does not allow, empty when the demo can run: mounting is tried, in a namespace that ends."""
    mine = os.geteuid() == 0
    unshare = ["unshare", "-m" if mine else "-Urm"]
    try:
        tried = subprocess.run(
            [*unshare, "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError:
        return "the commands unshare and mount are missing: install util-linux"
    if tried.returncode == 0:
        return ""
    said = tried.stderr.strip().replace("\n", "; ")
    if mine:
        return f"root may not mount here ({said}): run it outside of a container, or in one with --privileged"
    return f"an ordinary user may not mount here, user namespaces are not allowed ({said}): run it as root, with sudo"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo.py", description="Show what goldlink does, on this machine.")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("/var/tmp"),
        metavar="DIR",
        help="where to work, on a local disk; everything is removed at the end (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
