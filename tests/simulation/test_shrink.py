from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from khonsu.testing.simulation.oracle import Violation
from khonsu.testing.simulation.shrink import RUNS_MAX, shrink
from khonsu.testing.simulation.world import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection


class Seed:
    """A seed that fails with some faults together, and with others in another way."""

    def __init__(self, *needed: int, other: int = 0) -> None:
        self.needed = set(needed)
        self.other = other
        self.runs = 0

    def run(self, only: Collection[int]) -> Outcome:
        """Run it with these faults only."""
        self.runs += 1
        promise = "S2" if self.needed <= set(only) else "L1" if self.other in only else None
        violation = None if promise is None else Violation(promise, "it is so")
        return Outcome(
            seed=1, runner="trio", seconds=1.0, digest="", events=0, violation=violation,
            happened=tuple(only), only=tuple(only),
        )  # fmt: skip


@pytest.mark.parametrize("needed", [(), (1,), (13,), (3, 7), (1, 2, 12, 13), tuple(range(1, 14))])
def test_it_is_left_with_the_faults_that_it_needs(needed: tuple[int, ...]) -> None:
    """A seed is shrunk to the faults without which it does not fail, in a bounded number of runs."""
    seed = Seed(*needed)
    shrunk = shrink(seed.run(range(1, 14)), seed.run)
    assert (shrunk.happened, shrunk.violation) == (needed, Violation("S2", "it is so"))
    assert seed.runs <= RUNS_MAX + 1


def test_another_failure_is_not_taken_for_it() -> None:
    """What fails in another way with fewer faults is not what was looked for."""
    seed = Seed(2, 3, other=1)
    assert shrink(seed.run(range(1, 6)), seed.run).happened == (2, 3)


def test_it_says_how_it_is_done_again() -> None:
    """The command names the faults that are left."""
    seed = Seed(2, 3)
    command = "python -m khonsu.testing.simulation --seed 1 --runner trio"
    assert shrink(seed.run(range(1, 6)), seed.run).command == f"{command} --faults 2,3 --trace"
    assert seed.run(()).command == f"{command} --faults none --trace"
