"""A one-node Kubernetes that runs from `start` to `stop`, and what tests need to talk to it.

`python -m tests.e2e.cluster` starts one and gives a shell in it, to look around; it ends with the shell.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.e2e import components, images, pki
from tests.e2e.machine import HOSTNAME, CommandFailed, Machine
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.e2e.images import Image

LOGS = ROOT / "build" / "e2e"
"""The logs of the components stay there."""
_START = 180.0  # seconds until the cluster must be up, on a machine that is busy with other things
_STEP = 0.1  # seconds between two looks


class Cluster:
    """Kubernetes in a machine of its own: nothing of it can be reached from elsewhere, nothing remains of it."""

    def __init__(
        self, programs: Path, *, name: str = "node", logs: Path = LOGS, kubelet_directory: str = components.KUBELET
    ) -> None:
        """Be made of the commands in the directory `programs`, as build.sh makes it; logs go to `logs`."""
        self.machine = Machine(name)
        self.logs = logs
        self.kubelet_directory = kubelet_directory
        self._programs = programs
        self._etc = self.machine.directory / "etc"
        self._pki = self._etc / "pki"
        self.kubeconfig = self._etc / "admin.conf"
        self.audit = self.machine.directory / "log" / "audit.log"
        """What service accounts have asked the API server, one JSON object a line."""
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the node is ready for pods and has the images pause, busybox and agnhost."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for log in self.logs.glob("*.log"):
            log.unlink()
        self.machine.start()
        self._configure()
        self._start_server()
        for image in (images.pause(), images.busybox(), images.agnhost(self._programs / "agnhost")):
            self.add_image(image)
        self._start_clients()
        self.wait("the node", self._ready, _START)
        self._await_service_account("default")

    def cut_power(self) -> None:
        """End everything at once; what is on the disk stays there."""
        self.machine.cut_power()
        self._pids.clear()

    def boot(self) -> None:
        """Start again after `cut_power`. Returns when the API server answers; what it says of the node may be old."""
        self.machine.boot()
        self._start_server()
        self._start_clients()

    def _start_server(self) -> None:
        self._spawn("containerd", components.containerd(self._etc))
        self._spawn("etcd", components.etcd())
        self._spawn("kube-apiserver", components.api_server(self._programs, self._etc, self.audit))

    def _start_clients(self) -> None:
        self.wait("the API server", lambda: self._succeeds("get", "--raw=/readyz"), _START)
        self._spawn(
            "kube-controller-manager", components.controller_manager(self._programs, self._pki, self.kubeconfig)
        )
        self._spawn("kube-scheduler", components.scheduler(self._programs, self.kubeconfig))
        self.start_kubelet()

    def stop(self) -> None:
        """End everything at once, as if the plug was pulled."""
        self.machine.stop()

    def start_kubelet(self) -> None:
        """Start kubelet, at first or again."""
        command = components.kubelet(self._programs, self._etc, self._etc / "kubelet.conf", self.kubelet_directory)
        self._spawn("kubelet", command)

    def kill(self, component: str) -> None:
        """Kill a component, as a crash would."""
        pid = self._pids.pop(component)
        os.kill(pid, 9)
        self.wait(f"the end of {component}", lambda: not Path(f"/proc/{pid}").exists())

    def add_image(self, image: Image) -> None:
        """Give the node an image, as if it was pulled."""
        archive = self._etc / "image.tar"
        image.write(archive)
        self.import_image(archive)
        archive.unlink()

    def import_image(self, archive: Path) -> None:
        """Give the node the images of an archive."""
        self.wait("containerd", (self.machine.root / "run/containerd/containerd.sock").exists)
        self.machine.run(["ctr", "--namespace", "k8s.io", "images", "import", archive], timeout=300)

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
        """What kubectl prints.

        Raises:
            CommandFailed: it failed; the text has what it said.
        """
        return self.machine.run(self._kubectl(*arguments), stdin=stdin, timeout=timeout)

    def attempt(
        self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, which may fail."""
        return self.machine.attempt(self._kubectl(*arguments), stdin=stdin, timeout=timeout)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def create_namespace(self, name: str, **labels: str) -> None:
        """Create a namespace and wait until pods can be created in it."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self._await_service_account(name)

    def get(self, kind: str, name: str = "", namespace: str = "default") -> dict[str, Any]:
        """An object, or the list of all when no name is given."""
        names = [name] if name else []
        found: dict[str, Any] = json.loads(
            self.kubectl("get", kind, *names, f"--namespace={namespace}", "--output=json")
        )
        return found

    def delete(self, kind: str, *names: str, namespace: str = "default", timeout: float = 120) -> None:
        """Delete objects and wait until they are gone; pods get no grace period beyond what the kernel needs."""
        grace = ["--grace-period=1"] if kind in {"pod", "pods"} else []
        command = ["delete", kind, *names, f"--namespace={namespace}", "--ignore-not-found", *grace]
        self.kubectl(*command, f"--timeout={timeout:.0f}s", timeout=timeout + 30)

    def wait(self, what: str, holds: Callable[[], object], timeout: float = 60) -> None:
        """Wait until `holds` is true.

        Raises:
            AssertionError: it was not in time, or a component of the cluster has ended.
        """
        end = time.monotonic() + timeout
        while not holds():
            for name, pid in self._pids.items():
                assert Path(f"/proc/{pid}").exists(), f"{name} has ended: see {self.logs / name}.log"
            assert time.monotonic() < end, f"{what}: not in {timeout:.0f} s; the logs are in {self.logs}"
            time.sleep(_STEP)

    def _await_service_account(self, namespace: str) -> None:
        """The controllers make it; no pod is admitted before."""
        command = ("get", "serviceaccount", "default", f"--namespace={namespace}")
        self.wait(f"the service account of namespace {namespace}", lambda: self._succeeds(*command), _START)

    def _configure(self) -> None:
        pki.make(self._pki)
        for name in ("admin", "kubelet"):
            (self._etc / f"{name}.conf").write_text(pki.kubeconfig(self._pki, name))
        for name, text in components.files(self._etc, self._pki, self.machine.cgroup).items():
            (self._etc / name).parent.mkdir(exist_ok=True)
            (self._etc / name).write_text(text)

    def _spawn(self, name: str, command: Sequence[str | Path]) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            self._pids[name] = self.machine.spawn(command, log)

    def _kubectl(self, *arguments: str | Path) -> list[str | Path]:
        return [self._programs / "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]

    def _succeeds(self, *arguments: str) -> bool:
        return self.attempt(*arguments).returncode == 0

    def _ready(self) -> bool:
        try:
            conditions = self.get("node", HOSTNAME)["status"].get("conditions", [])
        except CommandFailed:
            return False  # kubelet has not registered the node yet
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def build(group: str) -> Path:
    """The directory with the commands of a group of build.sh, which builds them if need be."""
    script = Path(__file__).with_name("build.sh")
    return Path(subprocess.run([script, group], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def main() -> int:
    """Start a cluster and give a shell in it."""
    with Cluster(build("kubernetes")) as cluster:
        path = f"{build('kubernetes')}:{os.environ['PATH']}"
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PATH": path}
        return subprocess.run(cluster.machine.entering(["sh"]), check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
