from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cachefetch import __version__
from tests.processes import ROOT, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root
COMMAND = [sys.executable, "-m", "cachefetch"]
COMMANDS = ["run", "refresh", "list", "verify", "gc", "populate"]
WHERE = ["--state-dir", "/x", "--config", "/x"]
PATIENCE = 60.0


class Setup:
    """A configuration with two directories as sources, and a state directory that is not there yet."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.state = place / "state"
        self.config = place / "caches.yaml"
        self.origins = {name: place / name for name in ("deps", "model")}
        for name, origin in self.origins.items():
            (origin / "lib").mkdir(parents=True)
            (origin / "lib/file").write_text(name)
        self.declare("deps", "model")

    def declare(self, *names: str, more: str = "") -> None:
        caches = "".join(
            f"- name: {name}\n  source: {{type: directory, path: {self.place}/{name}}}\n{more}" for name in names
        )
        self.config.write_text(f"caches:\n{caches}" if caches else "caches: []\n")

    def arguments(self, command: str, *arguments: str | Path) -> list[str]:
        where = ["--state-dir", str(self.state), "--config", str(self.config)]
        return [*COMMAND, command, *where, *map(str, arguments)]

    def run(self, command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(command, *arguments), capture_output=True, text=True, check=False, cwd=ROOT, timeout=PATIENCE
        )

    def ok(self, command: str, *arguments: str | Path) -> str:
        done = self.run(command, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tree(self, cache: str) -> Path:
        return self.state / "caches" / cache / "current" / "tree"

    @contextmanager
    def started(self, command: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """The process and the file with what it writes to stderr; it has ended at the end of the block."""
        log = self.place / f"{command}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.arguments(command, *arguments), stdout=subprocess.DEVNULL, stderr=output, cwd=ROOT
            )
        try:
            yield process, log
        finally:
            stop(process)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def eventually(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The errors, which are one sentence each and never a traceback."""
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("cachefetch: ")]


def cachefetch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_version_is_told() -> None:
    assert cachefetch("--version").stdout == f"cachefetch {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    done = cachefetch(command, "--help")
    assert done.returncode == 0
    assert f"example: cachefetch {command} --state-dir" in done.stdout


def test_the_help_of_populate_warns_of_root_and_names_the_remedies() -> None:
    text = cachefetch("populate", "--help").stdout
    assert "hardlinks" in text
    assert "root" in text
    assert "'cachefetch verify'" in text
    assert "read-only mount" in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["destroy"],
        ["list"],
        ["list", "--state-dir", "/x"],
        ["list", *WHERE, "-o", "xml"],
        ["populate", *WHERE, "deps"],
    ],
)
def test_bad_usage_is_status_two_and_one_sentence(arguments: list[str]) -> None:
    done = cachefetch(*arguments)
    assert done.returncode == 2
    assert re.fullmatch(r"cachefetch: .*--help'\n", done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_broken_configuration_is_status_two_before_anything_else(setup: Setup, command: str) -> None:
    setup.config.write_text("caches:\n- name: deps\n  sourc: {}\n")
    done = setup.run(command, *(["deps", "dest"] if command == "populate" else []))
    assert done.returncode == 2
    assert complaints(done) == [done.stderr.rstrip()]
    assert "caches[0].sourc: unknown key" in done.stderr
    assert not setup.state.exists()


def test_an_unknown_cache_is_status_two_before_any_work(setup: Setup) -> None:
    for command, *arguments in (["refresh", "deps", "nope"], ["verify", "nope"], ["populate", "nope", "dest"]):
        done = setup.run(command, *arguments)
        assert done.returncode == 2
        assert complaints(done) == ["cachefetch: there is no cache 'nope': there are deps, model"]
    assert not setup.state.exists()


def test_one_round_of_everything(setup: Setup) -> None:
    """Fetch, look, check, change, fetch again, hand out, withdraw, collect."""
    first = setup.ok("refresh").splitlines()
    assert [line.partition(", version")[0] for line in first] == ["deps: changed", "model: changed"]
    (setup.origins["deps"] / "lib/file").write_text("changed")
    second = setup.ok("refresh").splitlines()
    assert [line.partition(", version")[0] for line in second] == ["deps: changed", "model: unchanged"]
    rows = json.loads(setup.ok("list", "-o", "json"))
    assert [(row["cache"], row["current"]) for row in rows] == [("deps", True), ("deps", False), ("model", True)]
    assert setup.ok("verify").count(": intact") == 3
    setup.ok("populate", f"deps@{rows[1]['version'][:12]}", setup.place / "old")
    setup.ok("populate", "deps", setup.place / "new")
    assert (setup.place / "old/lib/file").read_text() == "deps"
    assert (setup.place / "new/lib/file").samefile(setup.tree("deps") / "lib/file")
    setup.declare("model")
    assert setup.ok("gc").count("deps: dropped version") == 2
    assert json.loads(setup.ok("list", "-o", "json")) == [{**rows[2], "age": pytest.approx(rows[2]["age"], abs=60)}]
    assert (setup.place / "old/lib/file").read_text() == "deps", "a link tree outlives its version"


def test_damage_through_a_link_tree_is_found(setup: Setup) -> None:
    setup.ok("refresh", "deps")
    setup.ok("populate", "deps", setup.place / "dest")
    (setup.place / "dest/lib/file").write_text("DEPS")
    done = setup.run("verify")
    assert done.returncode == 1
    assert "'lib/file'" in done.stdout


def test_a_failing_cache_gives_status_one_and_the_others_are_served(setup: Setup) -> None:
    (setup.origins["deps"] / "lib/file").unlink()
    (setup.origins["deps"] / "lib").rmdir()
    setup.origins["deps"].rmdir()
    done = setup.run("refresh")
    assert done.returncode == 1
    assert done.stdout.startswith("model: changed")
    [complaint] = complaints(done)
    assert complaint.startswith("cachefetch: deps: the refresh failed, there is no version to serve yet: ")


def test_a_careful_umask_does_not_reach_link_trees(setup: Setup) -> None:
    setup.ok("refresh")
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *setup.arguments("populate", "deps", setup.place / "dest")],
        check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0
    assert (setup.place / "dest").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("dest", ["full", "file", "no/parent"])
def test_a_bad_destination_is_status_two(setup: Setup, dest: str) -> None:
    setup.ok("refresh", "deps")
    (setup.place / "full/x").mkdir(parents=True)
    (setup.place / "file").touch()
    done = setup.run("populate", "deps", setup.place / dest)
    assert done.returncode == 2
    assert len(complaints(done)) == 1


def test_a_state_directory_that_cannot_be_one_is_one_sentence(setup: Setup) -> None:
    setup.state.touch()
    done = setup.run("refresh")
    assert done.returncode == 1
    assert str(setup.state) in complaints(done)[0]


def test_a_reader_that_goes_away_is_no_traceback(setup: Setup) -> None:
    setup.declare(*(f"cache-{number}" for number in range(2000)))
    with subprocess.Popen(
        setup.arguments("list"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_populate_imports_neither_network_nor_progress_bar(setup: Setup) -> None:
    setup.ok("refresh", "deps")
    command = setup.arguments("populate", "deps", setup.place / "dest")
    command.insert(1, "-Ximporttime")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "cachefetch" in modules
    assert not modules & {"rich", "httpx2", "grpc", "google", "prometheus_client", "asyncio", "ssl"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_refresh_is_one_sentence_and_leaves_no_version(setup: Setup, number: int) -> None:
    grow(setup.origins["deps"] / "large")
    with setup.started("refresh", "deps") as (process, log):
        eventually(lambda: "to do" in log.read_text())
        process.send_signal(number)
        assert process.wait(PATIENCE) == 1
    text = log.read_text()
    assert "Traceback" not in text
    assert text.endswith("cachefetch: interrupted: run the same command again to go on\n")
    assert [row["version"] for row in json.loads(setup.ok("list", "-o", "json"))] == [None, None]


def grow(path: Path) -> None:
    """Make a sparse file that takes long enough to hash that a signal arrives in the middle."""
    with path.open("wb") as file:
        file.truncate(4 << 30)


def test_the_progress_bar_of_a_refresh_on_a_terminal(setup: Setup) -> None:
    grow(setup.origins["deps"] / "large")
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        setup.arguments("refresh", "deps"), stdout=subprocess.DEVNULL, stderr=theirs, env=env, cwd=ROOT
    )
    os.close(theirs)
    seen = b""
    try:
        while not re.search(rb"of 4\.0 GiB \(\d+%\), [0-9.]+ MiB/s, [0-9ms. ]+ left", seen):
            seen += os.read(ours, 1 << 16)
    finally:
        stop(process)
        os.close(ours)


def test_the_daemon_refreshes_follows_the_configuration_and_ends_when_told(setup: Setup) -> None:
    setup.declare("deps")
    with setup.started("run") as (process, log):
        eventually(setup.tree("deps").is_dir)
        setup.declare("deps", "model", more="  refresh: {interval: 1s}\n")
        eventually(setup.tree("model").is_dir)
        (setup.origins["deps"] / "lib/file").write_text("changed")
        eventually(lambda: (setup.tree("deps") / "lib/file").read_text() == "changed")
        setup.config.write_text("caches: 3\n")
        eventually(lambda: "event=configuration_refused" in log.read_text())
        (setup.origins["model"] / "lib/file").write_text("changed")
        eventually(lambda: (setup.tree("model") / "lib/file").read_text() == "changed")
        process.terminate()
        assert process.wait(PATIENCE) == 0
    lines = log.read_text().splitlines()
    assert lines[-1].endswith("event=stopped")
    assert sum("event=refreshed" in line for line in lines) == 4


def test_the_daemon_ends_in_the_middle_of_a_fetch(setup: Setup) -> None:
    grow(setup.origins["deps"] / "large")
    with setup.started("run") as (process, log):
        eventually(lambda: "event=fetching cache=deps" in log.read_text())
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert "event=interrupted cache=deps" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_second_daemon_on_the_same_store_is_refused(setup: Setup) -> None:
    with setup.started("run") as (process, log):
        eventually(lambda: "event=declared" in log.read_text())
        done = setup.run("run")
        assert done.returncode == 1
        assert complaints(done)[0].startswith(f"cachefetch: another cachefetch daemon runs on {setup.state}: stop")
        assert process.poll() is None
    assert setup.run("refresh").returncode == 0


@pytest.mark.parametrize(
    "wrong",
    [["--concurrency", "0"], ["--concurrency", "many"], ["--bandwidth", "0"], ["--bandwidth", "fast"],
     ["--metrics-address", "here"], ["--node-id", "node-1"]],
)  # fmt: skip
def test_a_wrong_limit_of_the_daemon_is_status_two_and_makes_nothing(setup: Setup, wrong: list[str]) -> None:
    done = setup.run("run", *wrong)
    assert done.returncode == 2
    assert len(complaints(done)) == 1
    assert not setup.state.exists()


def test_the_daemon_serves_its_metrics(setup: Setup) -> None:
    with setup.started("run", "--metrics-address", "127.0.0.1:0") as (_, log):
        eventually(lambda: log.read_text().count("event=refreshed") == 2)
        port = re.search(r"event=measuring .*port=(\d+)", log.read_text())
        assert port
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    assert 'goldlink_fetched_bytes_total{cache="deps",source="directory"} 4.0' in text
    assert 'goldlink_current_age_seconds{cache="deps"}' in text
    assert "goldlink_config_valid 1.0" in text


def test_other_commands_work_beside_a_daemon(setup: Setup) -> None:
    with setup.started("run"):
        eventually(setup.tree("deps").is_dir)
        eventually(setup.tree("model").is_dir)
        assert setup.ok("verify").count(": intact") == 2
        assert len(setup.ok("list").splitlines()) == 3


def test_the_list_beside_a_daemon_is_of_what_is_in_force(setup: Setup) -> None:
    """Somebody broke the file, and wants to see what is there."""
    with setup.started("run"):
        eventually(setup.tree("deps").is_dir)
        setup.config.write_text("caches: 3")
        listed = json.loads(setup.ok("list", "-o", "json"))
        assert {row["cache"]: row["declared"] for row in listed} == {"deps": True, "model": True}


def test_it_is_installed_as_a_command() -> None:
    command = Path(sys.executable).with_name("cachefetch")
    assert subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout.startswith(
        "cachefetch "
    )
