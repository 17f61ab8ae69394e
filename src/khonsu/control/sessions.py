"""The sessions: what the control plane knows of its agents only in memory.

A session is one run of an agent. It holds when the agent was last heard of and what is wanted of it; leases and
last-seen times never touch the store.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from attrs import define, field

from khonsu.core.ids import NodeId
from khonsu.core.protocol import AgentRequest
from khonsu.core.records import Time
from khonsu.errors import Conflict

REPLACED_MAX = 64


@define(eq=False)
class Session:
    """One run of an agent."""

    name: str
    last_seen: Time
    requests: dict[str, AgentRequest] = field(factory=dict)
    """What is wanted of the agent, by id: told with every answer until it says that it has heard of it."""
    asked_at: float = -math.inf
    """When the agent was last asked to tell of all that it has, on the clock that never steps."""
    begun: bool = False
    """Whether the agent has had an answer to a first request: a later one is late, and tells of the past."""


class Sessions:
    """The present session of every node, and those that were replaced."""

    def __init__(self) -> None:
        """Start empty: after a restart of the control plane the first that calls is the present one."""
        self._sessions: dict[str, Session] = {}
        self._replaced: OrderedDict[tuple[str, str], None] = OrderedDict()

    def heard(self, node: NodeId, name: str, now: Time, *, fresh: bool) -> Session:
        """Note that a session of a node called.

        Args:
            node: The node.
            name: The session's name.
            now: The time.
            fresh: Whether the agent has just started; only then may it take the place of another session.

        Raises:
            Conflict: Another agent runs under the same identity, and is the later one.

        """
        present = self._sessions.get(node)
        if present is not None and present.name == name:
            present.last_seen = now
            return present
        if (node, name) in self._replaced or (present is not None and not fresh):
            raise _replaced(node)
        if present is not None:
            self._replaced[node, present.name] = None
            while len(self._replaced) > REPLACED_MAX:
                self._replaced.popitem(last=False)
        # What the agent's last run has not heard of is wanted of this one.
        session = self._sessions[node] = Session(name, now, present.requests if present is not None else {})
        return session

    def check(self, node: NodeId, name: str) -> None:
        """Check that a session is the present one of a node, or that none is known.

        Raises:
            Conflict: Another agent has taken its place.

        """
        present = self._sessions.get(node)
        if present is not None and present.name != name:
            raise _replaced(node)

    def get(self, node: str) -> Session | None:
        """Return the present session of a node."""
        return self._sessions.get(node)

    def forget(self, node: str) -> None:
        """Drop what is known of a node that was removed."""
        self._sessions.pop(node, None)


def _replaced(node: NodeId) -> Conflict:
    return Conflict(
        f"another agent has taken the place of this one as node {node}",
        hint="two agents run under one identity: stop one, and join it again with a data directory of its own",
    )
