"""The root of the values that users get back: they show themselves as a table in a notebook."""

from __future__ import annotations

from html import escape
from typing import Any

import attrs

from khonsu.core.secret import HIDDEN


class Value:
    """A frozen attrs value with an HTML form."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Return the value as a table of its fields, for notebooks; they keep no more than a `repr` shows."""
        fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(type(self))  # type: ignore[arg-type]
        rows = "".join(_row(field.name, getattr(self, field.name) if field.repr else HIDDEN) for field in fields)
        return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"


def _row(name: str, value: object) -> str:
    return f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
