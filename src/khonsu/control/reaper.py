"""The reaper: marks nodes down whose lease has run out, and ends drains."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve

from khonsu.control.batch import Batch
from khonsu.control.leases import Leases
from khonsu.control.looks import Looks
from khonsu.control.nodes import Nodes
from khonsu.control.state import State
from khonsu.core.ids import NodeId
from khonsu.core.records import Node
from khonsu.core.states import Eligibility, NodeStatus
from khonsu.errors import StoreError


class Reaper:
    """Looks at the leases four times a second, and when one is about to end."""

    def __init__(self, state: State, nodes: Nodes, leases: Leases, looks: Looks) -> None:
        """Work on a state."""
        self._state = state
        self._nodes = nodes
        self._leases = leases
        self._looks = looks
        self._emptied: frozenset[NodeId] = frozenset()
        self._braking = False

    async def run(self) -> None:
        """Tick for ever; while the disk is full, what is due stays due."""
        while True:
            await self._state.env.sleep(self._leases.book.patience_seconds(self._state.env.monotonic()))
            now = self._state.env.monotonic()
            self._leases.book.expire(now)
            self._leases.book.forget(self._state.tables.nodes, now)
            try:
                await self._tick(now)
            except StoreError:
                continue

    async def _tick(self, now: float) -> None:
        gone = self._silent(now)
        draining = [self._state.tables.nodes[key] for key in self._state.tables.draining]
        if not gone and not draining and not self._braking:
            return
        batch = self._state.batch()
        for node in gone:
            self._nodes.lose_contact(batch, node)
        for node in draining:
            if node not in gone:
                self._end_drain(batch, node)
        emptied = self._looks.emptied() if draining else frozenset()
        self._look_at_last(batch, emptied - self._emptied)
        if batch.changes or batch.looks:
            await self._state.commit(batch)
        self._emptied = emptied
        await self._brake()

    def _silent(self, now: float) -> list[Node]:
        """Return the nodes that are ready in the records and have no lease any more.

        One that was never heard of has joined and not called yet: it gets a lease, so that it is missed if it never
        does.
        """
        nodes, book = self._state.tables.nodes, self._leases.book
        ready = [key for key in sorted(book.without_lease(nodes)) if nodes[key].status is NodeStatus.READY]
        for key in ready:
            if book.heard_at(key) is None:
                book.renew(key, now)
        return [nodes[key] for key in ready if key not in book]

    def _look_at_last(self, batch: Batch, emptied: Iterable[NodeId]) -> None:
        """Have the system jobs looked at whose copies are the last on a node that is drained: now they stop too."""
        for key in sorted(emptied):
            for allocation in self._state.tables.allocations_on(key):
                if allocation.live:
                    batch.evaluate(allocation.job_key, "drain")

    def _end_drain(self, batch: Batch, node: Node) -> None:
        """End the drain of a node that has nothing left to move; it gets no new work until somebody says so."""
        if node.status is NodeStatus.READY and not any(a.live for a in self._state.tables.allocations_on(node.id)):
            batch.put(evolve(node, eligibility=Eligibility.INELIGIBLE, drain_deadline_at=None, last_seen=None))
            batch.event("node-drained", node=node)

    async def _brake(self) -> None:
        """Say when the brake on mass loss is put on and released; jobs are looked at again after it."""
        braking = self._leases.mass_loss()
        if braking is self._braking:
            return
        batch = self._state.batch()
        if braking:
            batch.event(
                "replacement-paused",
                "most nodes vanished at once: their copies are not replaced until some return or are removed",
            )
        else:
            batch.event("replacement-resumed")
            for key in self._state.tables.jobs:
                batch.evaluate(key, "replacement-resumed")
        await self._state.commit(batch)
        self._braking = braking
