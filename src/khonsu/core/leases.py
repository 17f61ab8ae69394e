"""Leases: who has been heard of, who is down, and when an exclusive slot is surely free. Memory only.

All times here are read from one clock that never steps and runs on during suspend. Nothing of it is stored: after a
start everybody has a full lease again.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping

from attrs import field, frozen

from khonsu.core.ids import NodeId
from khonsu.core.records import Node
from khonsu.core.states import NodeStatus

TTL_SECONDS = 10.0
INTERVAL_SECONDS = 3.0
GRACE_SECONDS = 1.0
MARGIN_SECONDS = 2.0
"""For clocks that differ in rate, and for the time between a decision and its effect."""

STEP_SECONDS_MIN = 1.0
"""From here on a time in the future is that of a clock that was set back since, and not of a look a moment ago."""

REQUESTS_PER_SECOND_MAX = 1000.0
"""Above this the interval and with it the TTL are stretched."""

PATIENCE_SECONDS_MIN = 0.01
EXCLUSIVE_KILL_SECONDS_MAX = 30.0
MASS_LOSS_SHARE = 0.55
MASS_LOSS_NODES_MIN = 3
MASS_LOSS_WINDOW_SECONDS = 60.0


@frozen(kw_only=True)
class LeaseTerms:
    """What an agent is told: how long its lease holds, and how often to renew it."""

    ttl_seconds: float = TTL_SECONDS
    interval_seconds: float = INTERVAL_SECONDS


def terms_for(nodes: int) -> LeaseTerms:
    """Return the terms for a number of nodes; both grow together so that renewals stay below 1,000 a second."""
    stretch = max(1.0, nodes / INTERVAL_SECONDS / REQUESTS_PER_SECOND_MAX)
    return LeaseTerms(ttl_seconds=TTL_SECONDS * stretch, interval_seconds=INTERVAL_SECONDS * stretch)


@frozen(kw_only=True)
class Silence:
    """How long nodes have been silent: what `reconcile` is told of the lease book.

    Args:
        heard_seconds_ago: For each node that is down or was removed lately, when it was last heard of.
        up_seconds: How long this control plane runs: it knows of no call before.
        term_seconds: How long the term lasts; infinite in the first, before which nothing can have run.
        ttl_seconds: The longest lease that may be out.
        margin_seconds: The safety margin.

    """

    heard_seconds_ago: Mapping[NodeId, float] = field(factory=dict)
    up_seconds: float = math.inf
    term_seconds: float = math.inf
    ttl_seconds: float = TTL_SECONDS
    margin_seconds: float = MARGIN_SECONDS

    def away_seconds(self, node: NodeId, marked_seconds_ago: float) -> float:
        """Return how long a node is known to be without a lease; negative while it may still hold one.

        Args:
            node: The node.
            marked_seconds_ago: When it was marked down, for a node that the lease book does not know.

        """
        heard = self.heard_seconds_ago.get(node)
        return self._marked_seconds(marked_seconds_ago) if heard is None else heard - self.ttl_seconds

    def exclusive_wait_seconds(self, node: NodeId, kill_timeout_seconds: float, marked_seconds_ago: float) -> float:
        """Return for how long an exclusive copy may still run on a silent node; 0 or less once it cannot.

        Its helper ends it at the end of the lease, which the agent counts from before we heard of it.
        """
        heard = self.heard_seconds_ago.get(node)
        silent = self._marked_seconds(marked_seconds_ago) if heard is None else heard
        return self._exclusive_seconds(kill_timeout_seconds) - silent

    def _marked_seconds(self, marked_seconds_ago: float) -> float:
        """Return how long ago a node was surely marked down.

        Within one run of the control plane its time does not step. So what is marked in the future was marked by an
        earlier run, before the clock was set back.
        """
        return self.up_seconds if marked_seconds_ago < -STEP_SECONDS_MIN else min(marked_seconds_ago, self.up_seconds)

    def term_wait_seconds(self, kill_timeout_seconds: float) -> float:
        """Return for how long no exclusive slot may be placed because the term is young."""
        return self._exclusive_seconds(kill_timeout_seconds) - self.term_seconds

    def _exclusive_seconds(self, kill_timeout_seconds: float) -> float:
        return self.ttl_seconds + self.margin_seconds + min(kill_timeout_seconds, EXCLUSIVE_KILL_SECONDS_MAX)


class LeaseBook:
    """Who holds a lease until when.

    Not for use by several threads at once.

    Args:
        now: The time of the start.
        ready: Nodes that are ready in the records: each gets a full lease, since it had no chance to call.
        down: Nodes that are down in the records: they count as heard of now, which is the safe guess.
        tick_seconds: How often `expire` is called at least.

    """

    def __init__(
        self, now: float, *, ready: Iterable[NodeId] = (), down: Iterable[NodeId] = (), tick_seconds: float = 0.25
    ) -> None:
        """Give everybody a full lease."""
        self._started_at = now
        self._ticked_at = now
        self._tick_seconds = tick_seconds
        self._heard: dict[NodeId, float] = dict.fromkeys(ready, now)
        self._away: dict[NodeId, float] = dict.fromkeys(down, now)
        self._terms = terms_for(len(self._heard) + len(self._away))
        # A lease that is out may be longer than what is granted today.
        self._ttl_longest = self._terms.ttl_seconds
        self._next_end_at = math.inf
        # Time in which we could not listen does not count against a node, but does count for safety.
        self._deaf: dict[NodeId, float] = {}

    @property
    def terms(self) -> LeaseTerms:
        """Return what renewals are granted now."""
        return self._terms

    def __contains__(self, node: NodeId) -> bool:
        """Return whether a node holds a lease."""
        return node in self._heard

    def without_lease(self, known: Mapping[NodeId, object]) -> set[NodeId]:
        """Return which of some nodes hold none."""
        return known.keys() - self._heard.keys()

    def renew(self, node: NodeId, received_at: float) -> LeaseTerms:
        """Renew a lease from the moment that the request was received, and return its terms.

        A request that was overtaken by a later one changes nothing.
        """
        self._heard[node] = max(received_at, self._heard.get(node, received_at))
        self._away.pop(node, None)
        self._deaf.pop(node, None)
        self._terms = terms_for(len(self._heard))
        self._ttl_longest = max(self._ttl_longest, self._terms.ttl_seconds)
        return self._terms

    def end(self, node: NodeId) -> None:
        """End the lease of a node that says goodbye or is removed; it stays known as silent."""
        heard = self._heard.pop(node, None)
        self._deaf.pop(node, None)
        if heard is not None:
            self._away[node] = heard

    def heard_at(self, node: NodeId) -> float | None:
        """Return when a node was last heard of since the start."""
        return self._heard.get(node, self._away.get(node))

    def expire(self, now: float) -> tuple[NodeId, ...]:
        """End the leases that have run out and return their nodes, the longest silent first.

        Time that passed while nobody called this (a blocked loop, a suspended machine) is given back to every lease:
        we could not have heard the calls.
        """
        late = now - self._ticked_at - 2 * self._tick_seconds
        self._ticked_at = now
        if late > 0:
            for node, heard in self._heard.items():
                # One that was heard of as soon as we listened again has missed nothing.
                self._deaf[node] = self._deaf.get(node, 0.0) + max(0.0, min(late, now - heard))
        limit = self._ttl_longest + GRACE_SECONDS
        gone: list[NodeId] = []
        self._next_end_at = math.inf
        for node, heard in self._heard.items():
            ends_at = heard + self._deaf.get(node, 0.0) + limit
            if ends_at <= now:
                gone.append(node)
            else:
                self._next_end_at = min(self._next_end_at, ends_at)
        gone.sort(key=lambda node: (self._heard[node], node))
        for node in gone:
            self.end(node)
        return tuple(gone)

    def patience_seconds(self, now: float) -> float:
        """Return when `expire` is to be called again: after its usual time, or sooner if a lease ends before that."""
        return max(PATIENCE_SECONDS_MIN, min(self._tick_seconds, self._next_end_at - now))

    def silence(self, now: float, *, term_seconds: float = math.inf) -> Silence:
        """Return how long the nodes without a lease have been silent."""
        return Silence(
            heard_seconds_ago={node: now - heard for node, heard in self._away.items()},
            up_seconds=self.up_seconds(now),
            term_seconds=term_seconds,
            ttl_seconds=self._ttl_longest,
        )

    def up_seconds(self, now: float) -> float:
        """Return how long this book is kept."""
        return now - self._started_at

    def forget(self, known: Container[NodeId], now: float) -> None:
        """Drop the nodes that are not known any more, once they are silent for so long that nothing depends on it."""
        limit = self._ttl_longest + MARGIN_SECONDS + EXCLUSIVE_KILL_SECONDS_MAX
        for node in [node for node, heard in self._away.items() if now - heard > limit and node not in known]:
            del self._away[node]


def mass_loss(nodes: Iterable[Node], *, window_seconds: float = MASS_LOSS_WINDOW_SECONDS) -> bool:
    """Return whether so many nodes vanished together that the fault is more likely ours.

    More than 55 % and at least three of the nodes that were there went down within the window, and are still down. It
    is read from the records alone, so that a restart does not forget it; it ends by itself as nodes come back or are
    removed.
    """
    everybody = list(nodes)
    ready = sum(node.status is NodeStatus.READY for node in everybody)
    down = sorted(node.status_at for node in everybody if node.status is NodeStatus.DOWN)
    last = 0
    for first, began in enumerate(down):
        while last < len(down) and down[last] - began <= window_seconds:
            last += 1
        vanished, there = last - first, ready + len(down) - first
        if vanished >= MASS_LOSS_NODES_MIN and vanished > MASS_LOSS_SHARE * there:
            return True
    return False
