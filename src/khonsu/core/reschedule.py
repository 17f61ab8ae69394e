"""Rescheduling: when a copy that ended is placed again, and when it is given up."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import frozen

from khonsu.core.ids import NodeId
from khonsu.core.policies import Reschedule
from khonsu.core.records import Allocation
from khonsu.core.states import AllocationStatus, Desired

AT_ONCE = -math.inf


@frozen(kw_only=True)
class Turn:
    """The next try of a slot.

    Args:
        at: From when on, or minus infinity for at once.
        reschedules: How often the slot will have been rescheduled after failures by then.
        given_up: Whether there is none, because the attempts are used up.
        reason: Why the slot is placed again.

    """

    at: float = AT_ONCE
    reschedules: int = 0
    given_up: bool = False
    reason: str = "new copy"


def next_turn(ended: Sequence[Allocation], policy: Reschedule, *, keeps_running: bool, now: float) -> Turn:
    """Return when a slot is placed again.

    A failure is tried again after a delay that doubles, until the attempts are used up. What ended without failing (its
    node was lost, an operator stopped it, its node was drained) is placed again at once and costs no attempt.

    Args:
        ended: The ended allocations of the slot that did the work that is wanted now, the latest first.
        policy: How often, and after which delays.
        keeps_running: Whether copies are meant to run for ever, so that any end of their own is a failure.
        now: The time.

    """
    if not ended:
        return Turn()
    last = ended[0]
    if failed(last, keeps_running=keeps_running):
        tried = 0 if keeps_running and _lasted(last, policy) else last.reschedules
        if policy.attempts is not None and tried >= policy.attempts:
            return Turn(reschedules=tried, given_up=True, reason="failed")
        return Turn(at=_after(last, delay_seconds(policy, tried), now), reschedules=tried + 1, reason="failed")
    if last.status is AllocationStatus.STOPPED and last.desired is Desired.RUN:
        # Nobody asked for it, so it may happen again at once; the delay keeps that from going round in a circle.
        return Turn(
            at=_after(last, policy.delay_seconds, now), reschedules=last.reschedules, reason="stopped by its node"
        )
    return Turn(reschedules=last.reschedules, reason=str(last.status))


def failed(allocation: Allocation, *, keeps_running: bool) -> bool:
    """Return whether an allocation ended badly by itself."""
    if allocation.status is AllocationStatus.COMPLETE:
        return keeps_running and allocation.desired is Desired.RUN
    return allocation.status is AllocationStatus.FAILED


def delay_seconds(policy: Reschedule, tried: int) -> float:
    """Return the delay before the next try: it doubles with each and has a limit."""
    # Beyond 2^40 the limit has long been reached, and a larger power may not fit a float.
    return min(policy.delay_seconds * 2.0 ** min(tried, 40), policy.delay_max_seconds)


def nodes_to_avoid(ended: Sequence[Allocation], *, keeps_running: bool) -> tuple[NodeId, ...]:
    """Return the nodes where a slot failed, the latest first."""
    return tuple(dict.fromkeys(one.node_id for one in ended if failed(one, keeps_running=keeps_running)))


def _lasted(allocation: Allocation, policy: Reschedule) -> bool:
    """Return whether a copy ran well for so long that its failure is a new story."""
    return allocation.health is True and allocation.changed_at - allocation.created_at >= policy.delay_max_seconds


def _after(allocation: Allocation, delay: float, now: float) -> float:
    # An end in the future was written before the clock was set back; waiting for it could take days.
    return allocation.changed_at + delay if allocation.changed_at <= now else AT_ONCE
