"""The one codec: values of the model to JSON and back. Every cattrs hook lives here.

A value is a mapping by attribute name; what is absent is null, never missing. Enums and ids are text, a `Time` is
RFC 3339 in UTC with microseconds, a `Revision` is `TERM.N`. Keys that are not known are ignored when reading, and a
missing key has its default, so that neighbouring versions understand each other. Types are not guessed: `"5"` is no
number and `1` is no boolean.

cattrs, which takes a while to load, is imported when the first value is converted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import attrs

from khonsu.errors import InvalidRequest

if TYPE_CHECKING:
    from cattrs import Converter

    from khonsu.core.job import JSON, Task

T = TypeVar("T")

JSON_DEPTH_MAX = 64
"""How deep free JSON values (a driver's config, an event's details) may be nested."""

_SCALARS = frozenset({str, bool, type(None)})
_INTEGER_END = 2**63
_LINES_MAX = 20
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def to_json(value: object) -> JSON:
    """Return a value, or a list or mapping of values, as JSON values that share nothing with it.

    Raises:
        TypeError: It is, or holds, what has no JSON form, such as a `Secret`.

    """
    return _converter().unstructure(value)


def from_json(cls: type[T], data: JSON) -> T:
    """Build a value of a class, or of a type such as `tuple[Node, ...]`, from JSON values.

    Raises:
        InvalidRequest: The data is not such a value; names every mistake with its path.

    """
    from khonsu.core.mistakes import UNREADABLE, find_mistakes

    converter = _converter()
    try:
        return converter.structure(data, cls)
    except UNREADABLE:
        problems = find_mistakes(cls, data, lambda kind, part: converter.structure(part, kind))
    lines = "".join(f"\n  {problem}" for problem in problems[:_LINES_MAX])
    more = f"\n  and {len(problems) - _LINES_MAX} more" if len(problems) > _LINES_MAX else ""
    raise InvalidRequest(f"this is no {getattr(cls, '__name__', cls)}:{lines}{more}")


def dumps(value: object) -> str:
    """Return a value as compact JSON text, all of it ASCII.

    Raises:
        TypeError: It holds what has no JSON form.
        ValueError: It holds a number without end, which JSON does not know.

    """
    return json_text(to_json(value))


def json_text(value: JSON) -> str:
    """Return a JSON value as compact text, all of it ASCII.

    Raises:
        TypeError: It holds what is no JSON value.
        ValueError: It holds a number without end, which JSON does not know.

    """
    return _ENCODER.encode(value)


def loads(text: str | bytes, *, unique_keys: bool = False) -> JSON:
    """Read JSON text (UTF-8).

    Args:
        text: The text.
        unique_keys: Refuse an object in which a key stands twice, at some cost; else the last of them counts.

    Raises:
        InvalidRequest: It is no JSON, holds `NaN` or half a character, or is too deep.

    """
    try:
        plain = text if isinstance(text, str) else text.decode("utf-8")
        value = (_UNIQUE_DECODER if unique_keys else _DECODER).decode(plain)
        if _SURROGATE.search(plain):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise InvalidRequest("the JSON is nested too deep", hint=f"At most {JSON_DEPTH_MAX} levels are taken") from None
    except UnicodeError as error:
        raise InvalidRequest(f"the JSON is not UTF-8: {error.reason if hasattr(error, 'reason') else error}") from None
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    return value


_TIME_MAX = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def time_text(at: float) -> str:
    """Return seconds since 1970 as RFC 3339 in UTC, with microseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def parse_time(text: JSON) -> float:
    """Return an RFC 3339 time as seconds since 1970.

    Raises:
        ValueError: It is no time, has no offset from UTC, or is in no year of UTC from 1970 to 9999.

    """
    moment = datetime.fromisoformat(_string(text))
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    at = moment.timestamp()
    if not 0.0 <= at <= _TIME_MAX:  # what is taken must have a text again, wherever it is shown
        raise ValueError(f"{text!r} is not between the years 1970 and 9999")
    return at


def plain_json(value: JSON, depth: int = JSON_DEPTH_MAX) -> JSON:
    """Return a copy of a JSON value made of dicts, lists, texts, numbers, booleans and None.

    Raises:
        TypeError: It holds something else, or a key that is no text.
        ValueError: It is nested too deep, or a number has no end or does not fit into 64 bits.

    """
    kind = value.__class__
    if kind in _SCALARS:
        return value
    if kind is int:
        return _integer(value)
    if kind is float:
        return _number(value)
    if depth == 0:
        raise ValueError(f"more than {JSON_DEPTH_MAX} levels")
    if isinstance(value, Mapping):
        return {_string(key): plain_json(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item, depth - 1) for item in value]
    if isinstance(value, Enum):
        return plain_json(value.value, depth)
    raise TypeError(f"a {kind.__name__} has no JSON form")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:100]!r} stands there twice")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: `json.loads` and `json.dumps` make new ones for every call that asks for anything special.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_no_constant)
_UNIQUE_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique)


# ------------------------------------------------------------------------------------------------------- the converter


@cache
def _converter() -> Converter:
    """Return the converter; its hooks for each class are generated when they are first needed."""
    from cattrs import Converter

    from khonsu.core import job
    from khonsu.core.records import Time
    from khonsu.core.revision import Revision
    from khonsu.core.secret import Secret

    # Mistakes are looked for only after a failure, so that the usual path carries no book-keeping.
    made = Converter(detailed_validation=False, unstruct_collection_overrides={tuple: list})
    made.register_structure_hook(str, _ignoring_type(_string))
    made.register_structure_hook(int, _ignoring_type(_integer))
    made.register_structure_hook(float, _ignoring_type(_number))
    made.register_structure_hook(bool, _ignoring_type(_boolean))
    made.register_structure_hook(StrEnum, lambda value, cls: cls(value))
    made.register_unstructure_hook(StrEnum, lambda value: value.value)
    made.register_structure_hook_func(_is_any, _ignoring_type(plain_json))
    made.register_unstructure_hook_func(_is_any, plain_json)
    made.register_structure_hook_func(_is_scalar_union, _scalar_union)
    made.register_unstructure_hook_func(_is_scalar_union, lambda value: value)
    made.register_structure_hook(Time, _ignoring_type(parse_time))
    made.register_unstructure_hook(Time, time_text)
    made.register_structure_hook_factory(attrs.has, lambda cls: _class_hook(made, cls))
    made.register_structure_hook_factory(lambda cls: cls is job.Task, lambda _: _task_hook(made))
    made.register_structure_hook(Revision, lambda value, _: Revision.parse(_string(value)))
    made.register_unstructure_hook(Revision, str)
    made.register_structure_hook(Secret, _refuse_secret)
    made.register_unstructure_hook(Secret, _refuse_secret)
    made.register_structure_hook_factory(_is_origin(tuple), lambda cls: _tuple_hook(made, cls))
    made.register_structure_hook_factory(_is_origin(Mapping), lambda cls: _mapping_hook(made, cls))
    return made


def _ignoring_type(read: Callable[[JSON], T]) -> Callable[[JSON, type], T]:
    return lambda value, _: read(value)


def _string(value: JSON) -> str:
    if value.__class__ is str:
        return value
    raise TypeError("it is not text")


def _integer(value: JSON) -> int:
    if value.__class__ is not int:
        raise TypeError("it is not a whole number")
    if not -_INTEGER_END <= value < _INTEGER_END:
        raise ValueError("it does not fit into 64 bits")
    return value


def _number(value: JSON) -> float:
    if value.__class__ is not float and value.__class__ is not int:
        raise TypeError("it is not a number")
    number = float(value)
    if not -math.inf < number < math.inf:
        raise ValueError("it has no end")
    return number


def _boolean(value: JSON) -> bool:
    if value.__class__ is bool:
        return value
    raise TypeError("it is not true or false")


def _is_any(cls: object) -> bool:
    return cls is Any


def _is_origin(origin: type) -> Callable[[object], bool]:
    return lambda cls: get_origin(cls) is origin


def _is_scalar_union(cls: Any) -> bool:
    """Say whether a type is a literal, or a union of scalars and literals without None."""
    parts = get_args(cls) if get_origin(cls) in (Union, UnionType) else (cls,)
    return all(get_origin(part) is Literal for part in parts) or (
        len(parts) > 1 and all(get_origin(part) is Literal or part in (str, int, float, bool) for part in parts)
    )


def _scalar_union(value: JSON, cls: Any) -> JSON:
    for part in (cls,) if get_origin(cls) is Literal else get_args(cls):
        if value.__class__ is part or (get_origin(part) is Literal and value in get_args(part)):
            return value
    raise TypeError("it is none of these")


def _refuse_secret(*_: object) -> NoReturn:
    raise TypeError("a Secret has no JSON form; call reveal() where the text is really needed")


def _class_hook(converter: Converter, cls: type) -> Callable[[JSON, type], Any]:
    """Return the hook of an attrs class: cattrs' generated one, for tables only."""
    from cattrs.gen import make_dict_structure_fn, override

    from khonsu.core.units import Millis, cpu_millis, optional_cpu_millis

    # These take cores when a person writes them; the attribute and its JSON are thousandths.
    millis = override(struct_hook=lambda value, _: Millis(_integer(value)))
    optional = override(struct_hook=lambda value, _: None if value is None else Millis(_integer(value)))
    named = {cpu_millis: millis, optional_cpu_millis: optional}
    attributes = attrs.fields(attrs.resolve_types(cls))
    overrides: Any = {a.name: named[a.converter] for a in attributes if a.converter in named}
    build: Callable[[JSON, type], Any] = make_dict_structure_fn(cls, converter, **overrides)

    def structure(data: JSON, kind: type) -> Any:
        return build(_table(data), kind)

    return structure


def _task_hook(converter: Converter) -> Callable[[JSON, type], Task]:
    """Return the hook of `Task`, whose own constructor takes a driver's config instead of the attributes."""
    from khonsu.core.job import Task

    attributes: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(Task))
    hooks = [(a.name, str(a.alias), converter.get_structure_hook(a.type), a.type) for a in attributes if a.type]

    def structure(data: JSON, _: type) -> Task:
        table = _table(data)
        task = Task.__new__(Task)
        values = {alias: hook(table[name], kind) for name, alias, hook, kind in hooks if name in table}
        task.__attrs_init__(**values)
        return task

    return structure


def _tuple_hook(converter: Converter, kind: Any) -> Callable[[JSON, type], tuple[Any, ...]]:
    item_kind = get_args(kind)[0]
    hook = converter.get_structure_hook(item_kind)

    def structure(data: JSON, _: type) -> tuple[Any, ...]:
        if not isinstance(data, (list, tuple)):
            raise TypeError("it is no list")
        return tuple([hook(item, item_kind) for item in data])

    return structure


def _mapping_hook(converter: Converter, kind: Any) -> Callable[[JSON, type], dict[str, Any]]:
    item_kind = get_args(kind)[1]
    hook = converter.get_structure_hook(item_kind)

    def structure(data: JSON, _: type) -> dict[str, Any]:
        return {_string(key): hook(item, item_kind) for key, item in _table(data).items()}

    return structure


def _table(data: JSON) -> Mapping[str, JSON]:
    if data.__class__ is dict or isinstance(data, Mapping):
        return data
    raise TypeError("it is no table")
