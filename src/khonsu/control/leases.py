"""The leases of this control plane: the pure lease book, on its clock."""

from __future__ import annotations

import math

from khonsu.control.state import Moves, State
from khonsu.core.ids import NodeId
from khonsu.core.leases import LeaseBook, LeaseTerms, Silence, mass_loss
from khonsu.core.records import Node
from khonsu.core.revision import ZERO
from khonsu.core.states import NodeStatus

TICK_SECONDS = 0.25
"""How often leases are looked at, at least."""


class Leases:
    """The lease book of this control plane, on its clock."""

    def __init__(self, state: State) -> None:
        """Give every known node a full lease."""
        self._state = state
        nodes = state.tables.nodes.values()
        now = state.env.monotonic()
        self.book = LeaseBook(
            now,
            ready=[node.id for node in nodes if node.status is NodeStatus.READY],
            down=[node.id for node in nodes if node.status is NodeStatus.DOWN],
            tick_seconds=TICK_SECONDS,
        )
        self._mass_loss: bool | None = None
        state.listeners.append(self._follow)
        state.rebuilt.append(self._forget)

    def renew(self, node: NodeId, received_at: float) -> LeaseTerms:
        """Renew a lease from the moment its request was received."""
        return self.book.renew(node, received_at)

    def silence(self) -> Silence:
        """Return how long the silent nodes have been silent."""
        now = self._state.env.monotonic()
        # A later term is taken to have begun with this run: what is written of it is a time of a wall clock, which may
        # have been set since, and then a slot would start too soon, or wait for a day.
        first = self._state.term == ZERO.term
        return self.book.silence(now, term_seconds=math.inf if first else self.book.up_seconds(now))

    def mass_loss(self) -> bool:
        """Return whether so many nodes vanished together that nothing is to be replaced."""
        if self._mass_loss is None:
            self._mass_loss = mass_loss(self._state.tables.nodes.values())
        return self._mass_loss

    def _follow(self, moves: Moves) -> None:
        if any(isinstance(before or after, Node) for before, after in moves):
            self._forget()

    def _forget(self) -> None:
        self._mass_loss = None
