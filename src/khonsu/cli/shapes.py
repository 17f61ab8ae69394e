"""The JSON of the command line: what the client returns, with what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from khonsu.core.codec import to_json
from khonsu.core.records import Node


def shape(value: object) -> dict[str, Any]:
    """Return a value as a JSON object. A node says whether it may be given work now."""
    made: dict[str, Any] = to_json(value)
    return {**made, "schedulable": value.schedulable} if isinstance(value, Node) else made


def shapes(values: Sequence[object]) -> list[Mapping[str, Any]]:
    """Return values as a JSON array."""
    return [shape(value) for value in values]
