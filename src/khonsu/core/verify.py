"""Checking a plan against the present: what of it still fits is accepted, first come first served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from zlib import crc32

import numpy as np
from attrs import frozen

from khonsu.core.arrays import BoolArray, IntArray, occurrence
from khonsu.core.ask import demand, make_ask
from khonsu.core.changes import Changes, Place
from khonsu.core.feasible import distinct_attributes, feasible
from khonsu.core.fleet import Fleet
from khonsu.core.fleet_state import FleetState
from khonsu.core.job import Group, Job
from khonsu.core.plan import Conflict, Plan
from khonsu.core.records import PortAssignment, job_key
from khonsu.core.terms import distinct_blocks
from khonsu.errors import PluginError

GONE = "gone"
"""The reason for nodes that are no longer there."""


@frozen(kw_only=True, eq=False)
class Verdict:
    """What of a plan can be committed now.

    Args:
        accepted: Which placements, in the order of the plan.
        rows: The row of each placement's node in the live fleet, -1 where it is gone.
        ports: The ports of each placement, nothing for those not accepted; empty if no group has ports.
        conflicts: Why the others cannot be.

    """

    accepted: BoolArray
    rows: IntArray
    ports: tuple[tuple[PortAssignment, ...], ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    @property
    def rejected(self) -> int:
        """Return how many placements cannot be committed."""
        return len(self.accepted) - int(np.count_nonzero(self.accepted))


def verify(plan: Plan, live: FleetState, job: Job, *, wanted: Iterable[Place] = ()) -> Verdict:
    """Check a plan against the fleet as it is now, with the feasibility that schedulers use; changes nothing.

    Placements are taken in the order of the plan while they fit. Nothing of what the plan says but its placements is
    believed: what a copy takes comes from the spec.

    Args:
        plan: The plan, of `job`'s version.
        live: The fleet now.
        job: The spec of the version that is placed.
        wanted: The copies that are wanted: a slot that failed before is given other dynamic ports.

    """
    key = job_key(job.namespace, job.name)
    groups = {group.name: group for group in job.groups}
    fleet = live.snapshot(plan.revision, job=key)
    nodes = plan.placements.node
    rows = nodes.astype(np.int64) if plan.nodes is fleet.ids else live.rows(plan.nodes)[nodes]
    accepted = np.zeros(len(rows), np.bool_)
    conflicts: list[Conflict] = []
    giving = _Giving(live, key, _failures(wanted) if any(group.ports for group in job.groups) else {})
    parts = plan.by_group()
    for position, places in parts:
        group = groups.get(plan.groups[position])
        if group is None:
            raise PluginError(f"scheduler {plan.scheduler}: {job.name} has no group {plan.groups[position]}")
        check = _GroupCheck(job, group, fleet, rows[places])
        keep = check.keep
        if group.ports:
            for index in np.flatnonzero(keep).tolist():
                place = int(places[index])
                keep[index] = giving.give(place, group, int(plan.placements.slot[place]), int(rows[place]))
        conflicts.extend(check.conflicts(plan, places, keep))
        if group.gang and not keep.all():
            keep[:] = False
        for place in places[~keep].tolist() if group.ports else ():
            giving.take_back(place)
        accepted[places] = keep
        if keep.any() and len(parts) > 1:
            counts = np.bincount(rows[places[keep]], minlength=len(fleet))
            fleet = fleet.after(check.ask, counts).next_group(position)
    ports = tuple(giving.ports.get(place, ()) for place in range(len(rows))) if giving.ports else ()
    return Verdict(accepted=accepted, rows=rows, ports=ports, conflicts=tuple(conflicts))


def claim(plan: Plan, verdict: Verdict, live: FleetState, job: Job) -> None:
    """Count the accepted placements of a plan in the live fleet."""
    groups = {group.name: group for group in job.groups}
    for position, places in plan.by_group():
        taken = places[verdict.accepted[places]]
        group = groups[plan.groups[position]]
        if len(taken):
            ports = [tuple(port.host for port in verdict.ports[place]) for place in taken] if verdict.ports else ()
            live.add_many(job_key(job.namespace, job.name), group.name, verdict.rows[taken], demand(group), ports)


def check_plan(plan: Plan, changes: Changes, nodes: int, job: Job) -> None:
    """Check that a plan answers the changes: a scheduler may be a stranger's.

    Args:
        plan: The plan.
        changes: What was wanted.
        nodes: How many nodes the snapshot had.
        job: The spec of the version that is placed.

    Raises:
        PluginError: The plan places what nobody wants, or something twice, or on nodes that do not exist or are not
            the wanted ones, or a part of a gang, or does not say what it leaves out.

    """
    columns = (plan.placements.group, plan.placements.slot, plan.placements.node, plan.score)
    wrong = f"scheduler {plan.scheduler}: the plan"
    if len({len(column) for column in columns}) != 1:
        raise PluginError(f"{wrong} has columns of different lengths")
    if plan.version != changes.version:
        raise PluginError(f"{wrong} is for version {plan.version}, not {changes.version}")
    for name, column, limit in (("group", columns[0], len(plan.groups)), ("node", columns[2], nodes)):
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < limit:
            raise PluginError(f"{wrong} has a {name} that is not there")
    wanted = {(place.group, place.slot) for place in changes.place}
    groups = [plan.groups[group] for group in plan.placements.group.tolist()]
    placed = list(zip(groups, plan.placements.slot.tolist(), strict=True))
    if len(set(placed)) < len(placed) or not wanted.issuperset(placed):
        (group, slot), _ = max(Counter(placed).items(), key=lambda item: (item[0] not in wanted, item[1]))
        how = "more often than wanted" if (group, slot) in wanted else "which nobody wants"
        raise PluginError(f"{wrong} places slot {slot} of group {group}, {how}")
    if plan.stops != changes.stop:
        raise PluginError(f"{wrong} does not stop what is to be stopped")
    _check_nodes(plan, changes, placed)
    _check_left_out(plan, wanted, placed, {group.name for group in job.groups if group.gang})


def _check_nodes(plan: Plan, changes: Changes, placed: Sequence[tuple[str, int]]) -> None:
    """Check that copies that may be on one node only are placed there."""
    fixed = {(place.group, place.slot): place.node for place in changes.place if place.node is not None}
    if not fixed:
        return
    for (group, slot), row in zip(placed, plan.placements.node.tolist(), strict=True):
        node = fixed.get((group, slot))
        if node is not None and plan.nodes[row] != node:
            raise PluginError(
                f"scheduler {plan.scheduler}: the plan places slot {slot} of group {group} on node "
                f"{plan.nodes[row]}, where only {node} will do"
            )


def _check_left_out(
    plan: Plan, wanted: AbstractSet[tuple[str, int]], placed: Sequence[tuple[str, int]], gangs: AbstractSet[str]
) -> None:
    """Check that a plan says what it does not place, and leaves out all of a gang or nothing."""
    if len(placed) == len(wanted) and not plan.unplaced:
        return
    there = Counter(group for group, _ in placed)
    told = Counter[str]()
    for failure in plan.unplaced:
        told[failure.group] += failure.wanted - failure.placed
    asked = Counter(group for group, _ in wanted)
    for group in dict.fromkeys([*asked, *told]):
        missing = asked[group] - there[group]
        wrong = f"scheduler {plan.scheduler}: the plan places {there[group]} of {asked[group]} copies of group {group}"
        if told[group] != missing:
            raise PluginError(f"{wrong}, and says that {told[group]} have no place")
        if missing and there[group] and group in gangs:
            raise PluginError(f"{wrong}, which is a gang: all or none")


def _failures(places: Iterable[Place]) -> dict[tuple[str, int], int]:
    """Return how often slots that failed have been placed anew."""
    return {(one.group, one.slot): one.reschedules for one in places if one.reschedules}


class _GroupCheck:
    """The claims of one group on the fleet as it is now."""

    def __init__(self, job: Job, group: Group, fleet: Fleet, rows: IntArray) -> None:
        self.ask = make_ask(job, group, ())
        self.fleet = fleet
        self.rows = rows
        self.found = feasible(self.ask, fleet)
        fits = np.append(self.found.fits, 0)  # the last place is for nodes that are gone
        self.keep = occurrence(rows) < fits[rows]
        for block in distinct_blocks(self.ask, fleet):
            values = np.where(self.keep, np.append(block.codes, -1)[rows], -1 - np.arange(len(rows)))
            self.keep &= occurrence(values) == 0

    def conflicts(self, plan: Plan, places: IntArray, keep: BoolArray) -> Iterator[Conflict]:
        """Yield the claims that are not kept, by node."""
        lost, first, counts = np.unique(plan.placements.node[places[~keep]], return_index=True, return_counts=True)
        for node, row, count in zip(lost.tolist(), self.rows[~keep][first].tolist(), counts.tolist(), strict=True):
            reason = GONE if row < 0 else self._reason(row)
            yield Conflict(group=self.ask.group.name, node=plan.nodes[node], copies=count, reason=reason)

    def _reason(self, row: int) -> str:
        """Return what refuses a node, or what it has the least of if it has room for some of the copies."""
        reasons = self.found.reasons(row)
        if reasons:
            return reasons[0]
        ask = self.ask
        rooms = {f"distinct {attribute}": 1 for attribute in distinct_attributes(ask)}
        rooms |= {f"port {port}": 1 for port in ask.static_ports}
        if ask.group.max_per_node is not None:
            rooms["max_per_node"] = ask.group.max_per_node - int(self.fleet.copies(ask)[row])
        rooms |= {
            name: int(self.fleet.free[name][row]) // amount for name, amount in ask.resources.items() if amount > 0
        }
        return min(rooms, key=rooms.__getitem__, default=GONE)


class _Giving:
    """Ports on their way to copies."""

    def __init__(self, live: FleetState, job: str, failures: Mapping[tuple[str, int], int]) -> None:
        self.live = live
        self.job = job
        self.failures = failures
        self.ports: dict[int, tuple[PortAssignment, ...]] = {}
        self.given: dict[int, set[int]] = {}
        self.rows: dict[int, int] = {}

    def give(self, place: int, group: Group, slot: int, row: int) -> bool:
        """Give a placement its ports, or none if one is taken."""
        given = self.given.setdefault(row, set())
        here: list[PortAssignment] = []
        for port in group.ports:
            tries = self._tries(group, slot, port.name) if port.host is None else (port.host,)
            host = next((host for host in tries if host not in given and not self.live.taken(row, host)), None)
            if host is None:
                given.difference_update(each.host for each in here)
                return False
            given.add(host)
            here.append(PortAssignment(name=port.name, host=host, task=host if port.task is None else port.task))
        self.ports[place] = tuple(here)
        self.rows[place] = row
        return True

    def take_back(self, place: int) -> None:
        """Take back the ports of a placement that is not committed after all."""
        for port in self.ports.pop(place, ()):
            self.given[self.rows[place]].discard(port.host)

    def _tries(self, group: Group, slot: int, port: str) -> Iterator[int]:
        """Yield the range of dynamic ports from a place on that the slot decides.

        So a slot tends to keep its port, and a port that was given back is not given to another slot at once. After
        a failure it is another one: a stranger on the node may hold the first.
        """
        low, size = self.live.port_min, self.live.port_max - self.live.port_min + 1
        failed = self.failures.get((group.name, slot), 0)
        start = crc32(f"{self.job}/{group.name}/{slot}/{port}{f'/{failed}' if failed else ''}".encode())
        return (low + (start + step) % size for step in range(size))
