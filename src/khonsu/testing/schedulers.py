"""What every scheduler must do, as one check for whoever writes one. No test framework is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import numpy as np
from attrs import frozen

from khonsu.abc.scheduler import Scheduler
from khonsu.core.arrays import FloatArray, IntArray
from khonsu.core.ask import Ask
from khonsu.core.changes import Changes, Place
from khonsu.core.conditions import Affinity, Constraint, Spread
from khonsu.core.explain import total_of
from khonsu.core.feasible import feasible
from khonsu.core.fleet import Fleet
from khonsu.core.fleet_state import FleetState
from khonsu.core.ids import EvaluationId, NodeId
from khonsu.core.placement import Judge, one_by_one
from khonsu.core.plan import Outcome, Plan, Snapshot
from khonsu.core.records import Evaluation, JobRecord, Time
from khonsu.core.states import JobStatus
from khonsu.core.terms import distinct_blocks
from khonsu.core.verify import check_plan, verify
from khonsu.testing.fleets import REVISION, ask, fleet_state

MakeScheduler = Callable[[], Scheduler]

SEEDS: Final = 4
COPIES_MAX: Final = 40


class SchedulerCheckFailed(AssertionError):
    """A scheduler does not keep a promise of the interface."""


def check_scheduler(make: MakeScheduler, /) -> None:
    """Check that a scheduler keeps the promises of `khonsu.Scheduler`, on made fleets of many kinds.

    It has a name; gives each node a number; is pure, and changes nothing of what it is given; places no more than fits,
    only where it may; gives each copy to the best node, the lowest rank among equals (unless it has a `place` of its
    own); and if it says that it is `independent`, then a node's score depends on that node only.

    Args:
        make: Makes the scheduler.

    Raises:
        SchedulerCheckFailed: It does not; says which promise.
        PluginError: An answer has not the form that it must have.
        Exception: What the scheduler raised, with a note that names the case.

    """
    _expect("it has a name", bool(make().name))
    for case in _cases():
        with _named(case):
            _check_independence(make(), case)
    for case in _cases():
        with _named(case):
            _check_untouched(make(), case)
            _check_place(make, case)
            _check_order(make(), case)
            _check_plan(make, case)


@frozen
class _Case:
    name: str
    state: FleetState
    ask: Ask

    @property
    def fleet(self) -> Fleet:
        return self.state.snapshot(REVISION, job=self.ask.job_key)

    def expect(self, promise: str, holds: object) -> None:
        _expect(f"{promise} ({self.name})", bool(holds))


@contextmanager
def _named(case: _Case) -> Iterator[None]:
    """Name the case in what a scheduler raises."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, SchedulerCheckFailed):
            error.add_note(f"while it was checked with this case: {case.name}")
        raise


def _expect(promise: str, holds: bool) -> None:  # noqa: FBT001 - the one thing it is about
    if not holds:
        raise SchedulerCheckFailed(f"not so: {promise}")


def _cases() -> Iterator[_Case]:
    yield _Case("no nodes", FleetState(), ask())
    yield _Case("one node", fleet_state(1, 3), ask(cpu=0.5))
    kinds: Mapping[str, Callable[[], Ask]] = {
        "plain": lambda: ask(cpu=0.5, count=COPIES_MAX),
        "more than fits": lambda: ask(cpu=1.5, count=COPIES_MAX, memory="1GiB"),
        "constraints": lambda: ask(count=10, constraints=["os = linux", "label.disk = ssd"]),
        "at most two per node": lambda: ask(cpu=0.1, count=COPIES_MAX, max_per_node=2),
        "static port": lambda: ask(cpu=0.1, count=10, ports={"http": 8080}),
        "distinct racks": lambda: ask(cpu=0.1, count=10, constraints=["label.rack distinct"]),
        "affinity": lambda: ask(count=10, affinities=[Affinity(Constraint("label.rack", "=", "rack-1"))]),
        "spread": lambda: ask(cpu=0.1, count=COPIES_MAX, spreads=[Spread("label.rack")]),
        "failed before": lambda: ask(count=1, avoid=[NodeId("node-1"), NodeId("node-2")]),
        "nowhere": lambda: ask(cpu=1000),
    }
    for name, kind in kinds.items():
        for seed in range(SEEDS):
            yield _Case(f"{name}, seed {seed}", fleet_state(16, seed), kind())


def _check_untouched(scheduler: Scheduler, case: _Case) -> None:
    """Compare what a scheduler is given with what it leaves."""
    fleet, wanted = case.fleet, case.ask
    before, resources = _columns(fleet), dict(wanted.resources)
    scheduler.picks(wanted, fleet)
    after = _columns(fleet)
    changed = [name for name, column in before.items() if not np.array_equal(column, after[name])]
    case.expect(f"the fleet stays as it was, also its {', '.join(changed)}", not changed)
    case.expect("the ask stays as it was", resources == wanted.resources)


def _columns(fleet: Fleet) -> dict[str, IntArray]:
    """Return a copy of what a fleet says of its nodes."""
    columns = {f"total {name}": column for name, column in fleet.total.items()}
    columns |= {f"used {name}": column for name, column in fleet.used.items()}
    columns |= {"ready": fleet.ready.astype(np.int64), "rank": fleet.rank}
    return {name: column.copy() for name, column in columns.items()}


def _check_place(make: MakeScheduler, case: _Case) -> None:
    scheduler = make()
    rows = scheduler.picks(case.ask, case.fleet).rows
    case.expect("it gives a row for each copy", len(rows) == case.ask.count)
    chosen = rows[rows >= 0]
    possible = feasible(case.ask, case.fleet)
    fits = possible.fits
    for row in chosen[fits[chosen] == 0][:1].tolist():
        where, why = case.fleet.names[row], ", ".join(possible.reasons(row))
        case.expect(f"no copy is where it may not be, such as on {where} in spite of {why}", holds=False)
    case.expect("no node gets more copies than fit", (np.bincount(chosen, minlength=len(fits)) <= fits).all())
    for block in distinct_blocks(case.ask, case.fleet):
        case.expect("no two copies share a distinct value", len(np.unique(block.codes[chosen])) == len(chosen))
    for reason, keep in scheduler.filters(case.ask, case.fleet).items():
        first = chosen[:1]  # a copy may change what a filter says of its node
        case.expect(f"no copy is where the filter {reason!r} forbids", keep[first].all())
    case.expect("it is pure: once more gives the same", (scheduler.picks(case.ask, case.fleet).rows == rows).all())
    other = make()
    other.reset(0)
    scheduler.reset(0)
    same = (scheduler.picks(case.ask, case.fleet).rows == other.picks(case.ask, case.fleet).rows).all()
    case.expect("after the same reset two of a kind do the same", same)


def _check_order(scheduler: Scheduler, case: _Case) -> None:
    """Compare with what one copy after the other gives, by the scheduler's own score."""
    if type(scheduler).place is not Scheduler.place:
        return

    def score(fleet: Fleet) -> FloatArray:
        total = total_of(scheduler.terms(case.ask, fleet), fleet)
        for keep in scheduler.filters(case.ask, fleet).values():
            total = np.where(keep, total, -np.inf)
        return total

    fleet = case.fleet
    fits = feasible(case.ask, fleet).fits
    naive = one_by_one(case.ask, fleet, Judge(scheduler.name, score), fits, distinct_blocks(case.ask, fleet))
    rows = scheduler.picks(case.ask, fleet).rows
    case.expect("each copy is on the best node, the lowest rank among equals", (naive.rows == rows).all())


def _check_independence(scheduler: Scheduler, case: _Case) -> None:
    """Compare the score of each node by itself with that in the whole fleet, and with more copies elsewhere."""
    fleet = case.fleet
    if not scheduler.independent or len(fleet) < 2:
        return
    whole = total_of(scheduler.own_terms(case.ask, fleet), fleet)
    parts = [fleet[row : row + 1] for row in range(len(fleet))]
    alone = np.concatenate([total_of(scheduler.own_terms(case.ask, part), part) for part in parts])
    case.expect("a score does not depend on which other nodes there are", _same(whole, alone))
    chosen = np.arange(len(fleet)) % 2 == 0
    crowded = fleet.after(case.ask, np.where(chosen, 0, 1))
    beside = total_of(scheduler.own_terms(case.ask, crowded), crowded)
    case.expect("a score does not depend on what other nodes hold", _same(whole[chosen], beside[chosen]))


def _same(left: FloatArray, right: FloatArray) -> bool:
    return bool(np.array_equal(left, right, equal_nan=True))


def _check_plan(make: MakeScheduler, case: _Case) -> None:
    record = JobRecord(
        key=case.ask.job_key,
        namespace=case.ask.job.namespace,
        name=case.ask.job.name,
        type=case.ask.job.type,
        version=1,
        created_at=Time(0.0),
        submitted_at=Time(0.0),
    )
    places = tuple(Place(group="main", slot=slot, avoid=case.ask.avoid) for slot in case.ask.slots)
    changes = Changes(version=1, place=places, status=JobStatus.PENDING)
    evaluation = Evaluation(
        id=EvaluationId("check"), job=record.key, priority=50, trigger="submit", created_at=Time(0.0)
    )
    snapshot = Snapshot(
        revision=REVISION, job=record, specs={1: case.ask.job}, allocations=(), nodes=case.state.nodes, fleet=case.fleet
    )
    scheduler = make()
    plan = scheduler.schedule(evaluation, snapshot, changes)
    check_plan(plan, changes, len(case.state), case.ask.job)
    case.expect("its plan can be committed whole", verify(plan, case.state, case.ask.job).accepted.all())
    placed = len(plan.placements) + sum(failure.wanted - failure.placed for failure in plan.unplaced)
    case.expect("it accounts for every copy", placed == case.ask.count)
    again = make().schedule(evaluation, snapshot, changes)
    case.expect("the same snapshot gives the same plan", _places(plan) == _places(again))
    scheduler.observe(Outcome(evaluation=evaluation.id, revision=REVISION, accepted=len(plan.placements)))


def _places(plan: Plan) -> list[list[int]]:
    columns = plan.placements
    return [columns.group.tolist(), columns.slot.tolist(), columns.node.tolist()]
