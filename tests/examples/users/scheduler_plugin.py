"""A scheduler of a student, with every hook, and one that is a function; both are checked and asked for a plan."""

# pyright: strict

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

import khonsu
from khonsu.testing import ask, check_scheduler, fleet

if TYPE_CHECKING:
    from khonsu import Ask, BoolArray, Changes, Evaluation, Fleet, FloatArray, IntArray, Outcome, Plan, Snapshot


class Learning(khonsu.Scheduler):
    """Prefers nodes with free memory, more so after each plan that failed."""

    name = "learning"
    independent = True

    def __init__(self) -> None:
        self.weight = 1.0

    def filters(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, BoolArray]:
        """Leave full nodes alone."""
        return {"too full": fleet.share("memory") < 0.95}

    def score(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, FloatArray]:
        """Return two terms."""
        after = fleet.after(ask)
        fast = fleet.where("label.disk", "=", "ssd")
        return {"memory": self.weight * (1.0 - after.share("memory")), "disk": np.where(fast, 0.1, 0.0)}

    def schedule(self, evaluation: Evaluation, snapshot: Snapshot, changes: Changes, /) -> Plan:
        """Plan as all do."""
        return super().schedule(evaluation, snapshot, changes)

    def reset(self, seed: int, /) -> None:
        """Forget."""
        self.weight = 1.0

    def observe(self, outcome: Outcome, /) -> None:
        """Learn."""
        if not outcome.accepted:
            self.weight *= 2


class FirstFit(khonsu.Scheduler):
    """Fills nodes row by row; knows nothing of `distinct`, so that the check would not pass it."""

    name = "first-fit"

    def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
        """Return the first rows that have room."""
        room: IntArray = np.minimum(fleet.fits(ask), ask.count)
        rows = np.repeat(np.arange(len(fleet)), room)[: ask.count]
        return np.append(rows, np.full(ask.count - len(rows), -1))


@khonsu.scheduler("fullest", independent=True)
def fullest(ask: Ask, fleet: Fleet) -> FloatArray:
    """Prefer full nodes."""
    return fleet.after(ask).share("cpu")


def main() -> dict[str, int]:
    """Check those that can be, and return on how many nodes each puts four copies."""
    for make in (Learning, lambda: fullest):
        check_scheduler(make)
    wanted, machines = ask(cpu=0.1, count=4), fleet(nodes=20, seed=3)
    schedulers: tuple[khonsu.Scheduler, ...] = (Learning(), FirstFit(), fullest)
    found = {one.name: len(set(one.place(wanted, machines).tolist())) for one in schedulers}
    with khonsu.LocalCluster(nodes=2, schedulers=schedulers) as cluster:
        job = khonsu.Job.single("work", khonsu.BinaryConfig("true"), type="batch", count=2, scheduler="fullest")
        plan = cluster.client.plan(job)
        found["planned"] = len([node.node for node in plan.explanation.groups[0].nodes if node.placed])
    return found
