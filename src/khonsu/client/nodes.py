"""What a client asks about nodes, and about the copies on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from khonsu.client.asking import Asking
from khonsu.client.targets import AllocationLike, JobLike, NodeLike, named_allocation, named_job, named_node
from khonsu.core.codec import from_json
from khonsu.core.records import Allocation, Node
from khonsu.core.results import Invitation
from khonsu.core.units import DurationLike, optional_seconds, seconds
from khonsu.errors import HistoryGone, WaitTimeout

NODES_HOLD_SECONDS = 30.0


class NodeMethods(Asking):
    """The methods of a client that are about nodes and allocations."""

    async def allocations(self, *, job: JobLike | None = None, node: NodeLike | None = None) -> tuple[Allocation, ...]:
        """Return allocations, live and ended, of a job, of a node, or of the namespace."""
        body: dict[str, Any] = {"namespace": self.namespace}
        if job is not None:
            named = named_job(job, self.namespace)
            body |= {"namespace": named["namespace"], "job": named["name"]}
        if node is not None:
            body["node"] = named_node(node)
        return await self._asker.pages("allocation.list", Allocation, body)

    async def allocation(self, id: AllocationLike, /) -> Allocation:
        """Return an allocation, by its id or a prefix that no other has."""
        return from_json(Allocation, await self._asker.call("allocation.get", named_allocation(id, self.namespace)))

    async def stop_allocation(self, id: AllocationLike, /) -> Allocation:
        """Stop one copy; its slot is placed again."""
        return from_json(Allocation, await self._asker.call("allocation.stop", named_allocation(id, self.namespace)))

    async def nodes(self) -> tuple[Node, ...]:
        """Return the nodes, by name."""
        return await self._asker.pages("node.list", Node, {})

    async def node(self, name: NodeLike, /) -> Node:
        """Return a node, by its name, its id or a prefix of that."""
        return from_json(Node, await self._asker.call("node.get", {"name": named_node(name)}))

    async def drain_node(self, name: NodeLike, /, *, deadline: DurationLike = "10m") -> Node:
        """Move all work off a node; what is left at the deadline is stopped."""
        body = {"name": named_node(name), "deadline_seconds": seconds(deadline)}
        return from_json(Node, await self._asker.call("node.drain", body))

    async def undrain_node(self, name: NodeLike, /) -> Node:
        """Give a node work again."""
        return from_json(Node, await self._asker.call("node.undrain", {"name": named_node(name)}))

    async def remove_node(self, name: NodeLike, /) -> Node:
        """Forget a node that is down; what may still run there is given up."""
        return from_json(Node, await self._asker.call("node.remove", {"name": named_node(name)}))

    async def invite_node(
        self, *, name: str | None = None, labels: Mapping[str, str] | None = None, valid: DurationLike = "15m"
    ) -> Invitation:
        """Make a join token for one node."""
        body = {"node_name": name, "labels": dict(labels or {}), "valid_seconds": seconds(valid)}
        return from_json(Invitation, await self._asker.call("node.invite", body))

    async def wait_for_nodes(self, count: int, /, *, timeout: DurationLike | None = None) -> tuple[Node, ...]:
        """Wait until so many nodes may be given work, and return them.

        Raises:
            WaitTimeout: Time ran out.

        """
        limit = optional_seconds(timeout)
        deadline = float("inf") if limit is None else self._env.monotonic() + limit
        after: str | None = None
        while True:
            hold = min(NODES_HOLD_SECONDS, max(0.0, deadline - self._env.monotonic()))
            try:
                page = await self._asker.call(
                    "node.list", {"limit": 1, "after": after, "wait": hold if after else None}
                )
            except HistoryGone:
                after = None
                continue
            after = page["revision"]
            ready = tuple(node for node in await self.nodes() if node.schedulable)
            if len(ready) >= count:
                return ready
            if self._env.monotonic() >= deadline:
                raise WaitTimeout(f"{len(ready)} of {count} nodes are ready", result=ready)
