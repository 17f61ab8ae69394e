"""The broker: which evaluation is looked at next.

A priority queue of the pending evaluations, at most one in flight per job. It holds nothing that is not in the tables
and is filled again from them after a rebuild.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

import anyio
from attrs import evolve

from khonsu.control.batch import Batch
from khonsu.control.state import Moves, State
from khonsu.core.ids import EvaluationId
from khonsu.core.records import Evaluation, Time
from khonsu.core.states import EVALUATION, EvaluationStatus

OLD_ENTRIES_MIN = 64
"""So many entries of what was superseded are kept at least."""


def cancelled(evaluation: Evaluation, message: str) -> Evaluation:
    """Return an evaluation that is not needed any more."""
    return evolve(evaluation, status=EVALUATION.step(evaluation.status, "cancel"), message=message)


class Broker:
    """Hands out evaluations: the highest priority first, the oldest first among equals."""

    def __init__(self, state: State) -> None:
        """Follow a state."""
        self._state = state
        self._ready: list[tuple[int, float, str]] = []
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        """When each pending evaluation that had to wait is, or was, due; of others `_later` may have old entries."""
        self._in_flight: dict[str, str] = {}
        self._changed = anyio.Event()
        state.preparers.append(self._prepare)
        state.listeners.append(self._follow)
        state.rebuilt.append(self._refill)
        self._refill()

    @property
    def taken(self) -> Collection[str]:
        """Return the evaluations that workers have."""
        return self._in_flight.values()

    @property
    def waiting(self) -> int:
        """Return how many evaluations wait for a worker."""
        return len(self._ready)

    @property
    def put_off(self) -> int:
        """Return how many entries there are of what is due later."""
        return len(self._later)

    async def take(self) -> Evaluation:
        """Wait for the next evaluation and take it: until `give_back`, no other of its job is handed out."""
        while True:
            self._promote()
            evaluation = self._pop()
            if evaluation is not None:
                self._in_flight[evaluation.job] = evaluation.id
                return evaluation
            with anyio.move_on_after(self._pause()):
                await self._changed.wait()

    def give_back(self, evaluation: Evaluation) -> None:
        """Say that a worker is done with an evaluation, whether it ended or not."""
        if self._in_flight.get(evaluation.job) == evaluation.id:
            del self._in_flight[evaluation.job]
        for pending in self._state.tables.evaluations_of(evaluation.job):
            self._push(pending)

    def _prepare(self, batch: Batch) -> None:
        """Turn the wishes of a batch into evaluations: a job never has more than one that waits."""
        for job, look in batch.looks.items():
            waiting = [
                evaluation
                for evaluation in self._state.tables.evaluations_of(job)
                if evaluation.id != self._in_flight.get(job)
            ]
            if any(e.status is EvaluationStatus.PENDING and e.not_before <= look.not_before for e in waiting):
                continue
            priority = look.priority if look.priority is not None else self._priority(job)
            if priority is None:
                continue
            for evaluation in waiting:
                # What is blocked may only be superseded by a look that happens now.
                if evaluation.status is EvaluationStatus.PENDING or not look.not_before:
                    batch.put(cancelled(evaluation, "superseded"))
            batch.put(
                Evaluation(
                    id=EvaluationId(self._state.new_id()),
                    job=job,
                    priority=priority,
                    trigger=look.trigger,
                    created_at=batch.now,
                    not_before=Time(look.not_before),
                )
            )

    def _priority(self, job: str) -> int | None:
        record = self._state.tables.jobs.get(job)
        return self._state.tables.spec(job, record.version).priority if record is not None else None

    def _pause(self) -> float:
        """Return how long nothing becomes ready by itself, in seconds."""
        return max(0.0, self._later[0][0] - self._state.now()) if self._later else float("inf")

    def _promote(self) -> None:
        """Move what has become due to the ready ones."""
        now = self._state.now()
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due and (evaluation := self._state.tables.evaluations.get(key)) is not None:
                heapq.heappush(self._ready, (-evaluation.priority, evaluation.created_at, evaluation.id))

    def _pop(self) -> Evaluation | None:
        """Return the first ready evaluation that may be handed out, and drop those that ended meanwhile."""
        while self._ready:
            _, _, key = heapq.heappop(self._ready)
            evaluation = self._state.tables.evaluations.get(key)
            # What waits behind one of its own job comes back with `give_back`.
            if (
                evaluation is not None
                and evaluation.status is EvaluationStatus.PENDING
                and evaluation.job not in self._in_flight
            ):
                return evaluation
        return None

    def _push(self, evaluation: Evaluation) -> None:
        if evaluation.status is not EvaluationStatus.PENDING:
            self._due.pop(evaluation.id, None)
            return
        now = self._state.now()
        if evaluation.not_before > now and evaluation.id not in self._due:
            self._put_off(evaluation, now)
        elif self._due.get(evaluation.id, 0.0) <= now and evaluation.job not in self._in_flight:
            heapq.heappush(self._ready, (-evaluation.priority, evaluation.created_at, evaluation.id))
        self._wake()

    def _put_off(self, evaluation: Evaluation, now: float) -> None:
        """Keep an evaluation until it is due."""
        # After a restart under a clock set back, nothing waits longer than it was meant to.
        due = min(evaluation.not_before, now + evaluation.not_before - evaluation.created_at)
        self._due[evaluation.id] = due
        heapq.heappush(self._later, (due, evaluation.id))
        if len(self._later) > 2 * len(self._due) + OLD_ENTRIES_MIN:
            # Most of them were superseded, and some would be due in a year.
            self._promote()
            self._later = [(at, key) for key, at in self._due.items() if at > now]
            heapq.heapify(self._later)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _follow(self, moves: Moves) -> None:
        for _, after in moves:
            if isinstance(after, Evaluation):
                self._push(after)

    def _refill(self) -> None:
        self._ready.clear()
        self._later.clear()
        self._due.clear()
        for evaluation in self._state.tables.evaluations.values():
            self._push(evaluation)
