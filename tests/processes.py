"""Real processes for tests: built or installed, started, awaited, and stopped by their pid."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]
_START = 60.0  # seconds until a process must answer, on a machine that is busy with other things
_STOP = 20.0  # seconds from SIGTERM to SIGKILL


def go_tool(package: str) -> Path:
    """The command `package@version` of a Go module, built once in the user's cache directory."""
    script = ROOT / "tests" / "tools" / "gotool.sh"
    return Path(subprocess.run([script, package], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections on that port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block, with its output in `log`; the block begins when `ready` holds.

    Raises:
        AssertionError: it ended by itself, or was not ready in time; the text carries its last output.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=ROOT)
    try:
        _await(process, ready, log)
        yield process
        assert process.poll() is None, f"{command[0]} ended with {process.returncode} meanwhile:\n{tail(log)}"
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask the process to end, insist when it does not, and give its exit status."""
    process.terminate()
    try:
        return process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def tail(log: Path, lines: int = 40) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _await(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + _START
    while True:
        answered = ready()
        # Asked after it: another process may answer at a port that this one could not get.
        status = process.poll()
        assert status is None, f"{process.args!r} ended with {status}:\n{tail(log)}"
        if answered:
            return
        assert time.monotonic() < end, f"{process.args!r} was not ready in {_START:.0f} s:\n{tail(log)}"
        time.sleep(0.02)
