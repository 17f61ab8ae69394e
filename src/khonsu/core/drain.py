"""Drain: how work leaves a node before somebody switches it off."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from enum import Enum

from khonsu.core.ids import NodeId
from khonsu.core.records import Node
from khonsu.core.states import Eligibility, JobType


class Leave(Enum):
    """What a copy does on its node."""

    STAY = "stay"
    """Nothing: it may run on, for now."""
    MOVE = "move"
    """Go elsewhere, and stop here when that is safe."""
    STOP = "stop"
    """Stop now."""


def leave(job_type: JobType, node: Node, emptied: AbstractSet[NodeId], now: float) -> Leave:
    """Return what the copies of a job do on a node.

    Services move at once, all of them: they are wanted without end, so that waiting gains nothing. A batch copy may
    finish until the deadline. The copies of system jobs serve the others (logs, metrics, networks) and stop last.

    Args:
        job_type: The job's type.
        node: The node.
        emptied: The draining nodes where only copies of system jobs are left.
        now: The time.

    """
    if node.eligibility is not Eligibility.DRAINING:
        return Leave.STAY
    if node.drain_deadline_at is not None and now >= node.drain_deadline_at:
        return Leave.STOP
    if job_type is JobType.SYSTEM:
        return Leave.STOP if node.id in emptied else Leave.STAY
    return Leave.MOVE if job_type is JobType.SERVICE else Leave.STAY
