"""The promises about nodes that are silent: who is given up, when, and when not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from khonsu.core import leases
from khonsu.core.records import Allocation, Node
from khonsu.core.states import AllocationStatus, Desired, NodeStatus
from khonsu.testing.simulation.oracle import Invariant, Moves, Oracle, Process
from khonsu.testing.simulation.programs import CONTROL
from khonsu.testing.simulation.sights import LEAVE_SECONDS

DRIFT_SECONDS: Final = 0.05
"""By how much two clocks may differ over the length of a lease, and a millisecond here and there."""
COMMIT_SECONDS: Final = 3.0
"""How long it may take until the end of a lease is noticed and written down, where nothing is wrong."""
PLAN_SECONDS: Final = 5.0
"""A plan that was being made when the nodes vanished may still be carried out."""


class _ExpiresNobody(Invariant):
    """A node is only marked down when nothing was heard of it for the length of a lease."""

    def committed(self, moves: Moves) -> None:
        """Look at the nodes that are down now."""
        for before, after in moves:
            if (
                isinstance(before, Node)
                and isinstance(after, Node)
                and before.status is NodeStatus.READY
                and after.status is NodeStatus.DOWN
                and self.concerns()
            ):
                self._check(after)

    def concerns(self) -> bool:
        """Return whether what is now is what the promise speaks of."""
        raise NotImplementedError

    def _check(self, node: Node) -> None:
        sights = self.oracle.sights
        # By whatever clock it was decided, it was before it was written.
        decided_at = min(sights.true_time(node.status_at), sights.now())
        if decided_at - sights.left_at(node.name) < LEAVE_SECONDS:
            return
        since = max(sights.heard_at(node.name, decided_at), sights.opened_at)
        if decided_at - since < leases.TTL_SECONDS - DRIFT_SECONDS:
            heard = sights.heard_at(node.name, decided_at)
            self.broken(
                f"{node.name} is marked down {decided_at - heard:.3f} s after it was heard of, and "
                f"{decided_at - sights.opened_at:.3f} s after the start of the control plane"
            )


class ReturnExpiresNobody(_ExpiresNobody):
    """A control plane that comes back marks nobody down before everybody had time to call."""

    promise: ClassVar[str] = "S7"

    def concerns(self) -> bool:
        """Return whether the control plane has just come back."""
        sights = self.oracle.sights
        return sights.now() - sights.opened_at < leases.TTL_SECONDS + leases.GRACE_SECONDS + COMMIT_SECONDS


class StepExpiresNobody(_ExpiresNobody):
    """A step of the wall clock ends no lease."""

    promise: ClassVar[str] = "S8"

    def concerns(self) -> bool:
        """Return whether the clock of the control plane was set."""
        return self.oracle.sights.stepped


class BusyExpiresNobody(_ExpiresNobody):
    """A slow disk, a pause or a long plan in the control plane marks nobody down who has called."""

    promise: ClassVar[str] = "L2"

    def concerns(self) -> bool:
        """Return that it always does."""
        return True


class DeadIsMarkedDown(Invariant):
    """A node of which nothing is heard is marked down within the time of a lease and its grace."""

    promise: ClassVar[str] = "L2"

    def committed(self, moves: Moves) -> None:
        """Look at all nodes."""
        self._look()

    def started(self, process: Process) -> None:
        """Look at all nodes."""
        self._look()

    def ended(self, process: Process, how: str) -> None:
        """Look at all nodes."""
        self._look()

    def finished(self) -> None:
        """Look at all nodes."""
        self._look()

    def _look(self) -> None:
        sights = self.oracle.sights
        now = sights.now()
        limit = leases.TTL_SECONDS + leases.GRACE_SECONDS + COMMIT_SECONDS
        if now - max(sights.hurt_at(CONTROL), sights.failed_at, sights.opened_at) < limit:
            return
        for node in self.oracle.nodes.values():
            if node.status is NodeStatus.READY:
                since = max(sights.reached_at(node.name), sights.true_time(node.status_at))
                if now - since > limit:
                    self.broken(f"nothing was heard of {node.name} for {now - since:.3f} s, and it is ready")


class MassLossStopsReplacing(Invariant):
    """When most nodes vanish at once, what was on them is not replaced."""

    promise: ClassVar[str] = "S7"

    def __init__(self, world: Oracle) -> None:
        """Know of no loss."""
        super().__init__(world)
        self._since = float("inf")

    def committed(self, moves: Moves) -> None:
        """Look at what is placed while most nodes are away."""
        now = self.oracle.sights.now()
        if now - self._since > PLAN_SECONDS:
            for before, after in moves:
                if before is None and isinstance(after, Allocation) and (silent := self._silent(after)) is not None:
                    self.broken(f"{after.id} replaces {silent.id} on {silent.node}, and most nodes vanished at once")
        self._since = min(self._since, now) if vanished(self.oracle.nodes.values()) else float("inf")

    def _silent(self, placed: Allocation) -> Allocation | None:
        for one in self.oracle.allocations:
            same = (one.job_key, one.group, one.slot) == (placed.job_key, placed.group, placed.slot)
            silent = one.status is AllocationStatus.UNKNOWN and one.desired is Desired.RUN
            if same and silent and one.id != placed.id and one.run == placed.run:
                return one
        return None


def vanished(nodes: Iterable[Node]) -> bool:
    """Return whether more than 55 % of the nodes, and at least 3, went down within a minute and are still down."""
    everybody = list(nodes)
    down = [node.status_at for node in everybody if node.status is NodeStatus.DOWN]
    return any(_together(down, began, len(everybody)) for began in down)


def _together(down: Iterable[float], began: float, everybody: int) -> bool:
    before = sum(at < began for at in down)
    gone = sum(began <= at <= began + leases.MASS_LOSS_WINDOW_SECONDS for at in down)
    return gone >= leases.MASS_LOSS_NODES_MIN and gone > leases.MASS_LOSS_SHARE * (everybody - before)
