"""What each field of a job is about: one line of text and its limits, kept with the field.

Checks, the JSON Schema for editors and the reference page all read it, so that they cannot disagree.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
from attrs import frozen

NAME: Final = re.compile(r"[a-z0-9][-._a-z0-9]{0,62}", re.ASCII)
NAME_EXPECTED: Final = "1 to 63 of a-z, 0-9, '-', '.' and '_', beginning with a letter or digit"

_KEY = "khonsu"


@frozen
class About:
    """One field: what it is for, what its values may be, and whether it is still to come."""

    text: str
    low: float | None = None
    """The least number, in the unit of the attribute."""
    high: float | None = None
    """The greatest number, in the unit of the attribute."""
    above: float | None = None
    """A number that is too small by a hair."""
    name: bool = False
    """Whether it is a name (or names) as `NAME` says."""
    choices: tuple[str, ...] = ()
    """All that a text may be."""
    none_text: str | None = None
    """How None is written where people cannot write null."""
    later: bool = False
    """Whether the library does not do it yet: a job that uses it is refused."""


def about(
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    name: bool = False,
    choices: tuple[str, ...] = (),
    none_text: str | None = None,
    later: bool = False,
) -> dict[str, About]:
    """Return the metadata of a field of a job; the arguments are those of `About`."""
    return {_KEY: About(text, low, high, above, name, choices, none_text, later)}


def about_of(attribute: attrs.Attribute[Any]) -> About | None:
    """Return what a field is about, or None for one that nobody writes."""
    found: About | None = attribute.metadata.get(_KEY)
    return found
