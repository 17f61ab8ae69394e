"""Slots: the copies of a group by the place that each of them fills, as `reconcile` looks at them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import count
from typing import TypeVar

from attrs import field, fields, frozen

from khonsu.core.drain import Leave, leave
from khonsu.core.ids import NodeId
from khonsu.core.job import Group, Job
from khonsu.core.leases import EXCLUSIVE_KILL_SECONDS_MAX, Silence
from khonsu.core.records import Allocation, JobRecord, Node
from khonsu.core.states import AllocationStatus, Desired, NodeStatus

K = TypeVar("K", bound=Hashable)

IN_PLACE = frozenset({"count", "gang", "update", "reschedule", "disconnect", "affinities", "spreads"})
"""The fields of a group that only the control plane acts on: a change of these replaces no copy."""

_WORK = tuple(attribute.name for attribute in fields(Group) if attribute.name not in IN_PLACE)


def same_work(before: Job, after: Job, name: str) -> bool:
    """Return whether a group's copies of one version may run on as copies of another."""
    old, new = before.group(name), after.group(name)
    if old is None or new is None:
        return False
    return (
        (before.type, before.pool, before.meta, before.constraints)
        == (after.type, after.pool, after.meta, after.constraints)
        and all(getattr(old, part) == getattr(new, part) for part in _WORK)
        # The agent acts on this one by itself.
        and old.disconnect.stop_after_seconds == new.disconnect.stop_after_seconds
    )


def everywhere(job: Job, group: Group, node: Node) -> bool:
    """Return that every node suits: what is assumed where nobody says better."""
    del job, group, node
    return True


@frozen(kw_only=True)
class Look:
    """One look at a job: everything that the decisions depend on."""

    record: JobRecord
    spec: Job
    specs: Mapping[int, Job]
    nodes: Mapping[NodeId, Node]
    now: float
    silence: Silence = field(factory=Silence)
    origin: str = "submit"
    no_room: AbstractSet[tuple[str, int]] = frozenset()
    paused: bool = False
    emptied: AbstractSet[NodeId] = frozenset()
    suits: Callable[[Job, Group, Node], bool] = everywhere

    @property
    def keeps_running(self) -> bool:
        """Return whether copies are meant to run for ever."""
        return self.spec.type.keeps_running

    def silent(self, allocation: Allocation) -> bool:
        """Return whether nobody can say what a copy does: its node is down.

        An unknown copy on a node that is ready is another matter: its agent is about to speak of it.
        """
        return (
            allocation.status is AllocationStatus.UNKNOWN and self.nodes[allocation.node_id].status is NodeStatus.DOWN
        )

    def up(self, allocation: Allocation) -> bool:
        """Return whether a copy does its work: it is healthy, or runs where health is not asked for."""
        return allocation.status is AllocationStatus.RUNNING and (allocation.health is True or not self.keeps_running)

    def leave(self, allocation: Allocation) -> Leave:
        """Return what a copy does on its node."""
        return leave(self.spec.type, self.nodes[allocation.node_id], self.emptied, self.now)

    def away_seconds(self, allocation: Allocation) -> float:
        """Return how long the node of a silent copy is known to be without a lease."""
        node = self.nodes[allocation.node_id]
        return self.silence.away_seconds(node.id, self.now - node.status_at)

    def exclusive_wait_seconds(self, allocation: Allocation) -> float:
        """Return for how long a copy that we lost sight of may still run; 0 or less once it cannot."""
        node = self.nodes.get(allocation.node_id)
        marked_at = allocation.changed_at if node is None else node.status_at
        return self.silence.exclusive_wait_seconds(
            allocation.node_id, self.kill_timeout_seconds(allocation), self.now - marked_at
        )

    def kill_timeout_seconds(self, allocation: Allocation) -> float:
        """Return how long stopping a copy may take, by its own version."""
        spec = self.specs.get(allocation.version)
        group = spec.group(allocation.group) if spec else None
        return group.kill_timeout_seconds if group else EXCLUSIVE_KILL_SECONDS_MAX


@frozen(kw_only=True)
class Slot:
    """One place for a copy, and what has been in it.

    Args:
        index: Its number.
        node: The only node that will do; None for a slot that may be anywhere.
        wanted: Whether a copy may be placed in it.
        surplus: Why no copy may run in it, or an empty text.
        live: The live copies that are to run, the oldest first.
        ending: The live ones that are to stop.
        ended: The ended ones of this run that did the present work, the latest first.
        past: All ended ones, of other work and other runs too, the latest first.

    """

    index: int
    node: NodeId | None = None
    wanted: bool = True
    surplus: str = ""
    live: tuple[Allocation, ...] = ()
    ending: tuple[Allocation, ...] = ()
    ended: tuple[Allocation, ...] = ()
    past: tuple[Allocation, ...] = ()

    @property
    def history(self) -> bool:
        """Return whether there ever was a copy."""
        return bool(self.live or self.ending or self.past)

    @property
    def complete(self) -> bool:
        """Return whether a copy has done its work in full."""
        return any(one.status is AllocationStatus.COMPLETE for one in self.ended)


@frozen(kw_only=True)
class View:
    """A group as a look at its job sees it."""

    look: Look
    group: Group
    fresh_versions: frozenset[int]
    """The versions whose copies do the present work."""

    @property
    def starts_first(self) -> bool:
        """Return whether a new copy may run beside the old one."""
        return self.group.starts_first(self.look.spec.type)

    def fresh(self, allocation: Allocation) -> bool:
        """Return whether a copy does the work that is wanted now."""
        return allocation.version in self.fresh_versions

    def blank(self, allocations: Iterable[Allocation]) -> Sequence[int]:
        """Return the slots that never had a copy; none of a job on every node, where no two slots are alike."""
        if self.look.spec.type.everywhere:
            return ()
        used = {one.slot for one in allocations}
        return [number for number in range(self.group.count) if number not in used]

    def slots(self, allocations: Sequence[Allocation], blank: Iterable[int] = ()) -> list[Slot]:
        """Return the slots of the group but the blank ones, by number; `allocations` are those of the group."""
        if self.look.spec.type.everywhere:
            return self._slots_by_node(allocations)
        buckets = _bucket(allocations, lambda one: one.slot)
        numbers = sorted(set(range(self.group.count)).difference(blank) | buckets.keys())
        return [
            self._slot(number, buckets.get(number, ()), surplus="" if number < self.group.count else "scaled down")
            for number in numbers
        ]

    def _slots_by_node(self, allocations: Sequence[Allocation]) -> list[Slot]:
        """Return one slot per node, numbered so that a node keeps its number."""
        look, buckets = self.look, _bucket(allocations, lambda one: one.node_id)
        suiting = {node.id for node in look.nodes.values() if self._suits(node)}
        wanted = {key for key in suiting if look.nodes[key].schedulable and self.group.count}
        numbers = _number_nodes(buckets, (node.id for node in _by_age(look.nodes.values()) if node.id in wanted))
        slots = []
        for key, number in sorted(numbers.items(), key=lambda item: item[1]):
            copies = buckets.get(key, ())
            surplus = "" if self.group.count else "scaled down"
            if not surplus and key not in suiting and any(not self.fresh(one) for one in copies if one.live):
                surplus = "not wanted on this node any more"
            slots.append(self._slot(number, copies, surplus=surplus, node=key, wanted=key in wanted))
        return slots

    def _suits(self, node: Node) -> bool:
        spec = self.look.spec
        return node.pool == spec.pool and self.look.suits(spec, self.group, node)

    def _slot(
        self, index: int, copies: Sequence[Allocation], *, surplus: str, node: NodeId | None = None, wanted: bool = True
    ) -> Slot:
        run = self.look.record.run
        live = [one for one in copies if one.live]
        past = [one for one in reversed(copies) if not one.live]
        runs = [one.desired is Desired.RUN and one.run == run for one in live]
        return Slot(
            index=index,
            node=node,
            wanted=wanted and not surplus,
            surplus=surplus,
            live=tuple(one for one, keep in zip(live, runs, strict=True) if keep),
            ending=tuple(one for one, keep in zip(live, runs, strict=True) if not keep),
            # Within one run the work of a batch job does not change, whatever its version is called.
            ended=tuple(one for one in past if one.run == run and (self.fresh(one) or not self.look.keeps_running)),
            past=tuple(past),
        )


def age(allocation: Allocation) -> tuple[int, float, str]:
    """Return a key that sorts the copies of a slot by their age, the oldest first."""
    return (allocation.generation, allocation.created_at, allocation.id)


def _by_age(nodes: Iterable[Node]) -> list[Node]:
    return sorted(nodes, key=lambda node: (node.joined_at, node.id))


def _bucket(allocations: Iterable[Allocation], key: Callable[[Allocation], K]) -> dict[K, list[Allocation]]:
    buckets: defaultdict[K, list[Allocation]] = defaultdict(list)
    for allocation in allocations:
        buckets[key(allocation)].append(allocation)
    return {name: sorted(copies, key=age) for name, copies in buckets.items()}


def _number_nodes(buckets: Mapping[NodeId, Sequence[Allocation]], wanted: Iterable[NodeId]) -> dict[NodeId, int]:
    """Return the number of each node's slot: that of its copies where it has any, else the least that is free."""
    numbers: dict[NodeId, int] = {}
    taken: set[int] = set()
    ordered = sorted(
        buckets, key=lambda key: (not any(one.live for one in buckets[key]), -buckets[key][-1].generation, key)
    )
    for key in ordered:
        number = next((one.slot for one in reversed(buckets[key]) if one.live), buckets[key][-1].slot)
        if number not in taken or any(one.live for one in buckets[key]):
            numbers[key] = number
            taken.add(number)
    free = (number for number in count() if number not in taken)
    for key in wanted:
        if key not in numbers:
            numbers[key] = next(free)
    return numbers
