"""`cachefetch refresh` while a daemon runs: it does the work, and the command shows the same as if it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefetch.commands import describe, dropping, failure
from cachefetch.fetches import declaration
from cachefetch.terminal import seconds
from cachefetch.work import Ended, State, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cachefetch.client import Fetcher
    from cachefetch.config import Cache
    from cachefetch.progress import Progress
    from cachefetch.store import Store
    from cachefetch.terminal import Terminal


def refresh(store: Store, fetcher: Fetcher, caches: Sequence[Cache], terminal: Terminal) -> int:
    """Have the caches refreshed, all at once; shown one after the other, in the order of the configuration."""
    news = fetcher.refresh({cache.name: declaration(cache) for cache in caches})
    results: dict[str, Ended] = {}
    failed = 0
    for cache in caches:
        if cache.name not in results:
            with terminal.progress(cache.name, "looking for a new version") as progress:
                _follow(news, cache.name, results, progress)
        failed += not _report(store, cache.name, results[cache.name], terminal)
    return 1 if failed else 0


def _follow(
    news: Iterator[tuple[str, Status | Ended]], name: str, results: dict[str, Ended], progress: Progress
) -> None:
    """Read the news until the cache is done; keep what they say of the others."""
    done, expected = 0, False
    while name not in results:
        cache, what = next(news)
        if isinstance(what, Ended):
            results[cache] = what
        elif cache == name and what.state is State.FETCHING:
            if not expected:
                progress.expect(what.total)
                expected = True
            progress.advance(max(0, what.done - done))
            done = max(done, what.done)


def _report(store: Store, name: str, ended: Ended, terminal: Terminal) -> bool:
    """Say how it ended; returns whether it went well."""
    if ended.refreshed is None:
        terminal.complain(failure(store, name, ended.error))
        return False
    terminal.say(f"{name}: {describe(ended.refreshed)}; {seconds(ended.seconds)}")
    if ended.kept:
        terminal.say(f"{name}: older versions stay for now: {ended.kept}")
    for version in ended.dropped:
        terminal.say(f"{name}: {dropping(version)}")
    return True
