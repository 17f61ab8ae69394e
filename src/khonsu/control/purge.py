"""Purging: a stopped job is forgotten as soon as its copies have ended."""

from __future__ import annotations

from collections.abc import Iterable

from khonsu.control.batch import Batch
from khonsu.control.state import State
from khonsu.control.tables import Tables
from khonsu.core.records import JobRecord, Setting, version_key

GENERATION = "generation"
"""The setting that holds the highest generation of all jobs that were forgotten."""


def generation_left(tables: Tables) -> int:
    """Return the generation that a new job begins with.

    Whatever a job of its name had before, the fencing tokens of its slots go on growing.
    """
    known = tables.settings.get(GENERATION)
    return int(known.value) if known is not None else 0


def keep_generation(tables: Tables, batch: Batch, forgotten: Iterable[JobRecord]) -> None:
    """Remember the highest generation of jobs that are forgotten with a batch."""
    before = generation_left(tables)
    highest = max((job.generation for job in forgotten), default=0)
    if highest > before:
        batch.put(Setting(key=GENERATION, value=highest))


async def purge(state: State, record: JobRecord) -> bool:
    """Forget a job that is to be purged and has nothing left that runs; return whether it is gone."""
    allocations = state.tables.allocations_of(record.key)
    if not (record.stopped and record.purge) or any(allocation.live for allocation in allocations):
        return False
    batch = state.batch()
    batch.delete("allocation", *(allocation.id for allocation in allocations), pruned=True)
    batch.delete("job_version", *(version_key(record.key, number) for number in state.tables.versions[record.key]))
    batch.delete("job", record.key)
    keep_generation(state.tables, batch, [record])
    batch.event("job-purged", job=record)
    await state.commit(batch)
    return True
