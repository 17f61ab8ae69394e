"""The pruner: forgets history by the retention policy, a slice at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import anyio.lowlevel

from khonsu.control.batch import Batch
from khonsu.control.purge import keep_generation
from khonsu.control.state import Moves, State
from khonsu.control.tables import ACTIVE
from khonsu.core.records import Evaluation, Event, IdempotencyKey, JobRecord, Record, Setting, key_of, version_key
from khonsu.core.retention import ENDED, Retention, is_old_job, old_allocations, old_versions
from khonsu.errors import StoreError

EVENTS_PRUNED = "events-pruned"
"""The setting that holds the revision of the last event that was forgotten."""

EVENTS_PRUNED_KEY = "events-pruned-key"
"""The setting that holds its key: of a revision with many events, some may be forgotten and others not."""

INTERVAL_SECONDS = 60.0
ROWS_PER_SLICE = 1_000
"""After so many others get a turn."""


class Pruner:
    """Removes what is old. Every slice is an ordinary write whose deletes are marked as pruned."""

    def __init__(self, state: State, policy: Retention) -> None:
        """Work on a state."""
        self._state = state
        self._policy = policy
        self._events: int | None = None
        state.listeners.append(self._count)
        state.rebuilt.append(self._recount)

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

    def _uncount(self, count: int) -> None:
        if self._events is not None:
            self._events -= count

    def _recount(self) -> None:
        """Count anew: some of what was counted is undone."""
        self._events = None

    async def _prune_jobs(self) -> None:
        keys = deque(self._state.tables.jobs)
        while keys:
            batch = self._state.batch()
            forgotten: list[JobRecord] = []
            looked_at = 0
            while keys and looked_at < ROWS_PER_SLICE:
                looked_at += 1 + self._prune_job(batch, keys.popleft(), forgotten)
            keep_generation(self._state.tables, batch, forgotten)
            if batch.changes:
                await self._state.commit(batch)
            else:
                await anyio.lowlevel.checkpoint()

    def _prune_job(self, batch: Batch, key: str, forgotten: list[JobRecord]) -> int:
        """Gather what is old of a job, and return how many allocations were looked at for it."""
        tables = self._state.tables
        job, versions = tables.jobs.get(key), tables.versions.get(key, {})
        many = len(versions) > self._policy.versions_max
        if job is None or not (job.status in ENDED or tables.allocations.ended(key) or many):
            # Its copies need not be made to see that nothing of it is old.
            return 0
        allocations = tables.allocations_of(key)
        if is_old_job(job, allocations, self._policy, batch.now):
            batch.delete("allocation", *(allocation.id for allocation in allocations), pruned=True)
            batch.delete("job_version", *(version_key(key, number) for number in versions), pruned=True)
            batch.delete("job", key, pruned=True)
            forgotten.append(job)
            return len(allocations)
        old = old_allocations(allocations, self._policy, batch.now)
        batch.delete("allocation", *(allocation.id for allocation in old), pruned=True)
        gone = {allocation.id for allocation in old}
        kept = [allocation for allocation in allocations if allocation.id not in gone]
        outdated = old_versions(job, versions, kept, self._policy)
        batch.delete("job_version", *(version.key for version in outdated), pruned=True)
        return len(allocations)

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
        while page := await self._state.page("event", None, ROWS_PER_SLICE):
            if self._events is None:
                self._events = await self._count_events()
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
                revision = Setting(key=EVENTS_PRUNED, value=str(old[-1].revision))
                batch.put(revision, Setting(key=EVENTS_PRUNED_KEY, value=old[-1].id))
                await self._state.commit(batch)
            self._uncount(len(old))
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
