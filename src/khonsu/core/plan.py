"""What a scheduler is given and what it gives back: a snapshot, and a plan that is columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from attrs import field, frozen

from khonsu.core.arrays import FloatArray, IntArray, read_only
from khonsu.core.changes import Stop
from khonsu.core.fleet import Fleet
from khonsu.core.ids import AllocationId, EvaluationId, NodeId
from khonsu.core.job import Job
from khonsu.core.records import Allocation, JobRecord, Node, PlacementFailure
from khonsu.core.revision import Revision


@frozen(kw_only=True)
class Snapshot:
    """The state that an evaluation is decided on, at one revision. It never changes.

    Args:
        revision: The revision it shows.
        job: The job's record.
        specs: The specs of its versions, those of live allocations and the current one at least.
        allocations: The job's allocations.
        nodes: The nodes by id.
        fleet: The nodes as columns.

    """

    revision: Revision
    job: JobRecord
    specs: Mapping[int, Job]
    allocations: tuple[Allocation, ...]
    nodes: Mapping[NodeId, Node] = field(repr=False)
    fleet: Fleet = field(repr=False)


def _int32(values: Sequence[int] | IntArray) -> IntArray:
    return read_only(np.array(values, np.int32))


def _float64(values: Sequence[float] | FloatArray) -> FloatArray:
    return read_only(np.array(values, np.float64))


@frozen(kw_only=True, eq=False)
class Placements:
    """Copies and their places, as columns of the same length.

    Args:
        group: The position of each copy's group in the plan's `groups`.
        slot: The slot of each.
        node: The position of each one's node in the fleet of the snapshot, and in the plan's `nodes`.

    """

    group: IntArray = field(default=(), converter=_int32)
    slot: IntArray = field(default=(), converter=_int32)
    node: IntArray = field(default=(), converter=_int32)

    def __len__(self) -> int:
        """Return how many copies there are."""
        return len(self.node)


@frozen(kw_only=True, eq=False)
class Plan:
    """What a scheduler wants done; the planner commits what of it still fits.

    Args:
        evaluation: The evaluation that it answers.
        revision: The revision of the snapshot that it was made on.
        scheduler: Who made it.
        version: The version of the job that it places.
        groups: The names of the groups it places copies of.
        placements: The copies and their nodes.
        score: The score of each placement, when it was chosen.
        nodes: The ids of the snapshot's nodes by row: `Fleet.ids`.
        stops: The allocations to stop.
        preemptions: The allocations of other jobs that have to make room.
        unplaced: For each group with copies that found no place: how many, and what refused the nodes.
        all_or_nothing: The groups of which all copies are committed, or none.

    """

    evaluation: EvaluationId
    revision: Revision
    scheduler: str
    version: int
    groups: tuple[str, ...] = ()
    placements: Placements = field(factory=Placements)
    score: FloatArray = field(default=(), converter=_float64)
    nodes: tuple[NodeId, ...] = field(default=(), repr=False)
    stops: tuple[Stop, ...] = ()
    preemptions: tuple[AllocationId, ...] = ()
    unplaced: tuple[PlacementFailure, ...] = ()
    all_or_nothing: tuple[str, ...] = ()

    def by_group(self) -> list[tuple[int, IntArray]]:
        """Return the position of each group with placements, and the positions of these, in the order of the plan."""
        groups = self.placements.group
        if not len(groups):
            return []
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order])) + 1
        return [(int(groups[places[0]]), places) for places in np.split(order, starts)]


@frozen(kw_only=True)
class Conflict:
    """Placements that could not be committed: somebody was quicker, or the node has changed."""

    group: str
    node: NodeId
    copies: int
    reason: str


@frozen(kw_only=True)
class Outcome:
    """What became of a plan, for the scheduler that made it.

    Args:
        evaluation: The evaluation.
        revision: The revision of the commit.
        accepted: How many placements were committed.
        rejected: How many were not.
        conflicts: Which, and why.

    """

    evaluation: EvaluationId
    revision: Revision
    accepted: int
    rejected: int = 0
    conflicts: tuple[Conflict, ...] = ()
