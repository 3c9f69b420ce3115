"""The chart's clean-up removes whatever volumes and caches may have left."""

from __future__ import annotations

import os
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


def test_a_tree_of_any_depth_goes(tmp_path: Path) -> None:
    """A pod with a private view nests as deep as it likes, and must not keep a node from being cleaned."""
    (tmp_path / "trash").mkdir()
    (tmp_path / "others").mkdir()
    here = os.open(tmp_path / "trash", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        script().clean(tmp_path)
        assert not (tmp_path / "trash").exists()
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "trash"], check=True)  # pytest could not, either
    assert (tmp_path / "others").is_dir()


def script() -> ModuleType:
    spec = spec_from_file_location("clean_up", ROOT / "deploy/chart/goldlink/files/clean_up.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
