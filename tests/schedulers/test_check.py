"""The check of schedulers finds the promise that a scheduler breaks, and says which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from attrs import evolve

from khonsu import Ask, Changes, Evaluation, Fleet, FloatArray, IntArray, Plan, Scheduler, Snapshot
from khonsu.core.arrays import BoolArray
from khonsu.errors import PluginError
from khonsu.testing import SchedulerCheckFailed, check_scheduler


def unplaced(ask: Ask) -> IntArray:
    """Return rows in which no copy has a place."""
    return np.full(ask.count, -1)


class Ignoring(Scheduler):
    """Looks at the room of nodes, and at nothing else."""

    name = "ignoring"

    def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
        room = np.minimum.reduce([fleet.free[name] // max(1, ask.resources[name]) for name in ("cpu", "memory")])
        rows = np.repeat(np.arange(len(fleet)), np.clip(room, 0, ask.count))[: ask.count]
        return np.append(rows, np.full(ask.count - len(rows), -1))


class Greedy(Scheduler):
    """Puts all copies on the node that has the most room."""

    name = "greedy"

    def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
        fits = fleet.fits(ask)
        return np.full(ask.count, fits.argmax()) if fits.any() else unplaced(ask)


class Worst(Scheduler):
    """Puts each copy on some node, though it has a score of its own."""

    name = "worst"

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        return fleet.free["cpu"] / 1000

    def picks(self, ask: Ask, fleet: Fleet, /) -> Any:
        found = super().picks(ask, fleet)
        return evolve(found, rows=np.where(np.arange(ask.count) == 0, found.rows[-1:].max(initial=-1), found.rows))


class Mutating(Scheduler):
    """Writes into the fleet that it is given."""

    name = "mutating"

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        fleet.free["cpu"][:] = 0
        return np.zeros(len(fleet))


class Prying(Scheduler):
    """Writes into the fleet that it is given, though that is read-only."""

    name = "prying"

    def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
        column: Any = fleet.used["memory"]
        while isinstance(column.base, np.ndarray):
            column = column.base
        column.setflags(write=True)
        column += 1
        return super().place(ask, fleet)


class Sorting(Scheduler):
    """Changes the ask."""

    name = "sorting"

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        ask.resources["cpu"] = 0  # type: ignore[index]
        return np.zeros(len(fleet))


class Random(Scheduler):
    """Throws dice of its own."""

    name = "random"

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        return np.random.default_rng().random(len(fleet))


class Born(Scheduler):
    """Is another one each time that it is made."""

    name = "born"
    made: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.made.append(len(self.made))
        self.seed = self.made[-1]

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        return np.random.default_rng(self.seed).random(len(fleet))


class Restless(Scheduler):
    """Does something else after each reset, whatever the seed."""

    name = "restless"
    resets = 0

    def reset(self, seed: int, /) -> None:
        self.resets = id(self)

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        return np.random.default_rng(self.resets).random(len(fleet))


class NoNumber(Scheduler):
    """Divides by what may be nothing."""

    name = "no-number"

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        return np.full(len(fleet), np.nan)


class Short(Scheduler):
    """Leaves a copy out."""

    name = "short"

    def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
        return unplaced(ask)[1:]


class Forbidding(Scheduler):
    """Has a filter that it does not keep to."""

    name = "forbidding"

    def filters(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, BoolArray]:
        return {"never here": np.zeros(len(fleet), np.bool_)}

    def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
        return Scheduler().place(ask, fleet)


class Vague(Scheduler):
    """Leaves out of its plan what it did not place."""

    name = "vague"

    def schedule(self, evaluation: Evaluation, snapshot: Snapshot, changes: Changes, /) -> Plan:
        return evolve(super().schedule(evaluation, snapshot, changes), unplaced=())


class Failing(Scheduler):
    """Fails where there are no nodes."""

    name = "failing"

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        largest: float = max(fleet.total["cpu"].tolist())
        return fleet.share("cpu") / largest

    def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
        self.score(ask, fleet)
        return super().place(ask, fleet)


WRONG: dict[type[Scheduler], str] = {
    Ignoring: "no copy is where it may not be, such as on node-.* in spite of state",
    Greedy: "no node gets more copies than fit",
    Worst: "each copy is on the best node",
    Prying: "the fleet stays as it was, also its used memory",
    Sorting: "the ask stays as it was",
    Random: "it is pure",
    Born: "two of a kind do the same",
    Restless: "after the same reset two of a kind do the same",
    NoNumber: "no finite number",
    Short: "not .* positions",
    Forbidding: "no copy is where the filter 'never here' forbids",
    Vague: "the plan places 0 of 3 copies of group main, and says that 0 have no place",
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_a_wrong_scheduler_is_found(wrong: type[Scheduler]) -> None:
    """A scheduler that breaks one promise does not pass, and is told which."""
    with pytest.raises((SchedulerCheckFailed, PluginError), match=WRONG[wrong]):
        check_scheduler(wrong)


@pytest.mark.parametrize(
    ("wrong", "says", "case"), [(Mutating, "read-only", "no nodes"), (Failing, "empty", "no nodes")]
)
def test_what_a_scheduler_raises_is_named(wrong: type[Scheduler], says: str, case: str) -> None:
    """An error of the scheduler leaves the check as it is, with the case that led to it."""
    with pytest.raises(ValueError, match=says) as caught:
        check_scheduler(wrong)
    assert case in caught.value.__notes__[0]
