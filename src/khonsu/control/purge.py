"""Purging: a stopped job is forgotten as soon as its copies have ended."""

from __future__ import annotations

from khonsu.control.state import State
from khonsu.core.records import JobRecord, version_key


async def purge(state: State, record: JobRecord) -> bool:
    """Forget a job that is to be purged and has nothing left that runs; return whether it is gone."""
    allocations = state.tables.allocations_of(record.key)
    if not (record.stopped and record.purge) or any(allocation.live for allocation in allocations):
        return False
    batch = state.batch()
    batch.delete("allocation", *(allocation.id for allocation in allocations), pruned=True)
    batch.delete("job_version", *(version_key(record.key, number) for number in state.tables.versions[record.key]))
    batch.delete("job", record.key)
    batch.event("job-purged", job=record)
    await state.commit(batch)
    return True
