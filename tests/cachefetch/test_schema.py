from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import ConfigError
from cachefetch.schema import BadValue, Strict, absolute, checked, decode


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    some: dict[str, str] = {}


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: tuple[Inner, ...]
    more: int = 0


def hook(type_: type, value: object) -> object:
    raise NotImplementedError


def fail(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        decode(text, Outer, hook)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the configuration: is empty"),
        ("# only a comment\n", "the configuration: is empty"),
        ("inner: [\n", "line 2, column 1: not YAML"),
        ("a: b: c\n", "line 1, column 5: not YAML"),
        ("inner: []\n---\ninner: []\n", "line 2, column 1: not YAML"),
        ("inner: []\nmore: 1\nmore: 2\n", "more: appears a second time in line 3"),
        ("inner: [{some: {a: x, a: y}}]", "inner[0].some.a: appears a second time in line 1"),
        ("inner:\n", "inner: has no value"),
        ("inner: [{some: ~}]", "inner[0].some: has no value"),
        ("inner: [null]", "inner[0]: has no value"),
        ("1: x", "the configuration: the key in line 1 is not text"),
        ("inner: [{some: {true: x}}]", "inner[0].some: the key in line 1 is not text"),
        ("inner: []\nmore: x", "more: Expected a whole number, got text"),
        ("inner: {}", "inner: Expected a list, got a mapping"),
        ("[]", "the configuration: Expected a mapping, got a list"),
        ("just text", "the configuration: Expected a mapping, got text"),
        ("more: 1", "inner: is missing"),
        ("inner: [{x: 1}]", "inner[0].x: unknown key, allowed are some"),
        ("inner: []\ny: 1", "y: unknown key, allowed are inner, more"),
        ("inner: [{some: {a: 1}}]", "inner[0].some[...]: Expected text, got a whole number"),
        ("&a [*a]", "the configuration: Expected a mapping, got a list"),
        ("inner: !!python/object/apply:os.system [echo]", "line 1, column 8: not YAML"),
        ("inner: [" + "[" * 5000, "line 1, column"),
    ],
)
def test_the_error_starts_with_the_place(text: str, expected: str) -> None:
    assert fail(text).startswith(expected)


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"inner: \xff", b"\x00", "inner: \x00"])
def test_bytes_that_are_not_text_are_a_configuration_error(text: str | bytes) -> None:
    assert "not YAML" in fail(text)


def test_a_syntax_error_does_not_quote_the_text_around_it() -> None:
    assert "hunter2" not in fail("url: http://me:hunter2@host/: x: y\n")


def test_aliases_and_merge_keys_are_understood() -> None:
    decoded = decode("inner:\n- &a {some: {x: y}}\n- *a\n- {<<: *a}\n", Outer, hook)
    assert [inner.some for inner in decoded.inner] == [{"x": "y"}] * 3


@given(st.text(alphabet=st.sampled_from("inermso:[]{}&*!|>-'\"#,~ \n\t1a<")) | st.binary(max_size=40))
def test_any_text_decodes_or_is_a_configuration_error(text: str | bytes) -> None:
    try:
        assert isinstance(decode(text, Outer, hook), Outer)
    except ConfigError as error:
        assert str(error)  # either outcome is right


class Shown(Strict, frozen=True):
    url: str
    other: int = 1


def test_a_printed_struct_shows_no_secret_of_a_url() -> None:
    assert repr(Shown(url="https://me:hunter2@h/a?b=hunter3")) == "Shown(url='https://***@h/a?***', other=1)"


@pytest.mark.parametrize("path", ["a", "", "./a", "/a\0b"])
def test_a_path_that_is_not_absolute_is_refused(path: str) -> None:
    with pytest.raises(BadValue, match="is not an absolute path") as caught:
        absolute("key", path)
    assert caught.value.key == "key"
    absolute("key", "/a")


def test_what_a_check_says_against_a_value_is_about_its_key() -> None:
    with pytest.raises(BadValue, match="invalid literal") as caught:
        checked("number", int, "x")
    assert caught.value.key == "number"
    checked("number", int, "1")
