"""Checking a JSON value by a JSON Schema, of which the part that drivers need is understood.

The schemas come from other machines: whatever they hold, checking ends soon and does not fail, and keywords that are
not known here allow everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from khonsu.core.codec import JSON_DEPTH_MAX
from khonsu.core.interpolation import placeholders
from khonsu.core.mistakes import MISTAKES_MAX, join, show
from khonsu.core.names import nearest
from khonsu.core.task import JSON
from khonsu.errors import Problem

STEPS_MAX: Final = 200_000
"""How many values are held against schemas at most; what is left is taken for right."""

_TYPES: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = {
    "string": ("text", (str,)),
    "integer": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "boolean": ("true or false", (bool,)),
    "array": ("a list", (list, tuple)),
    "object": ("a table", (Mapping,)),
    "null": ("null", (type(None),)),
}
_LIMITS: Final[tuple[tuple[str, Callable[[Any, Any], bool], str], ...]] = (
    ("minimum", lambda value, limit: value >= limit, "at least"),
    ("maximum", lambda value, limit: value <= limit, "at most"),
)


class Checker:
    """Checks values, as long as its steps last.

    Known are `type`, `properties`, `required`, `additionalProperties`, `items`, `enum`, `const`, `minimum`, `maximum`
    and `anyOf`. A text with `${...}` in it may be any text.
    """

    def __init__(self, steps: int = STEPS_MAX) -> None:
        """Begin with all steps."""
        self._steps = steps
        self._hints = MISTAKES_MAX

    def check(self, value: JSON, schema: JSON, path: str) -> list[Problem]:
        """Return every mistake in a JSON value; of very many, the first ones."""
        return list(islice(self._value(value, schema, path, JSON_DEPTH_MAX), MISTAKES_MAX))

    def _value(self, value: JSON, schema: JSON, path: str, depth: int) -> Iterator[Problem]:
        self._steps -= 1
        if schema is False:
            yield Problem(path, show(value), "nothing")
        if not isinstance(schema, Mapping) or depth == 0 or self._steps < 0:
            return
        if not _has_type(value, schema.get("type")):
            yield Problem(path, show(value), _expected_type(schema["type"]))
            return
        yield from self._choices(value, schema, path)
        for keyword, holds, words in _LIMITS:
            limit = schema.get(keyword)
            if _is_number(limit) and _is_number(value) and not holds(value, limit):
                yield Problem(path, show(value), f"{words} {show(limit)}")
        yield from self._any_of(value, schema.get("anyOf"), path, depth)
        if isinstance(value, Mapping):
            yield from self._table(value, schema, path, depth)
        elif isinstance(value, (list, tuple)) and "items" in schema:
            for index, item in enumerate(value):
                yield from self._value(item, schema["items"], f"{path}[{index}]", depth - 1)

    def _choices(self, value: JSON, schema: Mapping[str, JSON], path: str) -> Iterator[Problem]:
        allowed = [schema["const"]] if "const" in schema else schema.get("enum")
        # Equal is not enough: True is 1.
        if not isinstance(allowed, list) or any(each == value and type(each) is type(value) for each in allowed):
            return
        if isinstance(value, str):
            if any(True for _ in placeholders(value)):
                return
            near = self._nearest(value, (each for each in allowed if isinstance(each, str)))
        else:
            near = None
        yield Problem(path, show(value), f"one of {', '.join(show(each) for each in allowed)}", near)

    def _any_of(self, value: JSON, schemas: JSON, path: str, depth: int) -> Iterator[Problem]:
        """Yield what is wrong by the schema that the value comes nearest to, unless it is right by one of them."""
        if isinstance(schemas, list) and schemas:
            found = (list(islice(self._value(value, each, path, depth - 1), MISTAKES_MAX)) for each in schemas)
            yield from min(found, key=len)

    def _table(self, value: Mapping[str, JSON], schema: Mapping[str, JSON], path: str, depth: int) -> Iterator[Problem]:
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        others = schema.get("additionalProperties", True)
        for key, item in value.items():
            place = join(path, key)
            if key in known:
                yield from self._value(item, known[key], place, depth - 1)
            elif others is False:
                expected = f"one of {', '.join(sorted(map(str, known)))}" if known else "no keys"
                yield Problem(place, f"the key {show(key)}", expected, self._nearest(key, map(str, known)))
            else:
                yield from self._value(item, others, place, depth - 1)
        required = schema.get("required")
        for name in required if isinstance(required, list) else ():
            if isinstance(name, str) and name not in value:
                wanted = known.get(name)
                kind = _expected_type(wanted.get("type")) if isinstance(wanted, Mapping) else ""
                yield Problem(join(path, name), "nothing", kind or "a value")

    def _nearest(self, name: str, known: Iterable[str]) -> str | None:
        self._hints -= 1
        return nearest(name, known) if self._hints > 0 else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _names(types: JSON) -> list[str]:
    """Return the known types that a schema allows, none if it allows all."""
    listed = types if isinstance(types, (list, tuple)) else [types]
    return [name for name in listed if isinstance(name, str) and name in _TYPES]


def _has_type(value: object, types: JSON) -> bool:
    names = _names(types)
    if isinstance(value, bool):
        return not names or "boolean" in names
    return not names or any(isinstance(value, _TYPES[name][1]) for name in names)


def _expected_type(types: JSON) -> str:
    return " or ".join(_TYPES[name][0] for name in _names(types))
