"""Which paths an entry of a version may have: the rules against escapes, before any file is made. No side effects."""

from __future__ import annotations

from cachefetch.errors import UnsafeEntry

NAME_MAX = 255
"""Longest component that Linux file systems take, in bytes."""
PATH_MAX = 4000
"""Longest path within a tree, in bytes: PATH_MAX of Linux (4096) less room for the tree's own place."""


def check_entry_path(path: bytes) -> bytes:
    """Return `path` if it stays inside of a tree and can be made there.

    Raises:
        UnsafeEntry: empty, absolute, with `..`, `.` or empty components, NUL, or longer than Linux takes.
    """
    if not path or len(path) > PATH_MAX:
        raise UnsafeEntry(f"entry {show(path)} is refused: a path has 1 to {PATH_MAX} bytes")
    if path.startswith(b"/"):
        raise UnsafeEntry(f"entry {show(path)} is refused: its path is absolute")
    if b"\0" in path:
        raise UnsafeEntry(f"entry {show(path)} is refused: its path has a NUL byte")
    for name in path.split(b"/"):
        if name in {b"", b".", b".."}:
            raise UnsafeEntry(f"entry {show(path)} is refused: {show(name)} is no component of a path inside of a tree")
        if len(name) > NAME_MAX:
            raise UnsafeEntry(f"entry {show(path)} is refused: a component is longer than {NAME_MAX} bytes")
    return path


def show(path: bytes) -> str:
    """The path for people: quoted, cut when long, whatever its bytes."""
    text = path.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 200 else text[:200] + "…")  # noqa: PLR2004
