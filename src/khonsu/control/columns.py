"""The fleet as columns, kept up to date by every batch; the only module here that loads numpy before an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from khonsu.control.placed import Placed
from khonsu.control.tables import Tables
from khonsu.core.ask import demand
from khonsu.core.fleet_state import FleetState
from khonsu.core.records import Allocation, JobVersion, Node

if TYPE_CHECKING:
    from khonsu.control.state import Moves


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
        return self._demand(allocation.job_key, allocation.version, allocation.group)

    def _demand(self, job: str, version: int, group: str) -> Mapping[str, int]:
        key = (job, version, group)
        known = self._demands.get(key)
        if known is None:
            if len(self._demands) > 10_000:
                self._demands.clear()
            known = self._demands[key] = demand(self._tables.group_named(job, version, group))
        return known

    def place(self, placed: Placed) -> None:
        """Count new allocations."""
        rows = self.fleet.rows(placed.node_ids)
        ports = placed.each.get("ports", ())
        of_group: defaultdict[str, list[int]] = defaultdict(list)
        for place, group in enumerate(placed.groups):
            of_group[group].append(place)
        for group, places in of_group.items():
            taken = [tuple(port.host for port in ports[place]) for place in places] if ports else ()
            self.fleet.add_many(placed.job, group, rows[places], self._demand(placed.job, placed.version, group), taken)

    def follow(self, moves: Moves) -> None:
        """Take over what a batch did to the tables."""
        for before, after in moves:
            match before, after:
                case (_, Node() as node):
                    self.fleet.put_node(node)
                case (Node() as node, None):
                    self.fleet.remove_node(node.id)
                case (None, Allocation(live=True) as allocation):
                    self.fleet.add(allocation, self.demand(allocation))
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
