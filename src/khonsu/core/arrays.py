"""The arrays of the scheduler: their types, and columns that are made when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.signedinteger[Any]]
"""Whole numbers: int64 for amounts and counts, int32 for rows and codes."""
FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


ArrayT = TypeVar("ArrayT", bound=npt.NDArray[Any])


def read_only(array: ArrayT) -> ArrayT:
    """Return an array after forbidding to write to it; only for one that nobody else is to write to."""
    array.flags.writeable = False
    return array


def occurrence(values: IntArray) -> IntArray:
    """Return for each value how often it stood before: 7, 8, 7, 7 gives 0, 0, 1, 2."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.ones(len(values), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    place = np.arange(len(values))
    found = np.empty(len(values), np.int64)
    found[order] = place - np.maximum.accumulate(np.where(first, place, 0))
    return found


class Columns(Mapping[str, IntArray]):
    """Columns by name. Each is made when it is first asked for, kept, and read-only."""

    __slots__ = ("_made", "_make", "_names")

    def __init__(
        self, names: tuple[str, ...], make: Callable[[str], IntArray], made: Mapping[str, IntArray] | None = None
    ) -> None:
        """Take the function that makes a column, and those that are there."""
        self._names = names
        self._make = make
        self._made = dict(made) if made else {}

    def __getitem__(self, name: str) -> IntArray:
        """Return a column."""
        column = self._made.get(name)
        if column is None:
            if name not in self._names:
                raise KeyError(f"there is no resource {name!r}; there are {', '.join(self._names)}")
            column = self._made[name] = read_only(self._make(name))
        return column

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return how many columns there are."""
        return len(self._names)

    def replaced(self, columns: Mapping[str, IntArray]) -> Columns:
        """Return columns with some exchanged; the others stay as they are, made or not."""
        for column in columns.values():
            column.flags.writeable = False
        return Columns(self._names, self._make, {**self._made, **columns})
