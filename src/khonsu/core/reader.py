"""Reading tables as people write them into values of the model, going on after each mistake.

What a table may hold is what the class has: each attribute by its short key, which takes units (`memory = "64MiB"`),
or by its own name, which takes the plain number (`memory_bytes = 67108864`). Where something is wrong a stand-in takes
its place, so that everything else is still read and checked; `Reader.hides` knows where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeAlias, Union, cast, get_args

import attrs
from attrs import frozen

from khonsu.core.about import about_of
from khonsu.core.codec import plain_json
from khonsu.core.mistakes import MISTAKES_MAX, describe, join, origin_of, show
from khonsu.core.names import nearest
from khonsu.core.units import CPU_EXAMPLE, DURATION_EXAMPLE, SIZE_EXAMPLE, Millis, cpu_millis, seconds, size_bytes
from khonsu.errors import Problem

Kind: TypeAlias = Any
Table: TypeAlias = Mapping[str, Any]
Special: TypeAlias = Callable[["Reader", Any, str], Any]


@frozen
class Unit:
    """How a quantity is written, found by the end of the attribute's name."""

    convert: Callable[[Any], Any]
    expected: str
    plain: Callable[[Any], Any]
    """What the attribute's own value must pass through to be converted to itself."""


UNITS: Final[Mapping[str, Unit]] = {
    "_seconds": Unit(seconds, DURATION_EXAMPLE, lambda value: value),
    "_bytes": Unit(size_bytes, SIZE_EXAMPLE, lambda value: value),
    "_millis": Unit(cpu_millis, CPU_EXAMPLE, Millis),
}
PASSED_OVER_MAX: Final = 20
"""So many unknown keys that are no mistakes are told of."""

_STAND_INS: Final[Mapping[object, Any]] = {str: "", int: 0, bool: False, Any: None}


@frozen
class Key:
    """One key that a table may have."""

    attribute: attrs.Attribute[Any]
    unit: Unit | None
    short: bool
    """Whether it is the key that people write, where there are two."""


def attributes_of(cls: type) -> tuple[attrs.Attribute[Any], ...]:
    """Return the attributes of a class with their types resolved."""
    found: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(cast("type[attrs.AttrsInstance]", cls)))
    return found


def unit_of(attribute: attrs.Attribute[Any]) -> Unit | None:
    """Return how a quantity is written, or None for what is none."""
    return next((unit for end, unit in UNITS.items() if attribute.name.endswith(end)), None)


@cache
def keys_of(cls: type) -> Mapping[str, Key]:
    """Return the keys that the table of a class may have."""
    keys: dict[str, Key] = {}
    for attribute in attributes_of(cls):
        unit = unit_of(attribute)
        keys[str(attribute.alias)] = Key(attribute, unit, short=True)
        keys.setdefault(attribute.name, Key(attribute, unit, short=False))
    return keys


def known_keys(cls: type) -> list[str]:
    """Return the keys that people write in the table of a class."""
    return [name for name, key in keys_of(cls).items() if key.short]


class Reader:
    """Reads and collects what is wrong.

    Args:
        special: How classes and types are read that people may write in more than one way.
        passed_over: Takes the unknown keys, as on the wire; without it they are mistakes, as in files.

    """

    def __init__(self, special: Mapping[Kind, Special], *, passed_over: list[Problem] | None = None) -> None:
        """Begin without mistakes."""
        self.problems: list[Problem] = []
        self._special = special
        self._passed_over = passed_over
        self._broken: set[str] = set()

    def wrong(self, path: str, found: str, expected: str, *, near: str | None = None, at: str | None = None) -> None:
        """Note a mistake; `at` is the place in the model that holds a stand-in, where it is not `path`."""
        if not self.full:
            self.problems.append(Problem(path, found, expected, near))
        self._broken.add(path if at is None else at)

    @property
    def full(self) -> bool:
        """Return whether so many mistakes were found that no more are noted."""
        return len(self.problems) >= MISTAKES_MAX

    def hide(self, path: str) -> None:
        """Leave out what a later check says of a place."""
        self._broken.add(path)

    def hides(self, path: str) -> bool:
        """Return whether a place, or one that it is in, holds a stand-in."""
        while path not in self._broken:
            cut = max(path.rfind("."), path.rfind("["))
            if cut < 0:
                return False
            path = path[:cut]
        return True

    def table(self, cls: type, data: object, path: str) -> dict[str, Any]:
        """Read a table into arguments for a class; what is not given is left out."""
        if not isinstance(data, Mapping):
            self.wrong(path, show(data), "a table")
            return {}
        keys = keys_of(cls)
        taken: dict[str, Any] = {}
        written: dict[str, str] = {}
        for name, item in data.items():
            key = keys.get(name)
            if key is None:
                self.unknown(str(name), path, known_keys(cls))
                continue
            alias = str(key.attribute.alias)
            if alias in written:
                self.wrong(join(path, name), f"both {written[alias]} and {name}", f"one of them, such as {alias}")
                continue
            written[alias] = name
            taken[alias] = self.attribute(key, item, join(path, name), join(path, alias))
        return taken

    def unknown(self, name: str, path: str, known: Iterable[str]) -> None:
        """Note a key that is not known, as a mistake or as one that was passed over."""
        if self.full or (self._passed_over is not None and len(self._passed_over) >= PASSED_OVER_MAX):
            return
        place, found, near = join(path, name), f"the key {show(name)}", nearest(name, known)
        expected = f"one of {', '.join(sorted(known))}"
        if self._passed_over is None:
            self.wrong(place, found, expected, near=near)
        else:
            self._passed_over.append(Problem(place, found, expected, near))

    def attribute(self, key: Key, data: Any, path: str, at: str) -> Any:
        """Read the value of one attribute."""
        facts = about_of(key.attribute)
        default = default_of(key.attribute)
        if facts is not None and facts.later:
            if data and data != default:
                self.wrong(path, show(data), not_supported(key.attribute.name), at=at)
            return default
        optional = NoneType in get_args(key.attribute.type)
        if optional and (
            data is None or (facts is not None and facts.none_text is not None and data == facts.none_text)
        ):
            return None
        if key.unit is not None:
            return self._quantity(key, key.unit, data, path, at)
        return self.value(key.attribute.type, data, path, at)

    def _quantity(self, key: Key, unit: Unit, data: Any, path: str, at: str) -> Any:
        try:
            if key.short:
                return unit.plain(unit.convert(data))
            whole = key.attribute.name.endswith(("_bytes", "_millis"))
            if isinstance(data, bool) or not isinstance(data, int if whole else (int, float)):
                raise ValueError("not a plain number")
            return unit.plain(unit.convert(unit.plain(data)))
        except ValueError:
            expected = unit.expected if key.short else f"a number of {key.attribute.name.rpartition('_')[2]}"
            self.wrong(path, show(data), expected, at=at)
            return unit.plain(default_of(key.attribute) or 0)

    def value(self, kind: Kind, data: Any, path: str, at: str | None = None) -> Any:
        """Read a value of some type, or note a mistake and return a stand-in."""
        if kind in self._special:
            return self._special[kind](self, data, path)
        origin = origin_of(kind)
        if origin in (Union, UnionType):
            return self._union(kind, data, path, at)
        if origin is tuple:
            return self._list(get_args(kind)[0], data, path)
        if origin is not None and origin is not Literal:
            return self._mapping(get_args(kind)[1], data, path)
        if attrs.has(kind):
            return self.build(kind, self.table(kind, data, path), path)
        return self._scalar(kind, data, path, at)

    def build(self, cls: type, taken: Mapping[str, Any], path: str) -> Any:
        """Make a value of a class; what it must have and was not given is a mistake."""
        filled = dict(taken)
        for attribute in attributes_of(cls):
            alias = str(attribute.alias)
            if attribute.default is attrs.NOTHING and alias not in filled:
                if not self.hides(path):
                    self.wrong(join(path, alias), "nothing", describe(attribute.type))
                filled[alias] = stand_in(attribute.type)
        return cls(**filled)

    def _union(self, kind: Kind, data: Any, path: str, at: str | None) -> Any:
        parts = [part for part in get_args(kind) if part is not NoneType]
        if data is None and len(parts) < len(get_args(kind)):
            return None
        if len(parts) == 1:
            return self.value(parts[0], data, path, at)
        return data if any(_is_scalar(part, data) for part in parts) else self._mistake(kind, data, path, at)

    def _list(self, kind: Kind, data: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(data, (list, tuple)):
            self.wrong(path, show(data), "a list")
            return ()
        return tuple([self.value(kind, item, f"{path}[{index}]") for index, item in enumerate(data)])

    def _mapping(self, kind: Kind, data: Any, path: str) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            self.wrong(path, show(data), "a table")
            return {}
        return {str(name): self.value(kind, item, join(path, str(name))) for name, item in data.items()}

    def _scalar(self, kind: Kind, data: Any, path: str, at: str | None) -> Any:
        if kind is Any:
            try:
                return plain_json(data)
            except (TypeError, ValueError):
                return self._mistake(kind, data, path, at)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return kind(data) if data in list(kind) else self._mistake(kind, data, path, at)
        return data if _is_scalar(kind, data) else self._mistake(kind, data, path, at)

    def _mistake(self, kind: Kind, data: Any, path: str, at: str | None) -> Any:
        names = [str(name) for name in get_args(kind)] if origin_of(kind) is Literal else []
        if isinstance(kind, type) and issubclass(kind, Enum):
            names = [str(member.value) for member in kind]
        near = nearest(data, names) if isinstance(data, str) and not self.full else None
        self.wrong(path, show(data), describe(kind), near=near, at=at)
        return stand_in(kind)


def not_supported(name: str) -> str:
    """Return what is expected where something is used that is still to come."""
    return f"nothing: {name} {'are' if name.endswith('s') else 'is'} not supported yet"


def default_of(attribute: attrs.Attribute[Any]) -> Any:
    """Return the default of an attribute, None where it has none."""
    default: Any = attribute.default
    if hasattr(default, "factory"):
        return default.factory()
    return None if default is attrs.NOTHING else default


def stand_in(kind: Kind) -> Any:
    """Return some value of a type, to go on with after a mistake."""
    origin = origin_of(kind)
    if kind in _STAND_INS:
        return _STAND_INS[kind]
    if origin in (Union, UnionType):
        return stand_in(get_args(kind)[0])
    if origin is Literal:
        return get_args(kind)[0]
    if origin is not None:
        return () if origin is tuple else {}
    if issubclass(kind, Enum):
        return next(iter(kind))
    return kind(**{str(a.alias): stand_in(a.type) for a in attributes_of(kind) if a.default is attrs.NOTHING})


def _is_scalar(kind: Kind, data: Any) -> bool:
    if origin_of(kind) is Literal:
        return isinstance(data, str) and data in get_args(kind)
    return data.__class__ is kind
