"""Survivors: which of the copies in a slot stay, and which stop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from khonsu.core.changes import Stop
from khonsu.core.drain import Leave
from khonsu.core.records import Allocation
from khonsu.core.slots import Slot, View, age
from khonsu.core.states import AllocationStatus


@frozen(kw_only=True)
class Stand:
    """How a slot stands once what is certainly too much is gone.

    Args:
        slot: The slot.
        keeper: The copy of the present work that stays, on a node where it may stay.
        retiring: A copy that runs on until the keeper is up: of other work, or on a node that is drained.
        unknown: Copies on nodes that are silent or have not yet spoken of them.
        done: Whether the slot's work is done, so that nothing is placed any more.
        up: Whether the keeper does its work.
        stops: What is too much.

    """

    slot: Slot
    keeper: Allocation | None = None
    retiring: Allocation | None = None
    unknown: tuple[Allocation, ...] = ()
    done: bool = False
    up: bool = False
    stops: tuple[Stop, ...] = ()

    @property
    def copies(self) -> tuple[Allocation, ...]:
        """Return the copies that live, or may live, and are not too much."""
        return (*(one for one in (self.keeper, self.retiring) if one is not None), *self.unknown)

    @property
    def wanted(self) -> bool:
        """Return whether the slot is to have a copy."""
        return self.slot.wanted and not self.done

    @property
    def in_flight(self) -> bool:
        """Return whether the slot is between two copies: what `max_parallel` counts.

        A slot that never had a copy is not: it waits for room and not for an update.
        """
        if not self.wanted:
            return False
        if self.keeper is not None:
            return not self.up
        return self.retiring is None and self.slot.history


@frozen(kw_only=True)
class Scene:
    """A group, its slots as they stand, and all of its allocations.

    `blank` are the slots that never had a copy. They are all alike, and there may be very many: they have no `Stand`.
    """

    view: View
    stands: tuple[Stand, ...]
    blank: Sequence[int] = ()
    allocations: tuple[Allocation, ...]

    @property
    def replacing(self) -> tuple[Stand, ...]:
        """Return the slots that have only a copy of other work: what is left of a rollout."""
        return tuple(one for one in self.stands if one.wanted and one.keeper is None and self.stale(one))

    @property
    def in_flight(self) -> int:
        """Return how many slots are between two copies."""
        return sum(one.in_flight for one in self.stands)

    def stale(self, one: Stand) -> bool:
        """Return whether a slot's retiring copy does other work than what is wanted now."""
        return one.retiring is not None and not self.view.fresh(one.retiring)


def stand(view: View, slot: Slot) -> Stand:
    """Return how a slot stands."""
    look = view.look
    if slot.surplus:
        return Stand(slot=slot, stops=_stops(slot.live, slot.surplus))
    if not look.keeps_running and slot.complete:
        return Stand(slot=slot, done=True, stops=_stops(slot.live, "its work is done"))
    leaves = {one.id: look.leave(one) for one in slot.live}
    stops = list(_stops((one for one in slot.live if leaves[one.id] is Leave.STOP), "its node is drained"))
    rest = [one for one in slot.live if leaves[one.id] is not Leave.STOP]
    present = [one for one in rest if one.status is not AllocationStatus.UNKNOWN]
    if view.group.exclusive and len(present) > 1:
        # Only one of them can hold the newest fencing token, whatever the policy says of returning copies.
        newest = max(present, key=lambda one: (view.fresh(one), age(one)))
        stops += _stops((one for one in present if one is not newest), "two copies of an exclusive slot")
        present = [newest]
    staying = [one for one in present if view.fresh(one) and leaves[one.id] is Leave.STAY]
    keeper = _choose(view, staying)
    stops += _stops((one for one in staying if one is not keeper), "one copy too many")
    leaving = [one for one in present if one not in staying]
    retiring = max(leaving, key=lambda one: (look.up(one), view.fresh(one), age(one)), default=None)
    stops += _stops((one for one in leaving if one is not retiring), "one copy too many")
    return Stand(
        # What is told to stop now is waited for like what was told before.
        slot=evolve(slot, ending=(*slot.ending, *(one for one in slot.live if _among(one, stops)))) if stops else slot,
        keeper=keeper,
        retiring=retiring,
        unknown=tuple(one for one in rest if one.status is AllocationStatus.UNKNOWN),
        up=keeper is not None and look.up(keeper),
        stops=tuple(stops),
    )


def _choose(view: View, copies: Sequence[Allocation]) -> Allocation | None:
    """Return the one that stays of copies that do the same: what `disconnect.keep` says of a returned copy.

    With `replacement` the latest that is up stays, and the oldest if none is; with `original` the oldest.
    """
    if not copies:
        return None
    if view.group.disconnect.keep == "original":
        return copies[0]
    up = [one for one in copies if view.look.up(one)]
    return up[-1] if up else copies[0]


def _stops(copies: Iterable[Allocation], reason: str) -> tuple[Stop, ...]:
    return tuple(Stop(allocation=one.id, reason=reason) for one in copies)


def _among(copy: Allocation, stops: Iterable[Stop]) -> bool:
    return any(stop.allocation == copy.id for stop in stops)
