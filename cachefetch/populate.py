"""A link tree of a version anywhere on the store's file system, without CSI: for development and for builds.

Compared with `cp -al`, start included, so this module imports little.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from typing import TYPE_CHECKING

from cachefetch import trash
from cachefetch.errors import InvalidRequest, Precondition, UnknownVersion
from cachefetch.linktree import link_tree
from cachefetch.model import short_id
from cachefetch.selection import one_version
from cachefetch.terminal import many, seconds

if TYPE_CHECKING:
    from pathlib import Path

    from cachefetch.linktree import LinkReport
    from cachefetch.store import Store
    from cachefetch.terminal import Terminal

_OCCUPIED = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.EBUSY, errno.ENOTDIR})


def check_dest(dest: Path) -> None:
    """Return if `dest` can become a link tree: absent, or an empty directory, in a directory that exists.

    Raises:
        InvalidRequest: it cannot; says what to name instead.
    """
    if not dest.parent.is_dir():
        raise InvalidRequest(f"{dest.parent} is not a directory: make it first, or name another destination")
    if dest.is_dir():
        if any(dest.iterdir()):
            raise InvalidRequest(f"{dest} is not empty: name a directory that is, or that does not exist yet")
    elif os.path.lexists(dest):
        raise InvalidRequest(f"{dest} is not a directory: name one that is empty or does not exist yet")


def populate(store: Store, cache: str, prefix: str, dest: Path, terminal: Terminal) -> int:
    """The command: `dest` becomes a link tree of the current version, or of the one whose id starts with `prefix`."""
    started = time.monotonic()
    version_id = one_version(store, cache, prefix)
    report = make(store, cache, version_id, dest)
    fallbacks = f" ({report})" if report.fallbacks else ""
    made = f"{many(report.files, 'file')}, link mode {report.mode}{fallbacks}"
    terminal.say(f"{dest}: {cache}@{short_id(version_id)}, {made}; {seconds(time.monotonic() - started)}")
    return 0


def make(store: Store, cache: str, version_id: str, dest: Path) -> LinkReport:
    """Make `dest` (see `check_dest`) a link tree of the version. It appears complete or not at all.

    Raises:
        UnknownVersion: the version is not on this node.
        Precondition: `dest` is in use; nothing is left behind.
        OSError: linking failed; nothing is left behind.
    """
    temporary = dest.with_name(f".goldlink-{secrets.token_hex(8)}")
    with store.pin(cache):
        if not store.has(cache, version_id):
            raise UnknownVersion(f"version {version_id} of cache {cache!r} is gone: choose one of 'cachefetch list'")
        try:
            report = link_tree(store.tree(cache, version_id), temporary)
            _put(temporary, dest)
        except BaseException:
            _remove(temporary)
            raise
    return report


def _put(temporary: Path, dest: Path) -> None:
    """rename(2) replaces an empty directory and nothing else, so a race can lose but not destroy."""
    try:
        temporary.rename(dest)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        raise Precondition(
            f"{dest} cannot be replaced ({error.strerror}): name a directory that does not exist yet"
        ) from error


def _remove(place: Path) -> None:
    parent = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trash.remove(place.name, parent)
    finally:
        os.close(parent)
