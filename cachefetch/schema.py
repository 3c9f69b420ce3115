"""YAML text into msgspec structs, strictly: every error starts with the path of the offending key.

Stricter than YAML itself: a key that appears twice, a key without a value and a key that is not text are refused,
because each of them is a mistake that would silently loosen a limit or an access rule.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import msgspec.inspect
import yaml

from cachefetch.errors import ConfigError
from cachefetch.urls import redact

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # pyyaml without libyaml: the same language, slower
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

T = TypeVar("T")
_NULL = "tag:yaml.org,2002:null"
_TEXT = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_STEPS = re.compile(r"\[([^]]*)\]|([^.\[]+)")
_WORDS = {"object": "a mapping", "array": "a list", "str": "text", "int": "a whole number", "bool": "true or false"}


class BadValue(ValueError):
    """What a struct's `__post_init__` raises: `key` is relative to the struct, empty for the struct itself."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Base of a schema: immutable, no key beyond the declared ones. What it prints of a URL holds no secret."""

    def __repr__(self) -> str:
        """`Name(field=value, …)`."""
        shown = (f"{name}={_shown(getattr(self, name))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(shown)})"


def absolute(key: str, path: str) -> None:
    """Refuse what is not an absolute path as the value of `key`.

    Raises:
        BadValue: it is not.
    """
    if not path.startswith("/") or "\0" in path:
        raise BadValue(key, f"{path!r} is not an absolute path: start it with '/'")


def checked(key: str, check: Callable[[str], object], value: str) -> None:
    """Refuse a value of `key` for which `check` raises ValueError.

    Raises:
        BadValue: with the text of that error.
    """
    try:
        check(value)
    except ValueError as error:
        raise BadValue(key, str(error)) from None


def _shown(value: object) -> str:
    return repr(redact(value) if isinstance(value, str) and "://" in value else value)


def decode(text: str | bytes, type_: type[T], dec_hook: Callable[[type, Any], Any]) -> T:
    """The `type_` that the YAML `text` describes; `dec_hook` makes the types that msgspec does not know.

    Raises:
        ConfigError: not YAML, or not of the form of `type_`.
    """
    data = _read(text)
    try:
        return msgspec.convert(data, type_, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(error, type_, data)) from error


def _read(text: str | bytes) -> object:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise ConfigError(_at("", "is empty: write down at least its first key"))
            _check(node, "", set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(_syntax(error)) from error


def _syntax(error: Exception) -> str:
    """What is wrong and where. Not `str(error)`, which quotes the text around it, perhaps a password."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "the configuration"
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "nested too deeply"
    return f"{where}: not YAML ({reason}): correct the text there"


def _check(node: yaml.Node, path: str, seen: set[int]) -> None:
    """Refuse what YAML allows and a configuration should not. An alias is the same node again: looked at once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if node.tag == _NULL:
        raise ConfigError(_at(path, "has no value: give it one, or remove the key"))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check(item, f"{path}[{index}]", seen)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            _check_key(key, path, keys)
            _check(value, _join(path, key.value), seen)


def _check_key(key: yaml.Node, path: str, keys: set[str]) -> None:
    line = key.start_mark.line + 1
    if key.tag not in _TEXT:
        raise ConfigError(_at(path, f"the key in line {line} is not text: write it in quotes"))
    if key.value in keys:
        raise ConfigError(_at(_join(path, key.value), f"appears a second time in line {line}: remove one of the two"))
    keys.add(key.value)


def _explain(error: msgspec.ValidationError, type_: type, data: object) -> str:
    """Turn msgspec's message round: the path first, then the reason and the remedy."""
    reason, _, place = str(error).rpartition(" - at ")
    if not reason:
        reason, place = place, ""
    path = place.strip("`").removeprefix("$").removeprefix(".")
    cause = error.__cause__
    if isinstance(cause, BadValue):
        return _at(_join(path, cause.key), str(cause))
    if unknown := _UNKNOWN.fullmatch(reason):
        return _at(_join(path, unknown[1]), f"unknown key, allowed are {', '.join(_keys(path, type_, data))}")
    if missing := _MISSING.fullmatch(reason):
        return _at(_join(path, missing[1]), "is missing: it is required")
    if reason.startswith("Invalid"):
        return _at(path, f"{reason}, allowed are {', '.join(_choices(path, type_, data))}")
    return _at(path, re.sub(r"`(\w+)( \| null)?`", lambda match: _WORDS.get(match[1], match[1]), reason))


def _at(path: str, reason: str) -> str:
    return f"{path}: {reason}" if path else f"the configuration: {reason}"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def _choices(path: str, type_: type, data: object) -> list[str]:
    """The words allowed at `path`: the values of an enumeration, or the tags that tell the structs of a union apart."""
    words: list[str] = []
    for kind, _ in _kinds(path, type_, data):
        if isinstance(kind, msgspec.inspect.EnumType):
            words += [str(member.value) for member in kind.cls]
    parent = path.rpartition(".")[0]
    return words or [
        str(kind.tag) for kind, _ in _kinds(parent, type_, data) if isinstance(kind, msgspec.inspect.StructType)
    ]


def _keys(path: str, type_: type, data: object) -> list[str]:
    """The keys allowed in the mapping at `path`. Where a union stands, the tag in the data says which struct it is."""
    keys: set[str] = set()
    for kind, value in _kinds(path, type_, data):
        if isinstance(kind, msgspec.inspect.StructType):
            tag = value.get(kind.tag_field) if isinstance(value, dict) and kind.tag_field else None
            if tag == kind.tag:
                keys |= {field.encode_name for field in kind.fields} | ({kind.tag_field} if kind.tag_field else set())
    return sorted(keys)


def _kinds(path: str, type_: type, data: object) -> list[tuple[msgspec.inspect.Type, Any]]:
    """What the schema allows at `path`, and the data found there."""
    here = _alternatives(msgspec.inspect.type_info(type_), data)
    for index, key in _STEPS.findall(path):
        steps: list[tuple[msgspec.inspect.Type, Any]] = []
        for kind, value in here:
            if isinstance(kind, msgspec.inspect.VarTupleType) and index.isdigit():
                steps += _alternatives(kind.item_type, value[int(index)])
            elif isinstance(kind, msgspec.inspect.StructType):
                for field in kind.fields:
                    if field.encode_name == key:
                        steps += _alternatives(field.type, value.get(key))
        here = steps
    return here


def _alternatives(kind: msgspec.inspect.Type, value: Any) -> list[tuple[msgspec.inspect.Type, Any]]:
    return [(part, value) for part in (kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,))]
