"""Which versions of a cache stay. No side effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cachefetch.model import Version


def superfluous(
    versions: Iterable[Version], *, current: str | None, used: Collection[str], retain: int
) -> list[Version]:
    """The versions that nobody needs, oldest first.

    Needed are: `current`, because new volumes get it; the `used` ones, because pods read them; and besides those in use
    the `retain` newest, so that a rollback needs no download (current counts as one of them).
    """
    newest = sorted(versions, key=lambda version: (version.id == current, version.published), reverse=True)
    spare = [version for version in newest if version.id not in used]
    kept = {version.id for version in spare[:retain]} | {*used, current}
    return [version for version in reversed(newest) if version.id not in kept]
