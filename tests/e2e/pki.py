"""The certificates of a cluster that lives for one test run, and the files that let clients use them."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from tests.e2e.machine import ADDRESS, HOSTNAME, SERVICE_ADDRESS

if TYPE_CHECKING:
    from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_API_SERVER = f"IP:127.0.0.1,IP:{SERVICE_ADDRESS},IP:{ADDRESS},DNS:kubernetes.default.svc"


def make(directory: Path) -> None:
    """Write the authority, a certificate for each of `apiserver`, `admin` and `kubelet`, and the service account key.

    The names decide what a client may do: Kubernetes takes the organisation for the group (Kubernetes documentation,
    "PKI certificates and requirements").
    """
    directory.mkdir()
    _openssl(directory, "req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "30")
    _sign(directory, "apiserver", "/CN=kube-apiserver", _API_SERVER)
    _sign(directory, "admin", "/O=system:masters/CN=admin", "DNS:admin")
    _sign(directory, "kubelet", f"/O=system:nodes/CN=system:node:{HOSTNAME}", f"IP:{ADDRESS},DNS:{HOSTNAME}")
    _openssl(directory, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key")
    _openssl(directory, "ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")


def kubeconfig(directory: Path, name: str) -> str:
    """The client configuration of the certificate `name`; JSON, which is YAML."""
    cluster = {"server": f"https://{SERVICE_ADDRESS}", "certificate-authority": str(directory / "ca.crt")}
    user = {"client-certificate": str(directory / f"{name}.crt"), "client-key": str(directory / f"{name}.key")}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": name}}],
            "current-context": "tests",
        }
    )


def _sign(directory: Path, name: str, subject: str, alternatives: str) -> None:
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName={alternatives}\nextendedKeyUsage=serverAuth,clientAuth\n")
    _openssl(directory, "req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
    authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", extensions)
    _openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *authority)


def _openssl(directory: Path, *arguments: str | Path) -> None:
    result = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"openssl {arguments[0]}: {result.stderr}"
