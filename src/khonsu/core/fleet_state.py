"""The fleet as the control plane keeps it: columns that every record moves on, never built anew for an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from khonsu.core.arrays import Columns, IntArray, read_only
from khonsu.core.ask import AMOUNT_MAX, PORTS
from khonsu.core.fleet import RESOURCES, Fleet, TakenPorts
from khonsu.core.ids import NodeId
from khonsu.core.nodes import NodeTable, registration, state_code
from khonsu.core.records import Allocation, Node
from khonsu.core.revision import Revision
from khonsu.errors import ensure

PORT_MIN = 20_000
PORT_MAX = 31_999
"""The range out of which dynamic ports are given."""


class FleetState:
    """Nodes and what is used of them. Not for use by several threads at once; its snapshots are.

    A node keeps its row until a node is removed: the last row then moves into the hole.
    """

    def __init__(self, *, seed: int = 0, port_min: int = PORT_MIN, port_max: int = PORT_MAX) -> None:
        """Begin without nodes; the seed decides the order of nodes that are equally good."""
        self.seed = seed
        self.port_min = port_min
        self.port_max = port_max
        self._nodes: list[Node] = []
        self._rows: dict[NodeId, int] = {}
        self._order = np.zeros(16, np.uint64)
        self._table: NodeTable | None = None
        self._changed: set[int] = set()
        self._moved = True
        self._states = np.zeros(16, np.int8)
        self._total = {name: np.zeros(16, np.int64) for name in RESOURCES}
        self._used = {name: np.zeros(16, np.int64) for name in RESOURCES}
        self._copies: dict[str, dict[str, dict[int, int]]] = {}  # by job, group and row
        self._ports: dict[int, int] = {}
        self._ports_shared = False
        self._by_id: dict[NodeId, Node] = {}
        self._by_id_shared = False

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self._nodes)

    # ----------------------------------------------------------------------------------------------------- nodes

    def put_node(self, node: Node) -> None:
        """Add a node, or take over what has changed of one."""
        if self._by_id_shared:
            self._by_id, self._by_id_shared = dict(self._by_id), False
        self._by_id[node.id] = node
        row = self._rows.get(node.id)
        if row is None:
            row = self._rows[node.id] = len(self._nodes)
            self._nodes.append(node)
            self._grow(row + 1)
            digest = blake2b(f"{self.seed}/{node.id}".encode(), digest_size=8).digest()
            self._order[row] = int.from_bytes(digest, "little")
            self._changed.add(row)
        elif registration(self._nodes[row]) != registration(node):
            self._changed.add(row)
        self._nodes[row] = node
        self._states[row] = state_code(node)
        for name, amount in self._resources(node).items():
            self._total[name][row] = min(max(amount, 0), AMOUNT_MAX)

    def remove_node(self, node: NodeId) -> None:
        """Forget a node and all that is used of it; unknown ones are ignored."""
        row = self._rows.pop(node, None)
        if row is None:
            return
        if self._by_id_shared:
            self._by_id, self._by_id_shared = dict(self._by_id), False
        del self._by_id[node]
        last = len(self._nodes) - 1
        moved = self._nodes.pop()
        if row != last:
            self._nodes[row] = moved
            self._rows[moved.id] = row
        self._states[row] = self._states[last]
        self._order[row] = self._order[last]
        for column in (*self._total.values(), *self._used.values()):
            column[row], column[last] = column[last], 0
        for copies in [copies for groups in self._copies.values() for copies in groups.values()]:
            copies.pop(row, None)
            if last in copies:
                copies[row] = copies.pop(last)
        self._move_ports(row, last)
        self._moved = True

    @property
    def nodes(self) -> Mapping[NodeId, Node]:
        """Return the nodes by id, as they are now: a later change does not show."""
        self._by_id_shared = True
        return self._by_id

    def row(self, node: NodeId) -> int:
        """Return the row of a node, -1 if it is unknown."""
        return self._rows.get(node, -1)

    def rows(self, nodes: Iterable[NodeId]) -> IntArray:
        """Return the row of each node, -1 where it is unknown."""
        return np.array([self._rows.get(node, -1) for node in nodes], np.int64)

    # ------------------------------------------------------------------------------------------------------- use

    def add(self, allocation: Allocation, demand: Mapping[str, int]) -> None:
        """Count a live allocation against its node.

        Args:
            allocation: It is added once, when it is made or read from the store, however its status changes.
            demand: What it takes (`Group.demand`, of its own version); its ports are read from the allocation.

        """
        self._count(allocation, demand, 1)

    def release(self, allocation: Allocation, demand: Mapping[str, int]) -> None:
        """Give back what an allocation took; called once, when it ends. A node that is gone took it along."""
        self._count(allocation, demand, -1)

    def add_many(
        self, job: str, group: str, rows: IntArray, demand: Mapping[str, int], ports: Sequence[tuple[int, ...]] = ()
    ) -> None:
        """Count new copies of one group, as `add` would one by one.

        Args:
            job: The key of the job.
            group: The name of the group.
            rows: The row of each copy.
            demand: What one copy takes.
            ports: The host ports of each copy, or nothing where the group has none.

        """
        if not len(rows):
            return
        places, counts = np.unique(rows, return_counts=True)
        for name, amount in demand.items():
            if name != PORTS:
                self._used[name][places] += amount * counts
        copies = self._copies.setdefault(job, {}).setdefault(group, {})
        for row, count in zip(places.tolist(), counts.tolist(), strict=True):
            copies[row] = copies.get(row, 0) + count
        for row, taken in zip(rows.tolist() if ports else (), ports, strict=True):
            self._take_ports(row, taken, 1)

    def taken(self, row: int, port: int) -> bool:
        """Return whether a node has a port taken."""
        return bool(self._ports.get(port, 0) >> row & 1)

    def snapshot(self, revision: Revision, *, job: str | None = None) -> Fleet:
        """Return the fleet as it is now, which never changes; with the copies of one job, by its key."""
        count = len(self._nodes)
        used = {name: read_only(column[:count].copy()) for name, column in self._used.items()}
        groups = self._copies.get(job, {}) if job is not None else {}
        self._ports_shared = True
        return Fleet(
            revision=revision,
            table=self._current_table(),
            states=read_only(self._states[:count].copy()),
            used=Columns(RESOURCES, used.__getitem__, used),
            hosts={(job, group): dict(by_row) for group, by_row in groups.items()} if job is not None else {},
            ports=TakenPorts(by_port=self._ports),
            seed=self.seed,
        )

    # --------------------------------------------------------------------------------------------------- helpers

    def _count(self, allocation: Allocation, demand: Mapping[str, int], sign: int) -> None:
        row = self._rows.get(allocation.node_id)
        if row is None:
            ensure(sign < 0, f"allocation {allocation.id} is on a node that is known: {allocation.node_id}")
            return
        for name, amount in demand.items():
            if name != PORTS:
                self._used[name][row] += sign * amount
        groups = self._copies.setdefault(allocation.job_key, {})
        copies = groups.setdefault(allocation.group, {})
        left = copies.get(row, 0) + sign
        ensure(left >= 0, f"allocation {allocation.id} is counted before it is released")
        if left:
            copies[row] = left
        else:
            del copies[row]
            if not copies:
                del groups[allocation.group]
            if not groups:
                del self._copies[allocation.job_key]
        if allocation.ports:
            self._take_ports(row, [port.host for port in allocation.ports], sign)

    def _take_ports(self, row: int, ports: Iterable[int], sign: int) -> None:
        if self._ports_shared:
            self._ports, self._ports_shared = dict(self._ports), False
        for port in ports:
            taken = self._ports.get(port, 0)
            left = taken | 1 << row if sign > 0 else taken & ~(1 << row)
            if left == taken:
                continue
            if self.port_min <= port <= self.port_max:
                self._used[PORTS][row] += sign
            if left:
                self._ports[port] = left
            else:
                del self._ports[port]

    def _move_ports(self, row: int, last: int) -> None:
        """Clear the bit of a row in every port, and move that of the last row there."""
        self._ports_shared = False
        keep = ~(1 << row | 1 << last)
        moved = {}
        for port, taken in self._ports.items():
            left = taken & keep | (taken >> last & 1) << row if row != last else taken & keep
            if left:
                moved[port] = left
        self._ports = moved

    def _grow(self, rows: int) -> None:
        room = len(self._states)
        if rows > room:
            self._states = np.append(self._states, np.zeros(room, np.int8))
            self._order = np.append(self._order, np.zeros(room, np.uint64))
            self._total = {name: np.append(column, np.zeros(room, np.int64)) for name, column in self._total.items()}
            self._used = {name: np.append(column, np.zeros(room, np.int64)) for name, column in self._used.items()}

    def _resources(self, node: Node) -> dict[str, int]:
        found = node.resources
        ports = self.port_max - self.port_min + 1
        return {"cpu": found.cpu_millis, "memory": found.memory_bytes, "disk": found.disk_bytes, PORTS: ports}

    def _current_table(self) -> NodeTable:
        """Return the table of nodes, made anew only if a node changed in more than its state."""
        if self._table is None or self._changed or self._moved:
            kept = self._table is not None and not self._moved
            if self._table is not None and kept and len(self._table) == len(self._nodes):
                rank = self._table.rank
            else:
                order = np.argsort(self._order[: len(self._nodes)], kind="stable")
                rank = np.empty(len(order), np.int32)
                rank[order] = np.arange(len(order), dtype=np.int32)
            self._table = NodeTable(
                tuple(self._nodes),
                rank,
                {name: column[: len(self._nodes)].copy() for name, column in self._total.items()},
                earlier=self._table if kept else None,
                changed=tuple(self._changed),
            )
            self._changed.clear()
            self._moved = False
        return self._table
