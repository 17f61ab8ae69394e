"""The root of the values that users get back: they show themselves as a table in a notebook."""

from __future__ import annotations

from html import escape
from typing import Any

import attrs


class Value:
    """A frozen attrs value with an HTML form."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Return the value as a table of its fields, for notebooks."""
        fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(type(self))  # type: ignore[arg-type]
        rows = "".join(
            f"<tr><th>{escape(field.name)}</th><td>{escape(str(getattr(self, field.name)))}</td></tr>" for field in fields
        )
        return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"
