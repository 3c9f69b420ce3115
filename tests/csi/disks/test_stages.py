from __future__ import annotations

from typing import TYPE_CHECKING

from csi.disks.ids import disk_id
from csi.disks.model import Mode
from csi.disks.stages import Stage, Stages, Target
from tests.csi.disks.kit import writer

if TYPE_CHECKING:
    from pathlib import Path

ID = disk_id("one")


def test_stage_is_read_as_it_was_written(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "run" / "disks", "boot")
    target = Target(path="/pods/1", mode=Mode.SINGLE_NODE_WRITER, readonly=True)
    stage = Stage(id=ID, path="/staging", hold=writer(), boot_id="boot", identity=(7, 2), targets=(target,))
    stages.write(stage)
    assert Stages(tmp_path / "run" / "disks", "boot").read(ID) == stage
    assert stages.ids() == [ID]
    for _ in range(2):
        stages.remove(ID)
    assert stages.read(ID) is None
    assert stages.ids() == []


def test_damaged_and_foreign_files_are_no_stages(tmp_path: Path) -> None:
    stages = Stages(tmp_path, "boot")
    (tmp_path / f"{ID}.json").write_bytes(b"{")
    assert stages.read(ID) is None
    assert stages.read("../x") is None
