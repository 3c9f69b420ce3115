"""Where a secret might be found after a fetcher has used it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

    from tests.fetcher.process import FetcherProcess


def said(*done: CompletedProcess[str]) -> str:
    """All that commands printed."""
    return "".join(one.stdout + one.stderr for one in done)


def leaks(fetcher: FetcherProcess, secret: str, *done: CompletedProcess[str]) -> list[str]:
    """Every place that holds `secret`: output, log, and all files below the state directory but the golden ones."""
    found = ["output"] if secret in said(*done) else []
    if fetcher.log_file.exists() and secret in fetcher.log_file.read_text():
        found.append("log")
    return found + [str(path) for path in _files(fetcher.state) if secret.encode() in path.read_bytes()]


def _files(state: Path) -> list[Path]:
    return [path for path in state.rglob("*") if path.is_file() and "tree" not in path.parts]
