"""What a look at a job leads to: the answer of `reconcile` and the input of a scheduler."""

from __future__ import annotations

from attrs import frozen

from khonsu.core.ids import AllocationId, NodeId
from khonsu.core.records import Allocation, Rollout, Time
from khonsu.core.states import JobStatus


@frozen(kw_only=True)
class Place:
    """One copy that is wanted and is not there.

    Args:
        group: The group that it is a copy of.
        slot: The slot that it fills.
        previous: The allocation whose work it takes over.
        node: The only node that will do (system jobs); None leaves the choice to the scheduler.
        canary: Whether it is a canary of a rollout.
        replaces: Whether `previous` runs on until this one is healthy (start-first), or may run on unseen.
        reschedules: How often the slot has been rescheduled after failures, this time included.
        reason: Why it is wanted, for the history.
        avoid: The nodes where this slot failed: a penalty, not a filter.

    """

    group: str
    slot: int
    previous: Allocation | None = None
    node: NodeId | None = None
    canary: bool = False
    replaces: bool = False
    reschedules: int = 0
    reason: str = ""
    avoid: tuple[NodeId, ...] = ()


@frozen(kw_only=True)
class Stop:
    """One allocation that is to stop, and why."""

    allocation: AllocationId
    reason: str


@frozen(kw_only=True)
class Changes:
    """What a job needs now. Applied as a whole; placements may fail one by one, unless the group is a gang.

    Args:
        version: The version that was looked at; it belongs to a plan of this version only.
        place: Copies to place.
        stop: Allocations to stop.
        adopt: Allocations of an earlier version of an unchanged group: they get the label `version` and run on.
        mark_lost: Unknown allocations that the disconnect policy gives up: `stop_after` has passed.
        wake_at: When to look again if nothing happens before.
        status: What the job's status should be.
        rollout: The job's rollout as it should be recorded.
        stable: Whether `version` has proved itself and is to be recorded as the last stable one.
        revert_to: The stable version whose spec is to be submitted again, as a new version.
        message: Why the job failed or waits, for people; empty otherwise.

    """

    version: int
    place: tuple[Place, ...] = ()
    stop: tuple[Stop, ...] = ()
    adopt: tuple[AllocationId, ...] = ()
    mark_lost: tuple[AllocationId, ...] = ()
    wake_at: Time | None = None
    status: JobStatus
    rollout: Rollout | None = None
    stable: bool = False
    revert_to: int | None = None
    message: str = ""

    @property
    def empty(self) -> bool:
        """Return whether no allocation changes."""
        return not (self.place or self.stop or self.adopt or self.mark_lost)
