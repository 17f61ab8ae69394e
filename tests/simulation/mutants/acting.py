"""Bugs of agents: what they begin and end, and what they tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from khonsu.abc.driver import TaskExit
from khonsu.agent import book, journal, workload
from khonsu.agent.cleanup import Cleaner
from khonsu.agent.events import Ended, Ending, Exited
from khonsu.agent.journal import Journal
from khonsu.agent.lifecycle import recover, step
from khonsu.agent.runner import Runner
from khonsu.agent.sync import Sync
from khonsu.agent.workload import Workload
from khonsu.core.states import Desired
from khonsu.testing.fake_driver import FakeDriver, FakeMachine
from tests.simulation.mutants.planting import Mutant, Patch, mutant, pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from khonsu.agent.events import Action, Event
    from khonsu.agent.state import AllocationState
    from khonsu.core.ids import AllocationId
    from khonsu.core.job import JSON, Group
    from khonsu.core.protocol import AllocationReport, Assignment, SyncResponse
    from khonsu.core.revision import Revision


@mutant
def starts_before_it_is_noted() -> Iterator[Patch]:
    """A task is started before the intent is on the disk."""

    async def at_once(self: Journal, position: int | None = None) -> None:
        return None

    yield Journal, "durable", at_once


@mutant
def a_hole_is_damage() -> Iterator[Patch]:
    """A journal whose unsafe end has a hole is set aside (it was so once)."""

    def records(data: bytes) -> Iterator[Mapping[str, JSON] | None]:
        lines = data.split(b"\n")
        last = lines.pop()
        for line in lines:
            yield journal._record(line)
        if last:
            yield None

    yield journal, "_records", records


@mutant
def the_journal_is_not_read() -> Iterator[Patch]:
    """An agent that starts has forgotten everything."""

    def nothing(path: Path, now: int) -> journal.Found:
        return journal.Found(values={})

    yield journal, "_read", nothing


@mutant
def restarts_what_runs() -> Iterator[Patch]:
    """An agent that comes back takes what runs for lost."""

    def lose(state: AllocationState, now: float, *, same_boot: bool) -> tuple[AllocationState, tuple[Action, ...]]:
        return recover(state, now, same_boot=False)

    yield workload, "recover", lose


@mutant
def ends_what_it_finds() -> Iterator[Patch]:
    """An agent that comes back takes its own tasks for strangers."""

    def strange(self: Cleaner) -> list[Path]:
        return [folder for key in self._layout.kept() for folder in self._layout.attempts(key)]

    yield Cleaner, "_strange_attempts", strange


@mutant
def tells_another_end() -> Iterator[Patch]:
    """What ended while the agent was away is told with another exit code."""
    feed = Workload.feed

    def invent(self: Workload, key: AllocationId, event: Event) -> None:
        if isinstance(event, Exited) and event.exit.code == 0:
            event = evolve(event, exit=TaskExit(code=3, finished_at=event.exit.finished_at))
        feed(self, key, event)

    yield Workload, "feed", invent


@mutant
def old_answers_count() -> Iterator[Patch]:
    """An answer that was overtaken is acted on."""
    apply = Sync._take

    def take(self: Sync, sent: float, response: SyncResponse) -> None:
        seen = self._book.seen
        if response.revision < seen:
            self._apply(response, seen)
        apply(self, sent, response)

    yield Sync, "_take", take


@mutant
def every_answer_is_complete() -> Iterator[Patch]:
    """What is not in an answer is ended."""
    apply = Workload.apply

    def all_of_it(
        self: Workload, assignments: Iterable[Assignment], groups: Mapping[str, Group], *, complete: bool
    ) -> None:
        apply(self, assignments, groups, complete=True)

    yield Workload, "apply", all_of_it


@mutant
def stops_are_not_heard() -> Iterator[Patch]:
    """An agent goes on with what is to stop."""
    assign = Workload._assign

    def deaf(self: Workload, assignment: Assignment, groups: Mapping[str, Group]) -> None:
        if assignment.desired is Desired.RUN:
            assign(self, assignment, groups)

    yield Workload, "_assign", deaf


@mutant
def what_was_not_heard_is_not_told_again() -> Iterator[Patch]:
    """A report that did not arrive is not told again."""

    def drop(self: Workload, reports: Iterable[AllocationReport]) -> None:
        return None

    yield Workload, "put_back", drop


@mutant
def ends_are_told_once() -> Iterator[Patch]:
    """What was told before a power cut of the control plane is not told again."""

    def never(self: Workload, *, only_ended: bool) -> None:
        return None

    yield Workload, "tell_again", never


@mutant
def begins_again_what_has_ended() -> Iterator[Patch]:
    """An agent does not remember what was there before."""
    begin = Workload.__init__

    def fresh(self: Workload, *args: Any, past: Iterable[str] = ()) -> None:
        begin(self, *args)

    yield Workload, "__init__", fresh


@mutant
def a_stop_is_not_noted() -> Iterator[Patch]:
    """A task that was stopped is started again, as if it had failed."""

    def forgetful(state: AllocationState, event: Event) -> tuple[AllocationState, tuple[Action, ...]]:
        if isinstance(event, Ended) and event.ending is Ending.STOP and not event.message:
            after, actions = step(state, event)
            return evolve(after, progress=evolve(after.progress, ending=Ending.LOSE)), actions
        return step(state, event)

    yield workload, "step", forgetful


@mutant
def seen_is_not_remembered() -> Iterator[Patch]:
    """After a restart an agent does not know what it has seen."""

    def note_seen(self: book.Book, revision: Revision) -> None:
        self.seen = revision

    yield book.Book, "note_seen", note_seen


@mutant
def the_lease_is_not_asked_for() -> Iterator[Patch]:
    """An exclusive task is started whether there is a lease or not."""
    from khonsu.agent.lease import Lease

    async def at_once(self: Lease) -> None:
        return None

    yield Lease, "wait", at_once


@mutant
def the_helper_starts_without_a_lease() -> Iterator[Patch]:
    """A helper starts an exclusive task without a lease, and minds none before the next."""
    start = FakeMachine.start

    def careless(self: FakeMachine, key: str, task: Any, now: float) -> Any:
        before = self.lease
        if task.exclusive and self.lease <= now:
            self.lease = now + 60.0
        try:
            return start(self, key, task, now)
        finally:
            self.lease = before

    yield FakeMachine, "start", careless


@mutant
def known_by_number_alone() -> Iterator[Patch]:
    """A process is known by its number alone."""

    def find(self: FakeDriver, handle: Mapping[str, Any]) -> Any:
        return next((one for one in self.machine.processes.values() if one.pid == handle["pid"]), None)

    yield FakeDriver, "_process", find


@mutant
def a_boot_is_not_noticed() -> Iterator[Patch]:
    """An agent does not notice that its machine was started anew."""

    def same(state: AllocationState, now: float, *, same_boot: bool) -> tuple[AllocationState, tuple[Action, ...]]:
        return recover(state, now, same_boot=True)

    yield workload, "recover", same


@mutant
def attempts_are_not_removed() -> Iterator[Patch]:
    """What a stop cannot end is left."""

    async def leave(self: Runner, state: AllocationState, task: str, attempt: int) -> None:
        return None

    yield Runner, "_remove", leave


MUTANTS: tuple[Mutant, ...] = (
    starts_before_it_is_noted,
    a_hole_is_damage,
    the_journal_is_not_read,
    restarts_what_runs,
    ends_what_it_finds,
    tells_another_end,
    old_answers_count,
    every_answer_is_complete,
    stops_are_not_heard,
    what_was_not_heard_is_not_told_again,
    begins_again_what_has_ended,
    seen_is_not_remembered,
    pair(
        the_lease_is_not_asked_for,
        the_helper_starts_without_a_lease,
        "Neither the agent nor the helper asks for a lease before an exclusive task starts.",
    ),
    pair(a_boot_is_not_noticed, known_by_number_alone, "After a boot an agent takes strangers for its own processes."),
)
