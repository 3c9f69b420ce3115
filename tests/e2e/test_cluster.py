"""The cluster of the tests works, and nothing of it remains."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import pods
from tests.e2e.cluster import Cluster, build
from tests.e2e.machine import Machine, clean_up
from tests.processes import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300, func_only=True)]


def test_a_pod_runs_answers_and_goes(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pods.pod("first", namespace))
    pods.wait_for(cluster, namespace, "first")
    assert pods.run(cluster, namespace, "first", "id -u") == (0, "0\n")
    cluster.delete("pod", "first", namespace=namespace)
    assert cluster.get("pods", namespace=namespace)["items"] == []


def test_pods_reach_the_api_server_by_the_address_of_its_service(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pods.pod("client", namespace))
    pods.wait_for(cluster, namespace, "client")
    script = "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null"
    assert pods.run(cluster, namespace, "client", script) == (0, "")


def test_kubelet_returns_after_a_crash_and_pods_run_on(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pods.pod("before", namespace))
    pods.wait_for(cluster, namespace, "before")
    cluster.kill("kubelet")
    cluster.start_kubelet()
    cluster.apply(pods.pod("after", namespace))
    pods.wait_for(cluster, namespace, "before", "after")
    assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 0 for pod in _pods(cluster, namespace))


def test_nothing_remains_of_a_cluster(tmp_path: Path) -> None:
    with Cluster(build("kubernetes"), name="short", logs=tmp_path) as cluster:
        cluster.create_namespace("short")
        cluster.apply(pods.pod("only", "short"))
        pods.wait_for(cluster, "short", "only")
        machine, spaces = cluster.machine, namespaces(cluster.machine.init)
        assert len(inhabitants(spaces)) > 8
        assert files(machine)
    assert inhabitants(spaces) == []
    assert files(machine) == []


def test_nothing_remains_of_a_machine_whose_test_run_was_killed() -> None:
    """The kernel ends the processes, and the next machine removes the files."""
    script = (
        "from tests.e2e.machine import Machine; machine = Machine('doomed'); machine.start();"
        "machine.spawn(['sleep', '1000'], open('/dev/null', 'wb')); print(machine.init, flush=True); input()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout
        spaces = namespaces(int(run.stdout.readline()))
        machine = Machine("doomed", owner=run.pid)
        assert files(machine)
        assert len(inhabitants(spaces)) >= 2
        run.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    while inhabitants(spaces):
        assert time.monotonic() < end, "the processes outlive their owner"
        time.sleep(0.02)
    clean_up()
    assert files(machine) == []


def test_two_machines_live_side_by_side() -> None:
    with Machine("one") as one, Machine("two") as two:
        one.run(["touch", "/var/lib/mine"])
        assert two.run(["ls", "/var/lib"]) == ""
        assert one.run(["readlink", "/proc/self/ns/net"]) != two.run(["readlink", "/proc/self/ns/net"])


def namespaces(pid: int) -> set[str]:
    """The mount, network and process namespaces of a process."""
    return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("mnt", "net", "pid")}


def inhabitants(spaces: set[str]) -> list[int]:
    """Processes in any of these namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and namespaces(int(entry.name)) & spaces:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended meanwhile, or the host's own and out of bounds
    return found


def files(machine: Machine) -> list[Path]:
    """What there is of a machine in the file system and in control groups."""
    groups = Path("/sys/fs/cgroup").glob(f"**{machine.cgroup}")
    return [path for path in (machine.directory, *groups) if path.exists()]


def _pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = cluster.get("pods", namespace=namespace)["items"]
    return items
