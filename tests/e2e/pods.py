"""Pods as the tests need them: manifests, and what to wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.e2e.cluster import Cluster

BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
SLEEP = ("sh", "-c", "trap exit TERM; sleep 3600 & wait")
"""Does nothing and ends as soon as it is asked to."""


def pod(
    name: str,
    namespace: str,
    *,
    command: Sequence[str] = SLEEP,
    image: str = BUSYBOX,
    volumes: Mapping[str, Mapping[str, Any]] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A pod of one container, of busybox and run by root unless said otherwise; each of its `volumes` is below /mnt.

    Args:
        name: of the pod.
        namespace: where it is.
        command: what it runs.
        image: what it runs in.
        volumes: by their names, each as a pod declares it, without the name.
        spec: more of the pod's specification.
    """
    volumes = volumes or {}
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "command": list(command),
        "volumeMounts": [{"name": volume, "mountPath": f"/mnt/{volume}"} for volume in volumes],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "containers": [container],
            "volumes": [{"name": volume, **source} for volume, source in volumes.items()],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            **spec,
        },
    }


def wait_for(
    cluster: Cluster, namespace: str, *names: str, condition: str = "condition=Ready", timeout: float = 60
) -> None:
    """Wait until the pods have the condition, in kubectl's words; when they do not, the error describes them.

    Raises:
        AssertionError: not in time.
    """
    command = ["wait", "pod", *names, f"--namespace={namespace}", f"--for={condition}"]
    result = cluster.attempt(*command, f"--timeout={timeout:.0f}s", timeout=timeout + 30)
    if result.returncode:
        described = cluster.kubectl("describe", "pod", *names, f"--namespace={namespace}")
        raise AssertionError(f"{result.stderr}\n{described}")


def run(cluster: Cluster, namespace: str, name: str, script: str) -> tuple[int, str]:
    """Run a shell script in a pod: its exit status, and what it and kubectl printed."""
    result = cluster.attempt("exec", name, f"--namespace={namespace}", "--", "sh", "-c", f"exec 2>&1; {script}")
    return result.returncode, result.stdout + result.stderr


def messages(cluster: Cluster, namespace: str, name: str) -> str:
    """What the events of a pod say, as `kubectl describe pod` shows them."""
    events = cluster.get("events", namespace=namespace)["items"]
    return "\n".join(event["message"] for event in events if event["involvedObject"]["name"] == name)
