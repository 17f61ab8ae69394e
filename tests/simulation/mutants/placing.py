"""Bugs of plans, of the status of copies, and of who stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve

from khonsu.control import sync
from khonsu.control.allocations import Allocations
from khonsu.control.broker import Broker
from khonsu.control.looks import Scene
from khonsu.control.planner import Planner
from khonsu.control.sync import Sync
from khonsu.control.unblocker import Unblocker
from khonsu.core import reports, survivors, verify
from khonsu.core.fleet import TakenPorts
from khonsu.core.fleet_state import FleetState
from tests.simulation.mutants.planting import Mutant, Patch, always, mutant, pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from khonsu.control.batch import Batch
    from khonsu.core.arrays import BoolArray, IntArray
    from khonsu.core.changes import Stop
    from khonsu.core.fleet import Fleet
    from khonsu.core.job import Group, Job
    from khonsu.core.protocol import AllocationReport, SyncRequest
    from khonsu.core.records import Allocation, Node, Time
    from khonsu.core.slots import View


@mutant
def plans_are_not_checked() -> Iterator[Patch]:
    """A plan is carried out whether its nodes still have room or not."""
    check = verify._GroupCheck.__init__

    def all_of_it(self: Any, job: Job, group: Group, fleet: Fleet, rows: IntArray) -> None:
        check(self, job, group, fleet, rows)
        self.keep = rows >= 0

    yield verify._GroupCheck, "__init__", all_of_it


@mutant
def ports_are_given_twice() -> Iterator[Patch]:
    """A port is given that somebody has."""

    def free(self: TakenPorts, port: int, rows: int, chosen: IntArray | None) -> BoolArray:
        return np.zeros(rows if chosen is None else len(chosen), np.bool_)

    yield FleetState, "taken", always(False)
    yield TakenPorts, "on", free


@mutant
def plans_of_the_past_count() -> Iterator[Patch]:
    """A plan is carried out although the job has changed since."""
    yield Scene, "holds", lambda _, record: record is not None


@mutant
def two_looks_at_once() -> Iterator[Patch]:
    """Two workers look at one job at the same time."""
    take = Broker.take

    async def forgetful(self: Broker) -> Any:
        evaluation = await take(self)
        self._in_flight.pop(evaluation.job, None)
        return evaluation

    yield Broker, "take", forgetful


@mutant
def silent_copies_take_no_room() -> Iterator[Patch]:
    """What a copy takes is given to others while its node is silent."""
    from khonsu.control.columns import Columns
    from khonsu.core.states import AllocationStatus

    follow = Columns.follow

    def generous(self: Columns, moves: Any) -> None:
        follow(self, moves)
        for before, after in moves:
            if getattr(after, "status", None) is AllocationStatus.UNKNOWN and before is not None and before.live:
                self.fleet.release(after, self.demand(after))

    yield Columns, "follow", generous


@mutant
def status_goes_back() -> Iterator[Patch]:
    """A report is believed that comes late."""
    apply = reports.apply_report

    def believe(allocation: Allocation, report: AllocationReport, now: Time) -> Allocation | None:
        after = apply(allocation, report, now)
        if after is None and report.status is not allocation.status:
            return evolve(allocation, status=report.status, changed_at=now)
        return after

    yield sync, "apply_report", believe


@mutant
def an_end_is_not_final() -> Iterator[Patch]:
    """A copy that was given up runs again when its node says so."""
    apply = reports.apply_report

    def revive(allocation: Allocation, report: AllocationReport, now: Time) -> Allocation | None:
        if allocation.status.terminal and not report.status.terminal:
            return evolve(allocation, status=report.status, changed_at=now)
        return apply(allocation, report, now)

    yield sync, "apply_report", revive


@mutant
def generations_do_not_grow() -> Iterator[Patch]:
    """A new copy of a slot has the fencing token of the last one."""
    placed = Planner._placed

    def same(self: Planner, batch: Batch, *args: Any) -> Any:
        made = placed(self, batch, *args)
        return evolve(made, same={**made.same, "generation": 1})

    yield Planner, "_placed", same


@mutant
def both_copies_stay() -> Iterator[Patch]:
    """When a node returns, its copies run on beside those that replaced them."""
    stops = survivors._stops

    def lenient(copies: Iterable[Allocation], reason: str) -> tuple[Stop, ...]:
        return () if reason == "one copy too many" else stops(copies, reason)

    yield survivors, "_stops", lenient


@mutant
def none_of_both_stays() -> Iterator[Patch]:
    """When a node returns, all copies of the slot stop."""

    def nobody(view: View, copies: Any) -> Allocation | None:
        return copies[0] if len(copies) == 1 else None

    yield survivors, "_choose", nobody


@mutant
def nobody_is_woken() -> Iterator[Patch]:
    """A job that has no room is not looked at when there is some."""

    async def sleep(self: Unblocker) -> None:
        self._freed, self._changed, self._again = set(), set(), set()

    yield Unblocker, "_wake", sleep


@mutant
def two_minds_of_what_fits() -> Iterator[Patch]:
    """The planner refuses what schedulers think possible: every second node."""
    check = verify._GroupCheck.__init__

    def picky(self: Any, job: Job, group: Group, fleet: Fleet, rows: IntArray) -> None:
        check(self, job, group, fleet, rows)
        odd = np.array([name.endswith(("1", "3")) for name in fleet.names] + [True], np.bool_)
        self.keep = self.keep & odd[rows]

    yield verify._GroupCheck, "__init__", picky


@mutant
def a_late_first_request_counts() -> Iterator[Patch]:
    """A first request that comes late has all be lost that was begun since (it was so once)."""
    take = Sync._take

    def naive(self: Sync, batch: Batch, node: Node, request: SyncRequest, *, first: bool) -> None:
        take(self, batch, node, request, first=request.seen is None)

    yield Sync, "_take", naive


@mutant
def who_returns_is_not_asked() -> Iterator[Patch]:
    """A node that was silent is not asked what runs there (it was so once)."""
    yield Allocations, "unknown", always(False)


@mutant
def agents_are_asked_without_a_pause() -> Iterator[Patch]:
    """While something is unknown an agent is asked with every answer to tell of all it has (it was so once)."""

    def asks(self: Sync, node: Node, *_: object) -> bool:
        return self._state.tables.allocations.unknown(node.id)

    yield Sync, "_asks", asks


@mutant
def what_is_missing_is_not_missed() -> Iterator[Patch]:
    """An agent that starts tells what it has, and nobody asks for the rest."""
    take = Sync._take

    def blind(self: Sync, batch: Batch, node: Node, request: SyncRequest, *, first: bool) -> None:
        take(self, batch, node, request, first=False)

    yield Sync, "_take", blind


@mutant
def orphans_run_on() -> Iterator[Patch]:
    """What was given up, and runs all the same, is not told to stop."""
    yield Sync, "_orphans", always(())


MUTANTS: tuple[Mutant, ...] = (
    plans_are_not_checked,
    ports_are_given_twice,
    plans_of_the_past_count,
    two_looks_at_once,
    pair(two_looks_at_once, plans_of_the_past_count, "Two workers look at one job, and both plans are carried out."),
    silent_copies_take_no_room,
    status_goes_back,
    an_end_is_not_final,
    generations_do_not_grow,
    both_copies_stay,
    none_of_both_stays,
    nobody_is_woken,
    two_minds_of_what_fits,
    a_late_first_request_counts,
    who_returns_is_not_asked,
    agents_are_asked_without_a_pause,
    what_is_missing_is_not_missed,
    orphans_run_on,
)
