"""The fleet as columns, kept up to date by every batch; the only module here that loads numpy before an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from khonsu.control.tables import Tables
from khonsu.core.ask import demand
from khonsu.core.fleet_state import FleetState
from khonsu.core.records import Allocation, JobVersion, Node

if TYPE_CHECKING:
    from khonsu.control.state import Moves

BULK_MIN = 16
"""So many new copies of one group are counted together rather than one by one."""


class Columns:
    """The live allocations counted against their nodes, over the tables of a state."""

    def __init__(self, tables: Tables) -> None:
        """Build the columns from the tables."""
        self._tables = tables
        self._demands: dict[tuple[str, int, str], Mapping[str, int]] = {}
        self.fleet = FleetState()
        for node in tables.nodes.values():
            self.fleet.put_node(node)
        for allocation in tables.live_allocations():
            if allocation.node_id in tables.nodes:
                self.fleet.add(allocation, self.demand(allocation))

    def demand(self, allocation: Allocation) -> Mapping[str, int]:
        """Return what an allocation takes of its node, by the version that it is a copy of."""
        key = (allocation.job_key, allocation.version, allocation.group)
        known = self._demands.get(key)
        if known is None:
            if len(self._demands) > 10_000:
                self._demands.clear()
            known = self._demands[key] = demand(self._tables.group(allocation))
        return known

    def follow(self, moves: Moves) -> None:
        """Take over what a batch did to the tables."""
        new: defaultdict[tuple[str, int, str], list[Allocation]] = defaultdict(list)
        for before, after in moves:
            match before, after:
                case (_, Node() as node):
                    self.fleet.put_node(node)
                case (Node() as node, None):
                    self.fleet.remove_node(node.id)
                case (None, Allocation(live=True) as allocation):
                    new[allocation.job_key, allocation.version, allocation.group].append(allocation)
                case (Allocation(live=True) as was, Allocation(live=False) | None):
                    self.fleet.release(was, self.demand(was))
                case (Allocation(live=True) as was, Allocation() as allocation) if was.version != allocation.version:
                    # It runs on as a copy of a version that asks for the same.
                    self.fleet.release(was, self.demand(was))
                    self.fleet.add(allocation, self.demand(allocation))
                case (_, JobVersion(job=job, version=version)) | (JobVersion(job=job, version=version), None):
                    # A job that was purged may come again with another spec under the same number.
                    for key in [key for key in self._demands if key[:2] == (job, version)]:
                        del self._demands[key]
                case _:
                    pass
        for allocations in new.values():
            self._add(allocations)

    def _add(self, allocations: list[Allocation]) -> None:
        first = allocations[0]
        if len(allocations) < BULK_MIN:
            for allocation in allocations:
                self.fleet.add(allocation, self.demand(allocation))
            return
        self.fleet.add_many(
            first.job_key,
            first.group,
            self.fleet.rows([allocation.node_id for allocation in allocations]),
            self.demand(first),
            [tuple(port.host for port in allocation.ports) for allocation in allocations] if first.ports else (),
        )
