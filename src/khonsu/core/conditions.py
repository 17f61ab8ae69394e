"""Conditions on nodes and wishes for them, as a job states them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import field, frozen

from khonsu.core.about import about

OPERATORS: Final = (
    "=", "!=", "<", "<=", ">", ">=", "in", "not_in", "regex", "version", "is_set", "is_not_set", "distinct",
)  # fmt: skip
UNARY_OPERATORS: Final = ("is_set", "is_not_set", "distinct")
"""Those that may stand without a value; the first two must."""


@frozen
class Constraint:
    """A condition on a node: `ATTRIBUTE OPERATOR VALUE`."""

    attribute: str = field(metadata=about("What the node is asked for: `os`, `kernel.version`, `label.disk`, ..."))
    operator: str = field(default="=", metadata=about("How it is compared.", choices=OPERATORS))
    value: str = field(default="", metadata=about("With what it is compared; lists are separated by commas."))

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Parse `"label.disk = ssd"`; the value may hold spaces, `is_set` and its like take none.

        Raises:
            ValueError: The text is not three words, or two for an operator without a value.

        """
        words = text.split(None, 2)
        if len(words) == 3 and words[1] in OPERATORS and words[1] not in ("is_set", "is_not_set"):
            return cls(words[0], words[1], words[2].strip())
        if len(words) == 2 and words[1] in UNARY_OPERATORS:
            return cls(words[0], words[1])
        raise ValueError(f'{text!r} is not "ATTRIBUTE OPERATOR VALUE" with one of {" ".join(OPERATORS)}')

    @property
    def values(self) -> tuple[str, ...]:
        """Return the values of a list (`in`, `not_in`, `version`), without the blanks around them."""
        return tuple(part.strip() for part in self.value.split(","))

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"{self.attribute} {self.operator} {self.value}".rstrip()


def as_constraint(value: Constraint | str) -> Constraint:
    """Return a constraint as it is, and a text parsed."""
    return Constraint.parse(value) if isinstance(value, str) else value


def as_constraints(values: Iterable[Constraint | str]) -> tuple[Constraint, ...]:
    """Return constraints, parsing those that are text."""
    return tuple(as_constraint(value) for value in values)


def _as_targets(value: Mapping[str, int]) -> Mapping[str, int]:
    return dict(value)


@frozen
class Affinity:
    """A wish: prefer (or, with a negative weight, avoid) nodes where a condition holds."""

    where: Constraint = field(converter=as_constraint, metadata=about("The condition, written as a constraint is."))
    weight: int = field(
        default=50, metadata=about("How strong the wish is; below zero: avoid such nodes.", low=-100, high=100)
    )


@frozen
class Spread:
    """A wish to spread the copies over the values of an attribute, evenly or by shares in percent."""

    attribute: str = field(metadata=about("The attribute over whose values the copies are spread."))
    weight: int = field(default=100, kw_only=True, metadata=about("How strong the wish is.", low=0, high=100))
    targets: Mapping[str, int] = field(
        factory=dict,
        converter=_as_targets,
        kw_only=True,
        metadata=about("The share of each value in percent; none: evenly.", low=0, high=100),
    )


def as_affinities(values: Iterable[Affinity]) -> tuple[Affinity, ...]:
    """Return affinities as a tuple."""
    return tuple(values)


def as_spreads(values: Iterable[Spread]) -> tuple[Spread, ...]:
    """Return spreads as a tuple."""
    return tuple(values)
