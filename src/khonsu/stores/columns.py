"""Columns: how a field of a record is stored, as a number or a text.

Ids are 64-bit numbers, times are real numbers, states are their text, and what has parts is JSON. Everything is
checked when it is put, so that a group of writes never fails for the values of one of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, StrEnum
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import attrs
from attrs import frozen

from khonsu.core.codec import dumps, from_json
from khonsu.core.ids import AllocationId, EvaluationId, NodeId, key_text, parse_key, parse_keys
from khonsu.core.revision import Revision

Stored: TypeAlias = int | float | str | None
"""A value as SQLite and the change feed keep it."""

Affinity = Literal["INTEGER", "REAL", "TEXT"]

_ID_TYPES = (AllocationId, EvaluationId, NodeId)
_INTEGER_MIN, _INTEGER_MAX = -(1 << 63), (1 << 63) - 1


class Required(Enum):
    """Stands for the default of a field that has none."""

    REQUIRED = 0


REQUIRED: Final = Required.REQUIRED


@frozen
class Form:
    """How values of one type are stored.

    Args:
        affinity: The type of the column.
        encode: Returns one value in its stored form; TypeError or ValueError where it has none.
        decode: Returns the value of a stored form; None where they are the same.
        encode_many: Returns all values at once, or None where each needs a look.
        compared: Whether two values are equal just when their stored forms are.

    """

    affinity: Affinity
    encode: Callable[[Any], Stored]
    decode: Callable[[Any], Any] | None = None
    encode_many: Callable[[Sequence[Any]], list[Stored] | None] = lambda _: None
    compared: bool = True


@frozen
class Column:
    """A column of a table: one field of a kind of record.

    Args:
        name: The name of the field.
        form: How its values are stored.
        optional: Whether it may be None.
        default: The stored form of its default.

    """

    name: str
    form: Form
    optional: bool
    default: Stored | Required

    def encode(self, value: object) -> Stored:
        """Return a value in its stored form.

        Raises:
            TypeError: The field does not take such a value.
            ValueError: It takes such values, but not this one.

        """
        if value is None:
            if self.optional:
                return None
            raise TypeError(f"{self.name} cannot be None")
        try:
            return self.form.encode(value)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{self.name} cannot be {value!r:.200}: {error}") from error

    def encode_many(self, values: Sequence[object]) -> list[Stored]:
        """Return many values in their stored form.

        Raises:
            TypeError: The field does not take such a value.
            ValueError: It takes such values, but not this one.

        """
        whole = self.form.encode_many(values)
        return [self.encode(value) for value in values] if whole is None else whole

    def decode(self, stored: Stored) -> Any:
        """Return the value of a stored form."""
        return stored if stored is None or self.form.decode is None else self.form.decode(stored)

    def decode_many(self, stored: Iterable[Stored]) -> Iterable[Any]:
        """Return the values of many stored forms."""
        return stored if self.form.decode is None else map(self.decode, stored)


def column_of(attribute: attrs.Attribute[Any], *, numbered: bool) -> Column:
    """Return the column of a field whose type is resolved; `numbered` says that it is a key kept as a number."""
    hint: Any = attribute.type
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    optional = NoneType in parts or hint is Any
    kept = [part for part in parts if part is not NoneType]
    form = _ID if numbered else form_of(kept[0] if len(kept) == 1 else hint)
    return Column(attribute.name, form, optional, _default(attribute, form))


def form_of(hint: Any) -> Form:
    """Return how values of a type are stored."""
    if hint in _ID_TYPES:
        return _ID
    while hasattr(hint, "__supertype__"):  # a NewType, such as Time
        hint = hint.__supertype__
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum(hint)
    return _SIMPLE.get(hint) or _composite(hint)


def _default(attribute: attrs.Attribute[Any], form: Form) -> Stored | Required:
    default: Any = attribute.default
    if default is attrs.NOTHING:
        return REQUIRED
    value = default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
    return None if value is None else form.encode(value)


# ----------------------------------------------------------------------------------------------------------- the forms


def _integer(value: object) -> int:
    if value.__class__ is not int:
        raise TypeError("it is not a whole number")
    if not _INTEGER_MIN <= value <= _INTEGER_MAX:
        raise ValueError("it does not fit into 64 bits")
    return value


def _integers(values: Sequence[Any]) -> list[Stored] | None:
    plain = set(map(type, values)) == {int} and min(values) >= _INTEGER_MIN and max(values) <= _INTEGER_MAX
    return list(values) if plain else None


def _real(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError("it is not a number")
    if not math.isfinite(value):
        raise ValueError("it is not finite")
    return float(value)


def _reals(values: Sequence[Any]) -> list[Stored] | None:
    return list(values) if set(map(type, values)) == {float} and all(map(math.isfinite, values)) else None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("it is not text")
    value.encode()  # half a character (a lone surrogate) has no place in UTF-8
    return str(value)


def _texts(values: Sequence[Any]) -> list[Stored] | None:
    return list(values) if set(map(type, values)) == {str} and "".join(values).isascii() else None


def _boolean(value: object) -> int:
    if value.__class__ is not bool:
        raise TypeError("it is not true or false")
    return 1 if value else 0


def _key(value: object) -> int:
    if not isinstance(value, str):
        raise TypeError("it is not an id")
    return parse_key(value)


def _keys(values: Sequence[Any]) -> list[Stored] | None:
    if set(map(type, values)) == {int}:
        return _integers(values)
    return list(parse_keys(values)) if set(map(type, values)) == {str} else None


def _revision(value: object) -> str:
    if not isinstance(value, Revision):
        raise TypeError("it is not a revision")
    return str(value)


def _enum(kind: type[StrEnum]) -> Form:
    return Form("TEXT", lambda value: kind(value).value, {member.value: member for member in kind}.__getitem__)


def _composite(hint: Any) -> Form:
    origin = get_origin(hint)
    empty: tuple[str, Callable[[], Any]] | None = None
    if origin is tuple:
        empty = "[]", tuple
    elif origin is Mapping:
        empty = "{}", dict

    def decode(text: str) -> Any:
        if empty is not None and text == empty[0]:
            return empty[1]()
        return from_json(hint, json.loads(text))

    def encode(value: object) -> str:
        if empty is not None and not value and value is not None:
            return empty[0]
        return dumps(value)

    return Form("TEXT", encode, decode, compared=False)


_ID: Final = Form("INTEGER", _key, key_text, _keys)
_SIMPLE: Final[Mapping[Any, Form]] = {
    int: Form("INTEGER", _integer, None, _integers),
    float: Form("REAL", _real, None, _reals),
    str: Form("TEXT", _text, None, _texts),
    bool: Form("INTEGER", _boolean, bool),
    Revision: Form("TEXT", _revision, Revision.parse),
}
