"""`make demo` checks what it says, runs as root and as an ordinary user, and leaves nothing however it ends."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import mounts_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEMO = Path(__file__).parents[1] / "deploy" / "demo"
COMMAND = [sys.executable, str(DEMO / "demo.py")]
NOBODY = 65534
WIDTH = 92
SETPRIV = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a module of the demo, whose directory is on the path of its own process only."""
    monkeypatch.syspath_prepend(str(DEMO))
    return importlib.import_module


@pytest.fixture
def work() -> Iterator[Path]:
    """A directory on a disk that an ordinary user reaches and may write to; empty, unmounted and unused at the end."""
    path = Path(tempfile.mkdtemp(prefix="goldlink-test-", dir="/var/tmp"))
    os.chown(path, NOBODY, NOBODY)
    yield path
    mounts, files, running = mounts_below(path), sorted(path.rglob("*")), processes(str(path))
    if not mounts:
        shutil.rmtree(path)
    assert (mounts, files, running) == ([], [], [])


def processes(word: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            line = place.read_text(errors="replace").replace("\0", " ")
            found += [line] if word in line else []
    return found


def environment() -> dict[str, str]:
    """As a stranger has it: coverage of the children would need files that an ordinary user may not write."""
    return {key: value for key, value in os.environ.items() if not key.startswith("COV")}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env=environment(), stdin=subprocess.DEVNULL
    )


def as_nobody(*command: str, before: str = "", prefix: str = "") -> list[str]:
    """The command as an ordinary user who can reach the interpreter, wherever it is.

    The interpreter may be below a directory that only root may enter. In a mount namespace of its own, that directory
    is covered by an open one that holds the interpreter only.

    Args:
        command: what to run.
        before: shell command that root runs first, in that namespace.
        prefix: what becomes the user; setpriv when empty.
    """
    base = Path(sys.base_prefix)
    closed = next((place for place in reversed(base.parents) if not place.stat().st_mode & 0o001), None)
    passage = ":"
    if closed is not None:
        old, new = shlex.quote(str(base)), shlex.quote(str(closed))
        passage = (
            "mount -t tmpfs tmpfs /mnt && mkdir /mnt/base && "
            f"mount --bind {old} /mnt/base && mount -t tmpfs -o mode=0755 tmpfs {new} && mkdir -p {old} && "
            f"mount --bind /mnt/base {old} && umount /mnt/base && umount /mnt"
        )
    become = prefix or shlex.join(SETPRIV)
    return ["unshare", "-m", "sh", "-ec", f"{passage}; {before or ':'}; exec {become} {shlex.join(command)}"]


def assert_shown(done: subprocess.CompletedProcess[str]) -> None:
    """The whole report, readable, with every claim checked."""
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    summary = re.search(r"^All (\d+) claims hold\n +([\d,]+) files", done.stdout, re.MULTILINE)
    assert summary
    assert int(summary[1]) == done.stdout.count("\n   ok ") >= 20
    assert int(summary[2].replace(",", "")) >= 3000
    assert done.stdout.count("EROFS") >= 10


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_claim_holds_for_root(work: Path) -> None:
    done = run(*COMMAND, "--dir", str(work))
    assert_shown(done)
    assert "as root." in done.stdout


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_claim_holds_for_an_ordinary_user(work: Path) -> None:
    """Who becomes root of a user namespace by the demo's own doing."""
    done = run(*as_nobody(*COMMAND, "--dir", str(work)))
    assert_shown(done)
    assert "as root of a user namespace" in done.stdout


@pytest.mark.root
def test_a_user_who_may_not_have_a_namespace_is_told_so_in_one_line(work: Path) -> None:
    """Whose root directory is not the one of the mount namespace may not make user namespaces (unshare(2), EPERM)."""
    jail = f"mount -t tmpfs tmpfs /mnt; mkdir /mnt/jail; mount --rbind / /mnt/jail; cd {work}"
    chroot = f"chroot --userspec={NOBODY}:{NOBODY} --groups='' /mnt/jail"
    done = run(*as_nobody(*COMMAND, "--dir", str(work), before=jail, prefix=chroot))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "user namespaces are not allowed" in done.stderr
    assert "sudo" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("name", ["missing", "d" * 80])
def test_a_directory_that_cannot_be_used_is_refused_in_one_line(work: Path, name: str) -> None:
    """One that is not there, and one whose socket path would be too long (unix(7))."""
    place = work / name
    if name != "missing":
        place.mkdir()
    done = run(*COMMAND, "--dir", str(place))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("demo: --dir: ")
    assert done.stderr.count("\n") == 1
    if name != "missing":
        place.rmdir()  # fails when something was left in it


def started(work: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, "--dir", str(work)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())


def read_until(demo: subprocess.Popen[str], words: str) -> None:
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        if words in line:
            return
        lines.append(line)
    pytest.fail(f"the demo ended before it wrote {words!r}: {''.join(lines[-30:])}")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGTERM, "cachefetch refresh"), (signal.SIGINT, "PUBLISHED IN")],
)
def test_an_interrupted_demo_leaves_nothing(work: Path, number: signal.Signals, moment: str) -> None:
    """Between two steps or in the middle of a command; the fixture looks for mounts, files and processes."""
    with started(work) as demo:
        read_until(demo, moment)
        demo.send_signal(number)
        rest = demo.communicate(timeout=200)[0]
    assert demo.returncode == 130, rest
    assert "interrupted, everything was cleaned up" in rest


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_driver_that_dies_fails_the_demo_and_nothing_is_left(work: Path) -> None:
    """A claim that cannot be shown is no success: the same run, but without a driver from the first volumes on."""
    with started(work) as demo:
        read_until(demo, "PUBLISHED IN")
        os.kill(child(demo.pid, "csi"), signal.SIGKILL)
        rest = demo.communicate(timeout=200)[0]
    assert demo.returncode == 1, rest
    assert "The last words of the driver" in rest
    assert re.search(r"^FAILED the driver answered UNAVAILABLE", rest, re.MULTILINE)
    assert "claims hold" not in rest


def child(parent: int, module: str) -> int:
    """The process below `parent` that runs `python -m <module>`."""
    words = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    pids = [int(word) for word in words if f"-m\0{module}\0" in Path(f"/proc/{word}/cmdline").read_text()]
    assert len(pids) == 1
    return pids[0]


# That claims can fail: each measurement tells a wrong state from a right one.


def test_a_claim_that_does_not_hold_is_raised_and_not_counted(module: Callable[[str], Any]) -> None:
    report_module = module("report")
    out = io.StringIO()
    report = report_module.Report(out)
    report.claim("water is wet", holds=True, found="dry")
    with pytest.raises(report_module.ClaimFailed, match="fire is cold: hot"):
        report.claim("fire is cold", holds=False, found="hot")
    assert (report.proved, out.getvalue()) == (1, "   ok water is wet\n")


def test_colours_are_for_terminals_only(module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(out: io.StringIO) -> str:
        module("report").Report(out).claim("x", holds=True, found="")
        return out.getvalue()

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert ("\x1b" in shown(Tty()), "\x1b" in shown(io.StringIO())) == (True, False)
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b" not in shown(Tty())


@pytest.mark.root
def test_attempts_on_a_writable_file_are_told_from_refused_ones(module: Callable[[str], Any], tmp_path: Path) -> None:
    """Were the volume writable, the demo would see it: here some of the same attempts succeed, none says EROFS."""
    (tmp_path / "file").write_bytes(b"shared")
    outcomes = dict(module("facts").attempts(tmp_path, "file"))
    assert outcomes["open it for writing"] == outcomes["chmod 0777"] == outcomes["rename it"] == "done"
    assert "EROFS" not in outcomes.values()


def spoil_content(tree: Path) -> None:
    status = (tree / "sub" / "file").stat()
    (tree / "sub" / "file").write_bytes(b"CONTENT")
    os.utime(tree / "sub" / "file", ns=(status.st_atime_ns, status.st_mtime_ns))


def spoil_link(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")


def spoil_type(tree: Path) -> None:
    (tree / "empty").rmdir()
    (tree / "empty").touch()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _tree: None, ""),
        (spoil_content, "sub/file has another content"),
        (spoil_link, "link has another content"),
        (spoil_type, "empty has another type"),
        (lambda tree: os.utime(tree / "sub" / "file", ns=(1, 1)), "sub/file has another mtime"),
        (lambda tree: (tree / "sub" / "more").touch(), "sub/more is in one of them only"),
        (lambda tree: (tree / "sub" / "file").unlink(), "sub/file is in one of them only"),
    ],
)
def test_every_difference_of_two_trees_is_named(
    module: Callable[[str], Any], tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    (left / "sub").mkdir(parents=True)
    (left / "empty").mkdir()
    (left / "sub" / "file").write_bytes(b"content")
    (left / "link").symlink_to("sub/file")
    shutil.copytree(left, right, symlinks=True)
    spoil(right)
    facts = module("facts")
    assert facts.difference(facts.Tree(left), facts.Tree(right)) == says


def test_shared_files_count_once_and_copies_twice(module: Callable[[str], Any], tmp_path: Path) -> None:
    one, linked, copied = (tmp_path / name for name in ("one", "linked", "copied"))
    for place in (one, linked, copied):
        place.mkdir()
    (one / "file").write_bytes(b"x" * (1 << 20))
    (linked / "file").hardlink_to(one / "file")
    shutil.copy(one / "file", copied / "file")
    facts = module("facts")
    alone = facts.disk([one])
    assert alone >= 1 << 20
    assert facts.disk([one, linked]) - alone < 1 << 16
    assert facts.disk([one, copied]) - alone >= 1 << 20
    assert facts.names(tmp_path)[facts.inode((one / "file").stat())] == 2
    assert facts.Tree(one).inodes() == facts.Tree(linked).inodes() != facts.Tree(copied).inodes()


def test_a_running_process_is_found_by_a_word_of_its_command_line(module: Callable[[str], Any]) -> None:
    word = f"goldlink-{time.time_ns()}"
    code = "print('runs', flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, word], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()  # before, a process that is being replaced by exec(2) has no command line
        assert len(module("facts").processes(word)) == 1
        process.communicate(b"\n")
    assert module("facts").processes(word) == []
