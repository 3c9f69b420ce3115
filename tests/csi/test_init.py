"""What the package does to gRPC before it is loaded."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, sys
from pathlib import Path
from csi.identity import Identity
from csi.metrics import Metrics
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.server import Server
import grpc

class Forking(csi_pb2_grpc.IdentityServicer):
    def Probe(self, request, context):
        child = os.fork()
        if child == 0:
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        return csi_pb2.ProbeResponse()

path = Path(sys.argv[1])
server = Server(path, Metrics("1"), identity=Forking())
server.start()
with grpc.insecure_channel(f"unix:{path}") as channel:
    for _ in range(20):
        csi_pb2_grpc.IdentityStub(channel).Probe(csi_pb2.ProbeRequest(), timeout=20)
assert server.stop(5)
"""


def test_a_child_made_while_calls_run_neither_crashes_nor_prints(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"{tmp_path}/csi.sock"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
