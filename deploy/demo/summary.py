"""The end of the report: what was measured, side by side with copies, and what to read next."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from report import took

from cachefetch.terminal import size

if TYPE_CHECKING:
    from report import Report

_READ_NEXT = """\
README.md tells how a cache is declared, how to run this in a Kubernetes cluster, and what goldlink does not do;
docs/architecture.md how it works, docs/adr/ why it is built this way. The driver of this demo was the real one:
'python -m csi --help' and 'python -m cachefetch --help' show what else they take."""


@dataclass
class Figures:
    """What the steps measured."""

    files: int = 0
    bytes: int = 0
    copy_seconds: float = 0.0
    copy_disk: int = 0
    """Bytes of disk that one copy takes."""
    publish_seconds: list[float] = field(default_factory=list)
    volumes: int = 0
    """How many volumes `volumes_disk` is for."""
    volumes_disk: int = 0
    """Bytes of disk that the volumes and the ready link trees take beside the golden tree."""
    version_disk: int = 0
    """Bytes of disk that the second version takes beside the first."""


def summarise(report: Report, figures: Figures) -> None:
    """Write the summary."""
    report.heading(f"All {report.proved} claims hold")
    copies, golden = figures.volumes * figures.copy_disk, figures.copy_disk + figures.volumes_disk
    report.table(
        (f"{figures.files:,} files, {size(figures.bytes)}", "A COPY EACH", "GOLDLINK"),
        [
            ("until a job has them", took(figures.copy_seconds), took(statistics.median(figures.publish_seconds))),
            (f"disk for {figures.volumes} jobs", size(copies), size(golden)),
            ("disk for a new version", size(figures.copy_disk), size(figures.version_disk)),
            ("can root change them?", "yes", "no: EROFS"),
        ],
        right=(1, 2),
    )
    report.heading("Read next")
    report.paragraph(_READ_NEXT)
