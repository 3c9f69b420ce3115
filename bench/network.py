"""A fluid model of downloads: flows share the origin's bandwidth equally, and none is faster than its own limit.

Pure: times in seconds, sizes in bytes, rates in bytes a second. Equal sharing is what TCP comes to on average between
flows of one length; packets, losses and round trips are left out.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Flow:
    """One download."""

    name: str
    start: float
    size: float


@dataclass(frozen=True)
class Event:
    """Something that happened in the model."""

    time: float
    what: str
    """`start` or `end`."""
    flow: Flow


def simulate(flows: Sequence[Flow], *, origin: float, limit: float) -> Iterator[Event]:
    """What happens, in order, when the flows share `origin` and each has at most `limit`.

    All flows that run have the same rate at any moment. So one number says how much each has received since the
    beginning, and a flow ends when that number has grown by the flow's size: a heap finds the next to end.
    """
    waiting = sorted(flows, key=lambda flow: flow.start, reverse=True)
    running: list[tuple[float, int, Flow]] = []
    now, received = 0.0, 0.0
    number = 0
    while waiting or running:
        rate = min(limit, origin / len(running)) if running else 0.0
        end = now + (running[0][0] - received) / rate if running else float("inf")
        start = waiting[-1].start if waiting else float("inf")
        then = max(now, min(start, end))
        received += rate * (then - now)
        now = then
        if start <= end:
            flow = waiting.pop()
            number += 1
            heapq.heappush(running, (received + flow.size, number, flow))
            yield Event(now, "start", flow)
        else:
            received, _, flow = heapq.heappop(running)
            yield Event(now, "end", flow)
