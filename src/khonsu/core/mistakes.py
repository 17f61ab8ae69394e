"""Finding what is wrong with JSON values that do not make up a value of the model: every mistake, with its path."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

import attrs

from khonsu.core.codec import JSON_DEPTH_MAX
from khonsu.core.records import Time
from khonsu.core.revision import Revision
from khonsu.errors import Problem

Kind: TypeAlias = Any
"""A class or a type such as `tuple[str, ...]`."""

MISTAKES_MAX = 1000
"""How many mistakes are told at most: telling all of a file that is nothing but mistakes would take minutes."""

UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError)
"""What reading wrong JSON values may raise."""

_SHOWN_MAX = 60
_NAMES: Mapping[Kind, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Time: "a time such as 2026-01-31T12:00:00.000000Z",
    Revision: 'a revision such as "1.42"',
    NoneType: "null",
    Any: f"JSON of at most {JSON_DEPTH_MAX} levels and numbers of 64 bits",
}


def show(value: object) -> str:
    """Return a JSON value as people write it, cut when it is long."""
    if isinstance(value, Mapping):
        return "a table" if value else "an empty table"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    try:
        text = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()
    except (TypeError, ValueError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"


def found(value: object) -> str:
    """Return the parameter of a request as people write it; one that is not there is nothing."""
    return "nothing" if value is None else show(value)


def join(path: str, name: str) -> str:
    """Return the path of a key in a table; a key that cannot be seen as it is, is quoted."""
    shown = name if name.isprintable() and name else show(name)
    return f"{path}.{shown}" if path else shown


def origin_of(kind: Kind) -> object:
    """Return what a type is made with (`tuple`, `Mapping`, a union, `Literal`), None for a class."""
    return get_origin(kind)


def describe(kind: Kind) -> str:
    """Return in words what a type takes."""
    if kind in _NAMES:
        return _NAMES[kind]
    origin = origin_of(kind)
    if origin in (Union, UnionType):
        return " or ".join(describe(part) for part in get_args(kind))
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in get_args(kind))
    if origin is tuple:
        return "a list"
    if origin is not None or attrs.has(kind):
        return "a table"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    return describe(kind.__supertype__) if hasattr(kind, "__supertype__") else str(kind)


def find_mistakes(kind: Kind, data: object, read: Callable[[Kind, Any], object], path: str = "") -> list[Problem]:
    """Return every mistake in data that is to be of some type, given the function that fails on it."""
    try:
        read(kind, data)
    except UNREADABLE as error:
        inner = [
            problem
            for part_path, part_kind, part in _parts(kind, data, path)
            for problem in find_mistakes(part_kind, part, read, part_path)
        ]
        inner.extend(_missing(kind, data, path))
        inner = inner or list(_unconverted(kind, data, read, path))
        return inner or [Problem(path or "value", show(data), _expected(kind, error))]
    return []


def _expected(kind: Kind, error: Exception) -> str:
    """Return what would be right; a converter's complaint tells more than the type, a type error does not."""
    return f"{describe(kind)} ({error})" if attrs.has(kind) and isinstance(error, ValueError) else describe(kind)


def _parts(kind: Kind, data: Any, path: str) -> Iterator[tuple[str, Kind, object]]:
    """Yield what a value is made of: the path, the type and the data of each part."""
    origin = origin_of(kind)
    if origin in (Union, UnionType):
        inner = [part for part in get_args(kind) if part is not NoneType]
        if len(inner) == 1 and data is not None:
            yield path, inner[0], data
    elif origin is tuple and isinstance(data, list):
        yield from ((f"{path}[{index}]", get_args(kind)[0], item) for index, item in enumerate(data))
    elif origin is Mapping and isinstance(data, Mapping):
        yield from ((join(path, key), get_args(kind)[1], item) for key, item in data.items())
    elif origin is None and attrs.has(kind) and isinstance(data, Mapping):
        known = {attribute.name: attribute.type for attribute in attrs.fields(attrs.resolve_types(kind))}
        yield from ((join(path, key), known[key], item) for key, item in data.items() if key in known)


def _unconverted(kind: Kind, data: object, read: Callable[[Kind, Any], object], path: str) -> Iterator[Problem]:
    """Yield the parts that have the right form, and that the model refuses all the same: a negative size, say."""
    if not (isinstance(kind, type) and attrs.has(kind) and isinstance(data, Mapping)):
        return
    for attribute in attrs.fields(attrs.resolve_types(kind)):
        if attribute.converter is None or attribute.name not in data:
            continue
        part = data[attribute.name]
        try:
            attribute.converter(read(attribute.type, part))
        except UNREADABLE as error:
            yield Problem(join(path, attribute.name), show(part), f"{describe(attribute.type)} ({error})")


def _missing(kind: Kind, data: object, path: str) -> Iterator[Problem]:
    if isinstance(kind, type) and attrs.has(kind) and isinstance(data, Mapping):
        for attribute in attrs.fields(kind):
            if attribute.default is attrs.NOTHING and attribute.name not in data:
                yield Problem(join(path, attribute.name), "nothing", describe(attribute.type))
