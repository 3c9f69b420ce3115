"""What those who ask the fetcher hear, step by step, until their question is answered or the daemon ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cachefetch.errors import UnknownVersion
from cachefetch.model import short_id
from cachefetch.work import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cachefetch.fetches import Fetches
    from cachefetch.work import Status


@dataclass(frozen=True)
class Arrived:
    """The version is on this node."""

    version: str


def ensure(fetches: Fetches, name: str, version: str) -> Iterator[Status | Arrived]:
    """How far the cache is until the version, or with an empty one any, has arrived; then that.

    Raises:
        UnknownCache: it is not declared.
        UnknownVersion: the source gives another version by now.
        Stopping: the daemon ends.
    """
    fetches.noticed(name, "")
    ticket = 0
    while True:
        changes = fetches.changes
        if found := fetches.find(name, version):
            yield Arrived(found)
            return
        ticket = ticket or fetches.demand(name, version)
        status, ended = fetches.look(name, ticket)
        if version and ended and ended.refreshed and not fetches.find(name, version):
            raise UnknownVersion(
                f"cache {name!r} has no version {short_id(version)} here, and its source gives "
                f"{ended.refreshed.version.short} now: name that one, or none to get what is current"
            )
        yield status
        fetches.wait(changes)


def refresh(fetches: Fetches, targets: Mapping[str, str]) -> Iterator[tuple[str, Status | Ended]]:
    """Look at the sources of the caches anew; how far each is, and how it ended.

    `targets` are names with the `fetches.declaration` that who asks knows; empty: any. Those that this node does
    not hold end at once.

    Raises:
        UnknownCache: one is not declared.
        Precondition: one is declared in another way.
        Stopping: the daemon ends.
    """
    for name, known in targets.items():
        fetches.noticed(name, known)
    unheld = {name: reason for name, reason in fetches.unheld.items() if name in targets}
    for name, reason in unheld.items():
        yield name, Ended(0.0, error=reason)
    held = [name for name in targets if name not in unheld]
    before = {name: fetches.find(name, "") for name in held}
    tickets = fetches.hurry(held)
    while tickets:
        changes = fetches.changes
        for name, ticket in list(tickets.items()):
            status, ended = fetches.look(name, ticket)
            if ended:
                del tickets[name]
            yield name, _since(ended, before[name]) if ended else status
        if tickets:
            fetches.wait(changes)


def watch(fetches: Fetches, gone: Callable[[], bool]) -> Iterator[Status]:
    """Every declared cache, then each whose state, version or failure changes, until `gone`.

    Raises:
        Stopping: the daemon ends.
    """
    seen: dict[str, tuple[object, ...]] = {}
    while not gone():
        changes = fetches.changes
        for status in fetches.statuses():
            if seen.get(status.cache) != status.news():
                seen[status.cache] = status.news()
                yield status
        fetches.wait(changes)


def _since(ended: Ended, before: str | None) -> Ended:
    """As who asked sees it: current also moved when an earlier refresh did it while they waited."""
    done = ended.refreshed
    if done is None or done.changed or done.version.id == before:
        return ended
    return replace(ended, refreshed=replace(done, changed=True))
