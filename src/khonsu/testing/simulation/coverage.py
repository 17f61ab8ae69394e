"""Which faults met which operations: what a test of many seeds has tried, and what it never has.

A fault meets an operation when both are under way at the same time, whichever began first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import product

from attrs import field, frozen

OPEN = "store.open"
WRITE = "store.write"
START = "task.start"
STOP = "task.stop"

Pair = tuple[str, str]
"""The name of a fault, and that of an operation."""


class Coverage:
    """Counts how often each fault met each operation, in one run."""

    def __init__(self) -> None:
        """Begin with nothing under way."""
        self._faults: Counter[str] = Counter()
        self._operations: Counter[str] = Counter()
        self.pairs: Counter[Pair] = Counter()
        """How often each pair met."""
        self.operations: Counter[str] = Counter()
        """How often each operation happened."""

    def fault_began(self, fault: str) -> None:
        """Take note that a fault begins."""
        self._faults[fault] += 1
        for operation, count in self._operations.items():
            if count:
                self.pairs[fault, operation] += 1

    def fault_ended(self, fault: str) -> None:
        """Take note that a fault is over."""
        self._faults[fault] -= 1

    def operation_began(self, operation: str) -> None:
        """Take note that an operation begins."""
        self._operations[operation] += 1
        self.operations[operation] += 1
        for fault, count in self._faults.items():
            if count:
                self.pairs[fault, operation] += 1

    def operation_ended(self, operation: str) -> None:
        """Take note that an operation is over."""
        self._operations[operation] -= 1

    @contextmanager
    def during(self, operation: str) -> Iterator[None]:
        """Take note that an operation is under way for the length of a block."""
        self.operation_began(operation)
        try:
            yield
        finally:
            self.operation_ended(operation)


@frozen
class Met:
    """Which pairs met in many runs.

    Args:
        faults: The faults that there are.
        pairs: How often each pair met.
        operations: How often each operation happened.

    """

    faults: tuple[str, ...]
    pairs: Counter[Pair] = field(factory=Counter)
    operations: Counter[str] = field(factory=Counter)

    def add(self, pairs: Counter[Pair], operations: Counter[str]) -> None:
        """Count a run."""
        self.pairs.update(pairs)
        self.operations.update(operations)

    @property
    def all(self) -> Iterable[Pair]:
        """Return all pairs that there can be."""
        return product(self.faults, sorted(self.operations))

    @property
    def never(self) -> list[Pair]:
        """Return the pairs that never met."""
        return [pair for pair in self.all if not self.pairs[pair]]

    @property
    def share(self) -> float:
        """Return the share of the pairs that met."""
        possible = len(self.faults) * len(self.operations)
        return 1.0 - len(self.never) / possible if possible else 1.0
