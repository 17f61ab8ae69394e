"""The allocations of the node, live: what is wanted of them comes in, what has become of them goes out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import anyio

from khonsu.agent.book import Book
from khonsu.agent.events import Action, Begin, Ended, Ending, Event
from khonsu.agent.layout import is_name
from khonsu.agent.lifecycle import recover, step
from khonsu.agent.state import AllocationState
from khonsu.core.ids import AllocationId
from khonsu.core.job import Group
from khonsu.core.protocol import AllocationReport, Assignment
from khonsu.core.states import AllocationStatus, Desired, TaskState
from khonsu.env import Env

_log = logging.getLogger(__name__)

# Passing states are told with whatever is told next: by then they are mostly over.
_PASSING = (AllocationStatus.STARTING, AllocationStatus.STOPPING)
_PASSING_TASK = (TaskState.PENDING, TaskState.PREPARING, TaskState.STOPPING)


class CarryOut(Protocol):
    """What carries out actions: `Runner.carry_out`."""

    def __call__(self, state: AllocationState, action: Action, /, *, again: bool = False) -> None:
        """Begin to carry out an action."""


class Workload:
    """Keeps the allocations, moves them by events, and says what is to be reported. For the event loop only."""

    def __init__(self, book: Book, env: Env, *, past: Iterable[str] = (), forgetful: bool = False) -> None:
        """Begin with the allocations of a book; nothing moves before `start`.

        Args:
            book: What an earlier run left.
            env: The clock.
            past: Allocations that were here before: they are never begun again.
            forgetful: Whether others may have been here, too, of which nothing is left: then nothing is begun of the
                first complete list of what is wanted.

        """
        self._book = book
        self._env = env
        self._past = set(past)
        self._forgetful = forgetful
        self._carry_out: CarryOut | None = None
        self._discard: Callable[[AllocationState], None] = lambda _: None
        self._unwanted: set[AllocationId] = set()
        self._recorded: set[AllocationId] = set()
        # In the order in which it happened.
        self._untold: dict[AllocationId, None] = {}
        self._exclusive: set[AllocationId] = set()
        self.moved = anyio.Event()
        """Set, and made anew, when an allocation ends."""
        self.news = anyio.Event()
        """Set while something is to be reported soon."""
        self.accepting = True
        """Whether what is new is begun."""

    def start(self, carry_out: CarryOut, discard: Callable[[AllocationState], None], *, same_boot: bool) -> None:
        """Go on with what an earlier run left.

        Args:
            carry_out: Carries out actions.
            discard: Is given what may be forgotten: it clears up behind it, and then calls `drop`.
            same_boot: Whether the machine has run since then.

        """
        self._carry_out = carry_out
        self._discard = discard
        now = self._env.monotonic()
        for state in self.states:
            after, actions = recover(state, now, same_boot=same_boot)
            self._note(state, after)
            for action in actions:
                carry_out(after, action, again=True)

    @property
    def states(self) -> tuple[AllocationState, ...]:
        """Return all allocations."""
        return tuple(self._book.states.values())

    @property
    def live(self) -> tuple[AllocationState, ...]:
        """Return the allocations that have not ended."""
        return tuple(state for state in self.states if not state.terminal)

    def needs_lease(self) -> bool:
        """Return whether one of them must not run without a lease."""
        return bool(self._exclusive)

    def get(self, key: str) -> AllocationState | None:
        """Return an allocation."""
        return self._book.states.get(AllocationId(key))

    async def until_idle(self) -> None:
        """Wait until every allocation has ended."""
        while self.live:
            await self.moved.wait()

    @property
    def untold(self) -> bool:
        """Return whether something is to be reported."""
        return bool(self._untold)

    # Moving.

    def feed(self, key: AllocationId, event: Event) -> None:
        """Take note of an event, and have done what it asks for."""
        before = self._book.states.get(key)
        if before is None:
            return
        after, actions = step(before, event)
        self._note(before, after)
        if self._carry_out is not None:
            for action in actions:
                self._carry_out(after, action)

    def end_all(self, ending: Ending, message: str) -> None:
        """End all that live."""
        for state in self.live:
            self.feed(state.assignment.id, Ended(ending=ending, message=message))

    def _note(self, before: AllocationState | None, after: AllocationState) -> None:
        key = after.assignment.id
        if after is before:
            return
        self._book.note(after)
        if after.group.exclusive:
            (self._exclusive.discard if after.terminal else self._exclusive.add)(key)
        if before is None or _differs(before, after):
            self._untold[key] = None
            if before is not None and _is_news(before, after):
                self.news.set()
        if after.terminal:
            self.moved.set()
            self.moved = anyio.Event()
            if key in self._unwanted:
                self.forget((key,))

    # What is wanted.

    def apply(self, assignments: Iterable[Assignment], groups: Mapping[str, Group], *, complete: bool) -> None:
        """Act on what is wanted.

        Args:
            assignments: What is wanted of some allocations.
            groups: The specs that they name.
            complete: Whether nothing else is wanted: what is not among them is ended, and not told about.

        """
        wanted: set[AllocationId] = set()
        for assignment in assignments:
            wanted.add(assignment.id)
            # What was unknown to one control plane may be known to the next: it is told how it ends.
            self._unwanted.discard(assignment.id)
            self._assign(assignment, groups)
        for state in self.states if complete else ():
            key = state.assignment.id
            if key not in wanted:
                self._unwanted.add(key)
                if state.terminal:
                    self.forget((key,))
                else:
                    self.feed(key, Ended(ending=Ending.STOP, message="the control plane does not know it"))
        self._forgetful = self._forgetful and not complete

    def _assign(self, assignment: Assignment, groups: Mapping[str, Group]) -> None:
        key = assignment.id
        known = self._book.states.get(key)
        if known is not None:
            if known.terminal:
                self._untold[key] = None
                self.news.set()
            elif assignment.desired is Desired.STOP:
                self.feed(key, Ended(ending=Ending.STOP))
            return
        group = groups.get(assignment.group)
        names = [task.name for task in group.tasks] if group is not None else []
        if group is None or len(set(names)) < len(names) or not all(map(is_name, (key, *names))):
            # No control plane of ours says so; one that does has more to fear than a copy that is never begun.
            _log.error("allocation %r cannot be begun: its group %r is %s", key, assignment.group, names or "not there")
            return
        state = AllocationState(assignment=assignment, group=group)
        if key in self._past or self._forgetful:
            # A control plane that was set back may ask for it again; it was tried once, and that is enough.
            self._note(None, state)
            self.feed(key, Ended(ending=Ending.LOSE, message="it was on this node before, and has ended or was lost"))
        elif assignment.desired is Desired.STOP:
            self._note(None, state)
            self.feed(key, Ended(ending=Ending.STOP))
        elif self.accepting:
            self._note(None, state)
            self.feed(key, Begin(now=self._env.monotonic()))

    def forget(self, keys: Iterable[AllocationId]) -> None:
        """Have cleared away allocations whose end the control plane has recorded; what has not ended stays.

        Until that is done they are kept, so that a killed agent begins it again.
        """
        for key in keys:
            state = self._book.states.get(key)
            if state is not None and state.terminal and key not in self._recorded:
                self._recorded.add(key)
                self._unwanted.discard(key)
                self._untold.pop(key, None)
                self._discard(state)

    def drop(self, key: AllocationId) -> None:
        """Take note that an allocation was cleared away, but for its folder."""
        if key in self._untold:  # it is asked for again meanwhile: first that is answered
            self._recorded.discard(key)
            return
        self._book.forget(key)
        self._recorded.discard(key)
        self._untold.pop(key, None)
        self._past.add(key)

    def clear(self, key: str) -> None:
        """Take note that nothing is left of an allocation of the past."""
        self._past.discard(key)

    def needs_contact(self) -> bool:
        """Return whether something is not to run on without contact."""
        return any(state.group.disconnect.stop_after_seconds is not None for state in self.live)

    def cut_off(self, silent_seconds: float) -> None:
        """End what is not to run on without contact for so long."""
        for state in self.live:
            stop_after = state.group.disconnect.stop_after_seconds
            if stop_after is not None and silent_seconds >= stop_after:
                why = f"there was no contact with the control plane for {stop_after:g} s"
                self.feed(state.assignment.id, Ended(ending=Ending.LOSE, message=why))

    # What is told.

    def take_reports(self, most: int | None = None) -> tuple[AllocationReport, ...]:
        """Return what is to be reported, or some of it; `put_back` it if it does not arrive.

        Args:
            most: How many reports at most; None for everything that there is, told or not.

        """
        keys = list(self._book.states) if most is None else [key for key in self._untold if key in self._book.states]
        now, later = keys[:most], keys[most:] if most is not None else []
        self._untold = dict.fromkeys(later)
        if self.news.is_set() and not later:  # else somebody may wait for this very event
            self.news = anyio.Event()
        return tuple(self._book.states[key].report() for key in now)

    def put_back(self, reports: Iterable[AllocationReport]) -> None:
        """Have reported again what did not arrive, in the state that it has by then."""
        back = dict.fromkeys(report.id for report in reports if report.id in self._book.states)
        self._untold = {**back, **self._untold}
        if back:
            self.news.set()

    def tell_again(self, *, only_ended: bool) -> None:
        """Have reported again what was told before."""
        for state in self.states:
            key = state.assignment.id
            if key not in self._recorded and (state.terminal or not only_ended):
                self._untold[key] = None


def _differs(before: AllocationState, after: AllocationState) -> bool:
    old, new = before.progress, after.progress
    return (
        old.status is not new.status
        or old.health is not new.health
        or old.message != new.message
        or any(a.status is not b.status for a, b in zip(old.tasks, new.tasks, strict=True))
    )


def _is_news(before: AllocationState, after: AllocationState) -> bool:
    """Return whether a change is worth a request of its own."""
    old, new = before.progress, after.progress
    if (old.status is not new.status and new.status not in _PASSING) or old.health is not new.health:
        return True
    return any(
        a.status is not b.status and b.state not in _PASSING_TASK for a, b in zip(old.tasks, new.tasks, strict=True)
    )
