"""The examples for users, each applied as it is and run to success."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e import images
from tests.e2e.goldlink import SOURCES
from tests.e2e.machine import ADDRESS
from tests.e2e.outside import PROXY_PORT, Outside
from tests.processes import ROOT
from tests.servers.images import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster
    from tests.e2e.goldlink import Goldlink

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(400, func_only=True)]
EXAMPLES = ROOT / "deploy" / "examples"
IMAGE = "docker.io/library/busybox:1.37"
"""The one image of the examples; Debian's busybox here."""
MODULE = "module.exports = leftPad\n"
COMPILE = "#!/bin/sh\necho compiled $1\n"


@dataclass(frozen=True)
class World:
    """The cluster of somebody who follows the examples."""

    cluster: Cluster
    goldlink: Goldlink
    fetcher: dict[str, Any]

    def install(self, name: str, *caches: str) -> None:
        """Install goldlink with the values of an example, and wait until the node has the caches."""
        self.goldlink.caches.clear()
        self.goldlink.install(EXAMPLES / f"{name}.values.yaml", fetcher=self.fetcher)
        self.cluster.wait("the caches", lambda: all(self.goldlink.current(cache) for cache in caches), 180)

    @contextmanager
    def applied(self, name: str) -> Iterator[None]:
        """The objects of an example, until the end of the block. Their volumes are gone then, before values change."""
        path = EXAMPLES / f"{name}.yaml"
        self.cluster.kubectl("apply", "--filename", path)
        yield
        self.cluster.kubectl("delete", "--filename", path, "--timeout=120s", timeout=150)
        claims = {item["metadata"]["uid"] for item in self.cluster.get("pvc")["items"]}
        self.cluster.wait("the end of their volumes", lambda: self._claimed() <= claims, 120)

    def output(self, what: str, namespace: str = "default") -> str:
        """What the pods of `what` have said, once it has succeeded."""
        kind = what.partition("/")[0]
        condition = {"job": "condition=Complete", "pod": "jsonpath={.status.phase}=Succeeded"}[kind]
        result = self.cluster.attempt(
            "wait", what, f"--namespace={namespace}", f"--for={condition}", "--timeout=180s", timeout=200
        )
        described = self.cluster.kubectl("describe", "pods", f"--namespace={namespace}")
        assert result.returncode == 0, f"{result.stderr}\n{described}"
        return self.cluster.kubectl(
            "logs", what, f"--namespace={namespace}", "--all-pods" if kind == "job" else "--v=0"
        )

    def _claimed(self) -> set[str]:
        """The uids of the claims that volumes are bound to, of the namespace that the examples are in."""
        references = [item["spec"].get("claimRef", {}) for item in self.cluster.get("persistentvolumes")["items"]]
        return {reference["uid"] for reference in references if reference.get("namespace") == "default"}


@pytest.fixture(scope="module")
def world(cluster: Cluster, goldlink: Goldlink, snapshots: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The names that the examples use lead to servers; the image that they use is there."""
    cluster.add_image(replace(images.busybox(), names=(IMAGE,)))
    outside = Outside(cluster.machine)
    user, password = login()
    outside.start(user, password)
    outside.serve("node_modules.tar.gz", archive({"left-pad/index.js": MODULE}, "w:gz"))
    layout = Layout(tmp_path_factory.mktemp("registry") / "toolchain")
    layout.tag(layout.image([archive({"bin/compile": COMPILE}, "w")]))
    outside.push(layout.directory, "team/toolchain:1.2", f"{user}:{password}")
    authority = cluster.machine.root / SOURCES.lstrip("/") / "authority.pem"
    authority.write_bytes(outside.authority.read_bytes())
    variables = {"HTTPS_PROXY": f"http://{ADDRESS}:{PROXY_PORT}", "SSL_CERT_FILE": f"{SOURCES}/{authority.name}"}
    env = [{"name": name, "value": value} for name, value in variables.items()]
    return World(cluster, goldlink, {"directories": [SOURCES], "env": env})


def test_a_pod_has_a_cache(world: World) -> None:
    world.install("pod", "node-modules")
    with world.applied("pod"):
        assert world.output("pod/build") == f"left-pad\n{MODULE}"


def test_three_pods_mount_a_claim_of_a_cache(world: World) -> None:
    world.install("persistent-volume", "node-modules")
    with world.applied("persistent-volume"):
        assert world.output("job/readers").count(MODULE.strip()) == 3


def test_a_disk_is_built_sealed_and_read(world: World) -> None:
    world.install("disk")
    with world.applied("disk-1-build"):
        world.output("job/build-index")
        with world.applied("disk-2-seal"):
            ready = "--for=jsonpath={.status.readyToUse}=true"
            world.cluster.kubectl("wait", "volumesnapshot/index", ready, "--timeout=120s", timeout=150)
            with world.applied("disk-3-read"):
                assert world.output("job/read-index").count("Read-only file system") == 3


def test_a_cache_comes_from_a_private_registry(world: World) -> None:
    with world.applied("private-registry-login"):
        world.install("private-registry", "toolchain")
        with world.applied("private-registry"):
            assert world.output("pod/compile") == "compiled hello\n"
        world.goldlink.install()  # without the Secret, which goes


def test_a_job_of_a_ci_has_its_dependencies(world: World) -> None:
    world.install("ci-job")
    with world.applied("ci-job"):
        assert "bundle.js" in world.output("job/build-web", "ci-web")


def test_every_example_is_run_or_said_why_not() -> None:
    """A new example needs a test."""
    elsewhere = {"values.yaml", "pinned.yaml", "read-only-policy.yaml"}  # test_reference.py, test_inline.py
    text = (ROOT / "tests" / "e2e" / "test_examples.py").read_text()
    for path in EXAMPLES.glob("*.yaml"):
        name = path.name.removesuffix(".yaml").removesuffix(".values")
        assert path.name in elsewhere or f'"{name}"' in text, path.name


def login() -> tuple[str, str]:
    """The user and the password that the example of a private registry shows."""
    secret = yaml.safe_load((EXAMPLES / "private-registry-login.yaml").read_text())
    config = json.loads(secret["stringData"][".dockerconfigjson"])
    entry = config["auths"]["registry.example"]
    return entry["username"], entry["password"]


def archive(files: dict[str, str], mode: Any) -> bytes:
    """A tar archive of executables."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()
