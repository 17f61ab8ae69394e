"""Fills: when a slot without a copy gets one, and what must be over before."""

from __future__ import annotations

import math
from collections.abc import Iterator

from attrs import evolve, frozen

from khonsu.core.changes import Place
from khonsu.core.records import Allocation
from khonsu.core.reschedule import Turn, next_turn, nodes_to_avoid
from khonsu.core.slots import View, age
from khonsu.core.states import AllocationStatus, NodeStatus
from khonsu.core.survivors import Stand

UNTIL_TOLD = math.inf
"""As a time to wait for: somebody's report ends the wait, not the clock."""


@frozen(kw_only=True)
class Fill:
    """Whether a slot may be filled now.

    Args:
        turn: The next try by the reschedule policy.
        due_at: From when on; infinity where a report has to come first.
        due: Whether that is now.

    """

    turn: Turn
    due_at: float
    due: bool


def fill(view: View, stand: Stand) -> Fill:
    """Return when a slot may get a new copy."""
    look = view.look
    policy = view.group.reschedule_policy(look.spec.type)
    before = _predecessor(view, stand)
    # The tries of a successor begin after the copy that it is to succeed.
    tried = [one for one in stand.slot.ended if before is None or age(one) > age(before)]
    turn = next_turn(tried, policy, keeps_running=look.keeps_running, now=look.now)
    if before is not None and not tried and view.fresh(before):
        turn = evolve(turn, reschedules=before.reschedules)
    if turn.given_up:
        return Fill(turn=turn, due_at=UNTIL_TOLD, due=False)
    due_at = max(turn.at, *_waits(view, stand))
    return Fill(turn=turn, due_at=due_at, due=due_at <= look.now)


def _beside(stand: Stand) -> Allocation | None:
    """Return the copy that runs on, or may do so, until its successor is up."""
    return stand.retiring or next(reversed(stand.unknown), None)


def _predecessor(view: View, stand: Stand) -> Allocation | None:
    """Return the live copy whose work is taken over: one that runs on, or else one that is to stop."""
    ending = (one for one in reversed(stand.slot.ending) if one.run == view.look.record.run)
    return _beside(stand) or next(ending, None)


def _waits(view: View, stand: Stand) -> Iterator[float]:
    """Yield the times before which the slot must not be filled."""
    look = view.look
    yield -math.inf
    for one in stand.unknown:
        if look.paused or not look.silent(one):
            yield UNTIL_TOLD
        elif (wait := view.group.disconnect.replace_after_seconds - look.away_seconds(one)) > 0:
            yield look.now + wait
    for one in stand.slot.ending:
        # What runs beside its successor elsewhere may also run beside it while it stops.
        if not view.starts_first and not look.silent(one):
            yield UNTIL_TOLD
    if view.group.exclusive:
        yield from _exclusive_waits(view, stand)


def _exclusive_waits(view: View, stand: Stand) -> Iterator[float]:
    """Yield until when an earlier copy of an exclusive slot may still run."""
    look = view.look
    if (wait := look.silence.term_wait_seconds(view.group.kill_timeout_seconds)) > 0:
        yield look.now + wait
    for one in (*stand.unknown, *stand.slot.ending):
        if not look.silent(one):
            yield UNTIL_TOLD
        elif (wait := look.exclusive_wait_seconds(one)) > 0:
            yield look.now + wait
    for one in stand.slot.past:
        untold = one.status is AllocationStatus.LOST and not _told(view, one)
        if untold and (wait := look.exclusive_wait_seconds(one)) > 0:
            yield look.now + wait


def _told(view: View, lost: Allocation) -> bool:
    """Return whether the node itself said that a copy is gone, so that it surely is."""
    node = view.look.nodes.get(lost.node_id)
    return node is not None and node.status is NodeStatus.READY and node.status_at <= lost.changed_at


def place(view: View, stand: Stand, turn: Turn, *, reason: str = "", canary: bool = False) -> Place:
    """Return the placement of a slot's next copy."""
    slot = stand.slot
    beside = _beside(stand)
    previous = beside or next(iter((*reversed(slot.ending), *slot.past)), None)
    silent = bool(stand.unknown) and stand.retiring is None
    return Place(
        group=view.group.name,
        slot=slot.index,
        previous=previous,
        node=slot.node,
        canary=canary,
        replaces=beside is not None,
        reschedules=turn.reschedules,
        reason=reason or ("its node is silent" if silent else turn.reason),
        avoid=nodes_to_avoid(slot.ended, keeps_running=view.look.keeps_running),
    )
