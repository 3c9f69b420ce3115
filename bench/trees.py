"""Trees to measure with: like node_modules, many small files in many directories, the same on every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.cachefetch.fakes import File, publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cachefetch.store import Store

PER_DIRECTORY = 20
DIRECTORIES_PER_PACKAGE = 20
_HASH = 2654435761  # Knuth's multiplicative hash: spreads numbers evenly over 32 bits
_SPREAD = 1 << 32


@dataclass(frozen=True)
class Tree:
    """A tree of `files` files, of which a share is other than in version 0."""

    files: int
    version: int = 0
    changed: float = 0.0
    mean: int = 1500
    """Bytes of a file on average; sizes go from a tenth of it to nearly twice as much."""

    def items(self) -> Iterator[File]:
        """What a source would deliver."""
        for number in range(self.files):
            yield File(path_of(number), self._content(number))

    def _content(self, number: int) -> bytes:
        place = (number * _HASH) % _SPREAD
        version = self.version if place < self.changed * _SPREAD else 0
        line = f"exports.n{number} = {version}; // {place:x}\n".encode()
        return line * (1 + (self.mean // 10 + place % (self.mean * 18 // 10)) // len(line))


def path_of(number: int) -> bytes:
    """Where the file of that number is."""
    directory = number // PER_DIRECTORY
    return f"package-{directory // DIRECTORIES_PER_PACKAGE:05d}/lib-{directory:06d}/module-{number}.js".encode()


def put(store: Store, cache: str, tree: Tree) -> Path:
    """Publish the tree as the current version of the cache, by the code that every refresh uses; returns it."""
    version = publish(store, tree.items(), cache)
    return store.tree(cache, version.id)
