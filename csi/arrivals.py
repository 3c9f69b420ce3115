"""Waiting for a version that is not on this node yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cachefetch.model import short_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.requests import Pod


class Caller(Protocol):
    """The RPC that waits: gRPC's ServicerContext has this form."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller gives up; None: never."""
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when the caller is gone; False: it is gone already."""
        ...


class Arrivals(Protocol):
    """Brings a version to this node, or waits until somebody does."""

    def wait(self, cache: str, version: str, caller: Caller, pod: Pod | None = None) -> str:
        """The id of the version, which is on this node now; `version` empty: whatever is current.

        `pod` is for whom, so that the cluster can be told why it does not start.

        Raises:
            NotReady: it did not come in time; says how far it is.
            Busy: too many wait, or the driver stops.
        """
        ...


def explain(cache: str, version: str, reason: str) -> str:
    """Why the version did not come in time."""
    what = f"version {short_id(version)} of cache {cache!r}" if version else f"cache {cache!r}"
    return f"{what} is not on this node yet {reason}; the mount is tried again"


def patience(seconds: float, caller: Caller) -> float:
    """How long to wait: `seconds`, or a tenth less than the caller has left, so that it still hears the reason."""
    remaining = caller.time_remaining()
    return seconds if remaining is None else min(seconds, max(0.0, remaining * 0.9))
