"""One event is one line, it parses back, and libraries stay quiet."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

WORD = re.compile(r'([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]+)(?: |$)')
# Surrogates: what os.fsdecode makes of bytes that are no UTF-8.
TEXT = st.text(
    st.characters(codec="utf-8") | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
)
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(
    lambda name: name not in {"time", "level", "event", "traceback"}
)


def parse(line: str) -> dict[str, str]:
    """The words of a line; fails when a part of the line belongs to none."""
    words: dict[str, str] = {}
    position = 0
    while position < len(line):
        match = WORD.match(line, position)
        assert match, line[position:]
        key, value = match[1], match[2]
        assert key not in words
        words[key] = json.loads(value) if value.startswith('"') else value
        position = match.end()
    return words


def record(event: str, /, *args: object, **values: object) -> logging.LogRecord:
    made = logging.LogRecord("csi", logging.INFO, __file__, 1, event, args, None)
    made.created = 0.0
    made.__dict__.update(logs.fields(**values))
    return made


def format_(made: logging.LogRecord) -> str:
    return logs.LogfmtFormatter().format(made)


@pytest.fixture
def restored() -> Iterator[None]:
    """Undoes `setup`, which is for a whole process."""
    root = logging.getLogger()
    handlers, level, package = root.handlers[:], root.level, logging.getLogger("cachefetch.probe").level
    root.handlers.clear()
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("cachefetch.probe").setLevel(package)


def test_line_has_the_documented_form() -> None:
    made = record("published", cache="node-modules", ms=1.25, shared=True, link_mode=None)
    made.created = 1764090000.1239
    line = "time=2025-11-25T17:00:00.123Z level=info event=published cache=node-modules ms=1.25 shared=true"
    assert format_(made) == line


@given(event=TEXT, values=st.dictionaries(NAMES, TEXT))
def test_any_event_is_one_line_that_parses_back(event: str, values: dict[str, str]) -> None:
    line = format_(record(event, **values))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    words = parse(line)
    assert words.pop("time") == "1970-01-01T00:00:00.000Z"
    assert words.pop("level") == "info"
    assert words == {"event": event, **values}


@given(name=TEXT)
def test_any_field_name_makes_one_key(name: str) -> None:
    words = parse(format_(record("happened", **{name: "value"})))
    assert words["event"] == "happened"
    assert list(words.values())[3:] == ["value"]


def test_a_field_cannot_overwrite_the_keys_of_the_line() -> None:
    words = parse(format_(record("happened", event="forged", level="error", time="never")))
    assert (words["event"], words["level"], words["event_"], words["level_"]) == ("happened", "info", "forged", "error")


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("C:\\x", '"C:\\\\x"'),
        ("line\nbreak", '"line\\nbreak"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("a\u2028b", '"a\\u2028b"'),
        ("\udcff", '"\\udcff"'),
        ("Zürich", "Zürich"),
        (b"caf\xff", '"caf\\\\xff"'),
    ],
)
def test_values_are_quoted_only_when_needed(value: object, word: str) -> None:
    assert format_(record("e", key=value)).endswith(f"event=e key={word}")


def test_arguments_of_a_library_message_are_filled_in() -> None:
    assert parse(format_(record("retry %d of %s", 3, "GET")))["event"] == "retry 3 of GET"


def test_an_exception_becomes_one_field_of_the_line() -> None:
    made = record("failed")
    try:
        int("first\nsecond")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = format_(made)
    assert len(line.splitlines()) == 1
    assert "ValueError: invalid literal for int() with base 10" in parse(line)["traceback"]


@pytest.mark.usefixtures("restored")
def test_setup_shows_the_packages_from_their_level_and_libraries_from_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.setup("DEBUG", "cachefetch.probe")
    logging.getLogger("cachefetch.probe.child").debug("seen", extra=logs.fields(path="a b"))
    logging.getLogger("some.library").info("GET with a token")
    logging.getLogger("some.library").warning("retrying")
    captured = capsys.readouterr()
    assert [parse(line)["event"] for line in captured.err.splitlines()] == ["seen", "retrying"]
    assert captured.out == ""


@pytest.mark.usefixtures("restored")
def test_setup_twice_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(logging.INFO, "cachefetch.probe")
    logs.setup(logging.INFO, "cachefetch.probe")
    logging.getLogger("cachefetch.probe").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.usefixtures("restored")
def test_warnings_come_out_as_events(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.setup(logging.INFO)
        warnings.warn("old\nthing", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "UserWarning: old\nthing" in parse(lines[0])["event"]


@pytest.mark.usefixtures("restored")
def test_setup_refuses_an_unknown_level() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        logs.setup("LOUD", "cachefetch.probe")
