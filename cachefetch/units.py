"""Durations and sizes as people write them in the configuration: `90s`, `5m`, `50Gi`. No side effects."""

from __future__ import annotations

import re

_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,15})([A-Za-z]*)")


class Duration(float):
    """Seconds, more than zero."""

    __slots__ = ()


class Size(int):
    """Bytes, more than zero."""


def duration(text: object) -> Duration:
    """The duration that `text` names: a whole number and one of ms, s, m, h, d.

    Raises:
        ValueError: anything else, and zero.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in _MILLISECONDS or not int(match[1]):
        raise ValueError(
            f"{text!r} is not a duration: write a whole number above 0 with ms, s, m, h or d, such as '5m'"
        )
    return Duration(int(match[1]) * _MILLISECONDS[match[2]] / 1000)


def size(text: object) -> Size:
    """The size that `text` names: a whole number of bytes, or one with k, M, G, T, Ki, Mi, Gi or Ti (as in Kubernetes).

    Raises:
        ValueError: anything else, and zero.
    """
    written = str(text) if isinstance(text, int) and not isinstance(text, bool) else text
    match = _NUMBER_AND_UNIT.fullmatch(written) if isinstance(written, str) else None
    if match is None or match[2] not in _BYTES or not int(match[1]):
        raise ValueError(f"{text!r} is not a size: write bytes above 0, or a whole number with k M G T Ki Mi Gi Ti")
    return Size(int(match[1]) * _BYTES[match[2]])
