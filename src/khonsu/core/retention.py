"""Retention: what of the history is kept, and for how long. Nothing that is live is ever pruned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from khonsu.core.records import Allocation, JobRecord, JobVersion
from khonsu.core.states import AllocationStatus, JobStatus
from khonsu.core.units import seconds

HOUR = 3600.0
ENDED = (JobStatus.COMPLETE, JobStatus.FAILED, JobStatus.STOPPED)


@frozen(kw_only=True)
class Retention:
    """How long history is kept. Durations as `"24h"`; kept in seconds.

    Args:
        allocations: Ended allocations that are not the latest of their slot, after their end.
        allocations_max: At most so many of those per job.
        versions_max: At most so many versions of a job, besides those still in use.
        jobs: Jobs that have ended, after their last change.
        evaluations: Ended evaluations.
        events: Events, by age.
        events_max: At most so many events.
        answers: Answers to requests with an idempotency key.

    """

    allocations_seconds: float = field(default=24 * HOUR, converter=seconds, alias="allocations")
    allocations_max: int = 1_000
    versions_max: int = 20
    jobs_seconds: float = field(default=7 * 24 * HOUR, converter=seconds, alias="jobs")
    evaluations_seconds: float = field(default=1 * HOUR, converter=seconds, alias="evaluations")
    events_seconds: float = field(default=7 * 24 * HOUR, converter=seconds, alias="events")
    events_max: int = 100_000
    answers_seconds: float = field(default=24 * HOUR, converter=seconds, alias="answers")


def latest(allocations: Iterable[Allocation]) -> dict[tuple[str, int], Allocation]:
    """Return the allocation of each slot of a job that is kept whatever its age: a live one, else the newest.

    Of all runs, and of slots that are not wanted any more: what stands for a slot now is told by `current_allocations`.
    """
    found: dict[tuple[str, int], Allocation] = {}
    for allocation in allocations:
        slot = (allocation.group, allocation.slot)
        other = found.get(slot)
        if other is None or _order(allocation) > _order(other):
            found[slot] = allocation
    return found


def _order(allocation: Allocation) -> tuple[bool, int, int, float]:
    return (allocation.live, allocation.run, allocation.generation, allocation.created_at)


def old_allocations(allocations: Iterable[Allocation], policy: Retention, now: float) -> tuple[Allocation, ...]:
    """Return the allocations of one job that may be forgotten, the oldest first."""
    known = tuple(allocations)
    kept = {allocation.id for allocation in latest(known).values()}
    kept |= {allocation.previous for allocation in known if allocation.live and allocation.previous}
    # What has done the work of a batch slot says that it is done, even where another copy ended after it.
    done = (allocation for allocation in known if allocation.status is AllocationStatus.COMPLETE)
    kept |= {allocation.id for allocation in latest(done).values()}
    ended = sorted(
        (allocation for allocation in known if not allocation.live and allocation.id not in kept),
        key=lambda allocation: allocation.changed_at,
    )
    surplus = len(ended) - policy.allocations_max
    cutoff = now - policy.allocations_seconds
    return tuple(
        allocation for index, allocation in enumerate(ended) if index < surplus or allocation.changed_at < cutoff
    )


def old_versions(
    job: JobRecord, versions: Mapping[int, JobVersion], allocations: Iterable[Allocation], policy: Retention
) -> tuple[JobVersion, ...]:
    """Return the versions of a job that may be forgotten: not the present, not the stable, none with allocations."""
    used = {job.version, job.stable_version, *(allocation.version for allocation in allocations)}
    newest = sorted(versions, reverse=True)[: policy.versions_max]
    return tuple(version for number, version in sorted(versions.items()) if number not in used and number not in newest)


def is_old_job(job: JobRecord, allocations: Iterable[Allocation], policy: Retention, now: float) -> bool:
    """Return whether a job has ended for good so long ago that it may be forgotten whole."""
    known = tuple(allocations)
    if job.status not in ENDED or any(allocation.live for allocation in known):
        return False
    last = max([job.submitted_at, *(allocation.changed_at for allocation in known)])
    return last < now - policy.jobs_seconds
