"""The tables of the job's reference page, made from the fields themselves."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import NoneType
from typing import Any, Final, Literal, get_args

import attrs

from khonsu.core.about import About, about_of
from khonsu.core.brief import form
from khonsu.core.job import Port
from khonsu.core.mistakes import Kind, origin_of
from khonsu.core.reader import attributes_of, default_of
from khonsu.core.validate import allowed_numbers

_QUANTITIES: Final = {"_seconds": "duration", "_bytes": "size", "_millis": "cores"}
_SCALARS: Final[Mapping[Kind, str]] = {str: "text", int: "number", bool: "`true` or `false`"}


def field_table(cls: type) -> str:
    """Return the fields of a class as a table in Markdown: key, values, default, meaning."""
    rows = [_row(attribute, facts) for attribute in attributes_of(cls) if (facts := about_of(attribute)) is not None]
    return "\n".join(("| key | values | default | |", "|---|---|---|---|", *rows))


def _row(attribute: attrs.Attribute[Any], facts: About) -> str:
    later = " *Not supported yet.*" if facts.later else ""
    cells = (f"`{attribute.alias}`", _values(attribute, facts), _default(attribute, facts), facts.text + later)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _values(attribute: attrs.Attribute[Any], facts: About) -> str:
    quantity = next((word for end, word in _QUANTITIES.items() if attribute.name.endswith(end)), None)
    words = quantity or _kind(attribute.type, facts)
    if facts.low is not None or facts.above is not None or facts.high is not None:
        words = f"{words}, {allowed_numbers(facts, attribute.name)}"
    return f"{words}, or `{facts.none_text}`" if facts.none_text else words


def _kind(kind: Kind, facts: About) -> str:
    """Return in a word or two what a field takes."""
    if facts.choices:
        return " ".join(f"`{choice}`" for choice in facts.choices)
    if facts.name:
        return "name"
    parts = [part for part in get_args(kind) if part is not NoneType]
    if kind in _SCALARS:
        return _SCALARS[kind]
    if origin_of(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    if origin_of(kind) is tuple:
        return "table" if parts[0] is Port else "list"
    if origin_of(kind) is Mapping or attrs.has(kind):
        return "table"
    return ", ".join(_kind(part, facts) for part in parts)


def _default(attribute: attrs.Attribute[Any], facts: About) -> str:
    if attribute.default is attrs.NOTHING:
        return "required"
    default = default_of(attribute)
    if default is None and facts.none_text:
        return f"`{facts.none_text}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, (str, int, float)) and default != "":
        return f"`{form(attribute.name, default)}`"
    return "see below" if attrs.has(type(default)) else "none"
