"""What a one-node Kubernetes is made of: configuration files and command lines, no I/O.

Everything runs in a machine of its own (machine.py), at the usual places: kubelet below /var/lib/kubelet if not told
otherwise, containerd below /var/lib/containerd. Settings that are not obvious say why.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.machine import ADDRESS, HOSTNAME

if TYPE_CHECKING:
    from pathlib import Path

ETCD = "http://127.0.0.1:2379"
PODS = "10.88.0.0/16"
SERVICES = "10.96.0.0/24"
"""Its first address is machine.SERVICE_ADDRESS: Kubernetes gives it to the service of the API server."""
KUBELET = "/var/lib/kubelet"
MAX_PODS = 110
AUDIT_POLICY = "audit.yaml"


def files(etc: Path, pki: Path, cgroup: str) -> dict[str, str]:
    """The configuration files, by their paths below `etc`."""
    return {
        "containerd.toml": _containerd(etc),
        "cni/10-pods.conflist": json.dumps(_network()),
        AUDIT_POLICY: json.dumps(_audit()),
        "kubelet.yaml": json.dumps(_kubelet(pki, cgroup)),
    }


def containerd(etc: Path) -> list[str | Path]:
    """The container runtime; it calls runc."""
    return ["containerd", "--config", etc / "containerd.toml"]


def etcd() -> list[str | Path]:
    """The database. What it holds need not survive anything."""
    listen = ["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]
    return ["etcd", "--data-dir", "/var/lib/etcd", "--unsafe-no-fsync", *listen]


def api_server(programs: Path, etc: Path, audit: Path) -> list[str | Path]:
    """The API server, on port 443 of the service's own address, so that pods reach it without a proxy.

    What service accounts ask goes to the file `audit`.
    """
    pki = etc / "pki"
    return [
        programs / "kube-apiserver",
        f"--etcd-servers={ETCD}",
        "--bind-address=0.0.0.0",
        f"--advertise-address={ADDRESS}",
        "--secure-port=443",
        f"--service-cluster-ip-range={SERVICES}",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--kubelet-client-certificate={pki}/admin.crt",
        f"--kubelet-client-key={pki}/admin.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",  # there is no DNS for the node's name
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--feature-gates=MutatingAdmissionPolicy=true",  # for deploy/examples/read-only-policy.yaml
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
        f"--audit-policy-file={etc / AUDIT_POLICY}",
        f"--audit-log-path={audit}",
    ]


def controller_manager(programs: Path, pki: Path, kubeconfig: Path) -> list[str | Path]:
    """The controllers."""
    return [
        programs / "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def scheduler(programs: Path, kubeconfig: Path) -> list[str | Path]:
    """The scheduler."""
    return [
        programs / "kube-scheduler",
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def kubelet(programs: Path, etc: Path, kubeconfig: Path, directory: str) -> list[str | Path]:
    """The node agent; what it has is in `directory`."""
    node = [f"--hostname-override={HOSTNAME}", f"--node-ip={ADDRESS}", f"--root-dir={directory}"]
    return [programs / "kubelet", f"--config={etc}/kubelet.yaml", f"--kubeconfig={kubeconfig}", *node, "--v=2"]


def _kubelet(pki: Path, cgroup: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": f"{pki}/ca.crt"}},
        "tlsCertFile": f"{pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,  # hosts of the tests may have either version
        "failSwapOn": False,
        "oomScoreAdj": 0,  # a lower score needs CAP_SYS_RESOURCE, which a sandbox may lack
        "enforceNodeAllocatable": [],  # no limits on the cgroup of the pods: the host is not this cluster's alone
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,  # never: images were imported and could not be pulled again
        "imageGCLowThresholdPercent": 99,
        "resolvConf": "/dev/null",  # there is no DNS
        "maxPods": MAX_PODS,
        "syncFrequency": "5s",
        "volumeStatsAggPeriod": "10s",
        "serializeImagePulls": False,
    }


def _audit() -> dict[str, Any]:
    """Who asked for what, of pods only (Kubernetes documentation, "Auditing")."""
    pods = {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "omitStages": ["RequestReceived"]}
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [pods, {"level": "None"}]}


def _containerd(etc: Path) -> str:
    """Options of containerd's CRI plugin: containerd documentation, docs/cri/config.md."""
    return f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true  # as oomScoreAdj of kubelet
  disable_apparmor = true
  disable_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{etc}/cni"
"""


def _network() -> dict[str, Any]:
    """Each pod has a link to the machine, which forwards."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": PODS}]],
        "dataDir": "/run/cni",
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugin = {"type": "ptp", "ipMasq": False, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}
