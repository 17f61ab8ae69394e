"""The pruner: forgets history by the retention policy, a slice at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from khonsu.control.purge import keep_generation
from khonsu.control.state import Moves, State
from khonsu.control.tables import ACTIVE
from khonsu.core.records import Evaluation, Event, IdempotencyKey, JobRecord, Record, Setting, key_of, version_key
from khonsu.core.retention import Retention, is_old_job, old_allocations, old_versions
from khonsu.errors import StoreError

EVENTS_PRUNED = "events-pruned"
"""The setting that holds the revision of the last event that was forgotten."""

INTERVAL_SECONDS = 60.0
ROWS_PER_SLICE = 1_000
JOBS_PER_SLICE = 200


class Pruner:
    """Removes what is old. Every slice is an ordinary write whose deletes are marked as pruned."""

    def __init__(self, state: State, policy: Retention) -> None:
        """Work on a state."""
        self._state = state
        self._policy = policy
        self._events: int | None = None
        state.listeners.append(self._count)

    async def run(self) -> None:
        """Prune every minute, for ever; what cannot be written stays old until the next time."""
        while True:
            await self._state.env.sleep(self._state.env.jittered(INTERVAL_SECONDS))
            with suppress(StoreError):
                await self.prune()

    async def prune(self) -> None:
        """Remove all that is old now."""
        await self._prune_jobs()
        await self._prune_tokens()
        now = self._state.now()
        await self._prune_kind("evaluation", now - self._policy.evaluations_seconds)
        await self._prune_kind("idempotency_key", now - self._policy.answers_seconds)
        await self._prune_events(now - self._policy.events_seconds)

    def _count(self, moves: Moves) -> None:
        if self._events is not None:
            self._events += sum(isinstance(after, Event) for _, after in moves)

    async def _prune_jobs(self) -> None:
        keys = list(self._state.tables.jobs)
        for start in range(0, len(keys), JOBS_PER_SLICE):
            batch = self._state.batch()
            forgotten: list[JobRecord] = []
            for key in keys[start : start + JOBS_PER_SLICE]:
                job = self._state.tables.jobs.get(key)
                if job is None:
                    continue
                allocations = self._state.tables.allocations_of(key)
                versions = self._state.tables.versions.get(key, {})
                if is_old_job(job, allocations, self._policy, batch.now):
                    batch.delete("allocation", *(allocation.id for allocation in allocations), pruned=True)
                    batch.delete("job_version", *(version_key(key, number) for number in versions), pruned=True)
                    batch.delete("job", key, pruned=True)
                    forgotten.append(job)
                    continue
                old = old_allocations(allocations, self._policy, batch.now)
                batch.delete("allocation", *(allocation.id for allocation in old), pruned=True)
                gone = {allocation.id for allocation in old}
                kept = [allocation for allocation in allocations if allocation.id not in gone]
                outdated = old_versions(job, versions, kept, self._policy)
                batch.delete("job_version", *(version.key for version in outdated), pruned=True)
            keep_generation(self._state.tables, batch, forgotten)
            if batch.changes:
                await self._state.commit(batch)

    async def _prune_tokens(self) -> None:
        batch = self._state.batch()
        over = [token.id for token in self._state.tables.join_tokens.values() if token.expires_at < batch.now]
        batch.delete("join_token", *over, pruned=True)
        if batch.changes:
            await self._state.commit(batch)

    async def _prune_kind(self, kind: str, cutoff: float) -> None:
        """Remove the records of a kind that ended before a time, page by page."""
        after: str | None = None
        while page := await self._state.page(kind, after, ROWS_PER_SLICE):
            await self._delete(kind, [key_of(record) for record in page if _is_old(record, cutoff)])
            after = key_of(page[-1])

    async def _prune_events(self, cutoff: float) -> None:
        """Remove the oldest events: their keys are in the order of time."""
        if self._events is None:
            self._events = await self._count_events()
        while page := await self._state.page("event", None, ROWS_PER_SLICE):
            surplus = self._events - self._policy.events_max
            old = [
                event
                for index, event in enumerate(page)
                if isinstance(event, Event) and (index < surplus or event.at < cutoff)
            ]
            if old:
                batch = self._state.batch()
                batch.delete("event", *map(key_of, old), pruned=True)
                # Who resumes before this has missed something, and is told so.
                batch.put(Setting(key=EVENTS_PRUNED, value=str(old[-1].revision)))
                await self._state.commit(batch)
            self._events -= len(old)
            if len(old) < len(page):
                return

    async def _count_events(self) -> int:
        count = 0
        after: str | None = None
        while page := await self._state.page("event", after, ROWS_PER_SLICE):
            count += len(page)
            after = key_of(page[-1])
        return count

    async def _delete(self, kind: str, keys: Sequence[str]) -> None:
        if keys:
            batch = self._state.batch()
            batch.delete(kind, *keys, pruned=True)
            await self._state.commit(batch)


def _is_old(record: Record, cutoff: float) -> bool:
    match record:
        case Evaluation():
            return record.status not in ACTIVE and record.created_at < cutoff
        case IdempotencyKey():
            return record.created_at < cutoff
        case _:
            return False
