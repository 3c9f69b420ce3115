"""The fields of a running RPC: handlers add what they learn, and the interceptor writes one line with all of it."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_collected: ContextVar[dict[str, object] | None] = ContextVar("goldlink_rpc_fields", default=None)


def annotate(**fields: object) -> None:
    """Add `fields` to the log line of the RPC that this thread serves; later values win. Outside of an RPC: nothing."""
    collected = _collected.get()
    if collected is not None:
        collected.update(fields)


@contextmanager
def collecting() -> Iterator[dict[str, object]]:
    """The fields that are annotated in the body, also when it raises."""
    collected: dict[str, object] = {}
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)
