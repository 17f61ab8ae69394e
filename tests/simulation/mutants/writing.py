"""Bugs of what is written, and of what is said about it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from khonsu.control import sync
from khonsu.control.answers import Answers
from khonsu.control.batch import Batch
from khonsu.control.broker import Broker
from khonsu.control.group import Group
from khonsu.control.jobs import Jobs
from khonsu.control.pruner import Pruner
from khonsu.control.state import State
from khonsu.core.ids import make_key
from khonsu.stores import errors, file
from tests.simulation.mutants.planting import Mutant, Patch, always, mutant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from khonsu.control.calls import Call, Operate
    from khonsu.core.intake import Decision
    from khonsu.core.job import Job
    from khonsu.core.revision import Revision
    from khonsu.errors import StoreError


@mutant
def answers_before_the_disk() -> Iterator[Patch]:
    """A write is acknowledged before it is on the disk."""

    async def commit(self: State, batch: Batch) -> Revision:
        return self.apply(batch).revision

    yield State, "commit", commit


def _synchronous(value: str) -> tuple[tuple[str, str | int], ...]:
    return tuple((name, value if name == "synchronous" else setting) for name, setting in file.PRAGMAS)


@mutant
def synchronous_normal() -> Iterator[Patch]:
    """The log is not waited for at a commit."""
    yield file, "PRAGMAS", _synchronous("NORMAL")


@mutant
def synchronous_off() -> Iterator[Patch]:
    """The disk is never waited for."""
    yield file, "PRAGMAS", _synchronous("OFF")


@mutant
def failure_is_forgotten() -> Iterator[Patch]:
    """A commit that failed is taken for one that is durable."""

    async def undo(self: State, group: Group, error: StoreError) -> None:
        self._flying = None
        self._open.revision = group.revision
        group.end()

    yield State, "_undo", undo


@mutant
def memory_is_not_rebuilt() -> Iterator[Patch]:
    """What a failed commit was about stays in memory."""

    async def undo(self: State, group: Group, error: StoreError) -> None:
        self._flying = None
        self._open.revision = group.revision
        group.end(error)

    yield State, "_undo", undo


@mutant
def says_what_is_not_durable() -> Iterator[Patch]:
    """Agents and clients are told of what is not on the disk yet."""

    async def settled(self: State) -> Revision:
        return self._durable

    yield State, "settled", settled


@mutant
def answers_are_not_kept() -> Iterator[Patch]:
    """A request that is repeated with its key is done again."""

    async def once(self: Answers, call: Call, serve: Operate) -> Mapping[str, Any]:
        return await serve(call)

    yield Answers, "once", once


@mutant
def keys_are_not_reserved() -> Iterator[Patch]:
    """After a restart keys are given out again."""

    def new_keys(self: State, count: int) -> int:
        first = self._sequence + 1
        self._sequence += count
        return make_key(self._open.revision.term, first)

    yield State, "new_keys", new_keys


@mutant
def look_comes_later() -> Iterator[Patch]:
    """A job and the wish to look at it are written one after the other."""
    evaluate, carry_out = Batch.evaluate, Jobs._carry_out
    triggers = ("submit", "scale", "revert")

    def later(self: Batch, job: str, trigger: str, **wish: Any) -> None:
        if trigger not in triggers:
            evaluate(self, job, trigger, **wish)

    async def in_two(
        self: Jobs, call: Call, decision: Decision, trigger: str, spec: Job | None = None
    ) -> Mapping[str, Any]:
        answer = await carry_out(self, call, decision, trigger, spec)
        batch = self._state.batch()
        evaluate(batch, decision.record.key, trigger)
        await self._state.commit(batch)
        return answer

    yield Batch, "evaluate", later
    yield Jobs, "_carry_out", in_two


@mutant
def ends_are_not_looked_at() -> Iterator[Patch]:
    """A copy ends, and its job is not looked at."""
    yield sync, "needs_look", always(None)


@mutant
def nothing_is_pruned() -> Iterator[Patch]:
    """The pruner sleeps."""

    async def prune(self: Pruner) -> None:
        return None

    yield Pruner, "prune", prune


@mutant
def looks_pile_up() -> Iterator[Patch]:
    """Each wish for a look is an evaluation, whatever waits."""
    prepare = Broker._prepare

    def each(self: Broker, batch: Batch) -> None:
        tables = self._state.tables
        found = tables.evaluations_of
        try:
            tables.evaluations_of = always(())  # type: ignore[method-assign]
            prepare(self, batch)
        finally:
            tables.evaluations_of = found  # type: ignore[method-assign]

    yield Broker, "_prepare", each


@mutant
def an_error_ends_who_waits() -> Iterator[Patch]:
    """The frames of an error are cleared, also of those that wait (it was so once)."""

    def clear(traceback: TracebackType | None) -> None:
        while traceback is not None:
            with suppress(RuntimeError):
                traceback.tb_frame.clear()
            traceback = traceback.tb_next

    yield errors, "_clear", clear


MUTANTS: tuple[Mutant, ...] = (
    answers_before_the_disk,
    synchronous_normal,
    synchronous_off,
    failure_is_forgotten,
    memory_is_not_rebuilt,
    says_what_is_not_durable,
    answers_are_not_kept,
    keys_are_not_reserved,
    look_comes_later,
    ends_are_not_looked_at,
    nothing_is_pruned,
    looks_pile_up,
    an_error_ends_who_waits,
)
