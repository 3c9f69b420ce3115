"""Log lines: one event is one line of `key=value` words (logfmt) on stderr.

    _log = logging.getLogger(__name__)
    _log.info("published", extra=fields(cache="node-modules", ms=1.25))

    time=2026-11-25T17:00:00.123Z level=info event=published cache=node-modules ms=1.25

The message names the event; what happened to what are its fields. Messages of libraries come out the same way, their
text as the event.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_ATTRIBUTE = "goldlink_fields"
_OWN_KEYS = frozenset({"time", "level", "event", "traceback"})
_BARE = re.compile(r'[^\s"=\\]+')
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_.-]")


def fields(**values: object) -> dict[str, object]:
    """The fields of an event, for the `extra` of a logging call. A value of None leaves its field out."""
    return {_ATTRIBUTE: values}


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """The fields that `fields` gave to `record`."""
    values: Mapping[str, object] = getattr(record, _ATTRIBUTE, {})
    return values


class LogfmtFormatter(logging.Formatter):
    """Writes a record as one line of logfmt, whatever its values contain.

    A value stands bare when it is a word of printable characters without `"`, `=` and backslash, otherwise it is a JSON
    string. An exception becomes the field `traceback`. A field named like one of the line's own keys gets a `_` behind
    its name.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`, without its newline."""
        words = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        for name, value in fields_of(record).items():
            if value is not None:
                words[_key(name)] = _text(value)
        if record.exc_info:
            words["traceback"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_word(value)}" for key, value in words.items())


def setup(level: int | str, *packages: str) -> None:
    """Send log lines to stderr: those of `packages` from `level` on, those of all other libraries from warning on.

    Libraries are kept to warnings because their debug lines may carry secrets (headers, signed URLs).

    Raises:
        ValueError: `level` is not one that logging knows.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for package in packages:
        logging.getLogger(package).setLevel(level)


def _timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds: sorts as text and does not depend on the node's time zone."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _key(name: str) -> str:
    key = _NOT_IN_KEYS.sub("_", name) or "_"
    return f"{key}_" if key in _OWN_KEYS else key


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _word(text: str) -> str:
    """`text` as one word; newlines, terminal escapes and undecodable bytes of paths come out escaped."""
    if not text.isprintable():
        return json.dumps(text)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
