"""The committed stubs are what proto/generate.sh makes of proto/*.proto."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_stubs_are_generated_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run([ROOT / "proto" / "generate.sh", sys.executable, tmp_path], check=True, timeout=100)
    made = {path.name: path.read_bytes() for path in (tmp_path / "csi" / "pb").iterdir()}
    kept = {path.name: path.read_bytes() for path in (ROOT / "csi" / "pb").glob("*_pb2*.py*")}
    protocols = ("csi", "pluginregistration")
    kinds = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    assert sorted(made) == sorted(f"{protocol}{kind}" for protocol in protocols for kind in kinds)
    assert made == kept
