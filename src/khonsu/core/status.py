"""The status of a job, and the counts behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from attrs import frozen

from khonsu.core.job import Job
from khonsu.core.records import Allocation, JobRecord
from khonsu.core.results import GroupSummary
from khonsu.core.states import JOB, AllocationStatus, Desired, JobStatus, JobType

_A = AllocationStatus
FINISHED = (JobStatus.COMPLETE, JobStatus.FAILED)


@frozen(kw_only=True)
class Tally:
    """The slots of a job, counted.

    Args:
        wanted: Slots that are to have a copy, or whose work is done.
        up: Those whose copy does its work.
        done: Those whose work is done.
        given_up: Those whose attempts are used up.
        live: Copies that live, or may live, in slots whose work is not done.
        started: Those of them that an agent has begun with.

    """

    wanted: int = 0
    up: int = 0
    done: int = 0
    given_up: int = 0
    live: int = 0
    started: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(
            wanted=self.wanted + other.wanted,
            up=self.up + other.up,
            done=self.done + other.done,
            given_up=self.given_up + other.given_up,
            live=self.live + other.live,
            started=self.started + other.started,
        )


def job_status(status: JobStatus, job_type: JobType, tally: Tally, *, halted: bool = False) -> JobStatus:
    """Return the status of a job that is not stopped.

    A failed job stays so until somebody submits, scales or reverts it. A service fails when all that can still become
    of its copies has come, and one was given up; a batch job when it is over and one was given up.
    """
    if status is JobStatus.STOPPED:
        return status
    return JOB.step(status, _event(job_type, tally, halted=halted)) if status not in FINISHED else status


def _event(job_type: JobType, tally: Tally, *, halted: bool) -> str:
    if halted:
        return "fail"
    # On a node that is silent or gets no new work a copy of a job for every node may still end well.
    open_ended = job_type is JobType.SYSBATCH and tally.live > 0
    settled = (
        tally.done + tally.given_up + (tally.up if job_type.keeps_running else 0) == tally.wanted and not open_ended
    )
    if settled and tally.given_up:
        return "fail"
    if job_type.keeps_running:
        # Nothing wanted is as good as running, but a system job without a node waits for one.
        idle = tally.wanted == 0 and not job_type.everywhere
        return "start" if tally.started or idle else "wait"
    # A job for every node is not done before there was one.
    if settled and (tally.done or not job_type.everywhere):
        return "complete"
    return "start" if tally.started else "wait"


def group_summaries(record: JobRecord, spec: Job, allocations: Iterable[Allocation]) -> tuple[GroupSummary, ...]:
    """Return the counts of each group, from the current allocation of each slot.

    What is to stop is not counted. For jobs on every node the count is that of the copies.
    """
    counts: dict[str, Counter[str]] = {group.name: Counter() for group in spec.groups}
    for one in current_allocations(record, spec, allocations):
        counter = counts.get(one.group)
        if counter is None:
            continue
        if one.live and one.desired is Desired.RUN:
            counter["all"] += 1
            counter["pending" if one.status is _A.STOPPING else str(one.status)] += 1
            counter["healthy"] += one.status is _A.RUNNING and one.health is True
        elif one.status in (_A.COMPLETE, _A.FAILED):
            counter[str(one.status)] += 1
            counter["all"] += 1
    return tuple(
        GroupSummary(
            name=group.name,
            count=counts[group.name]["all"] if spec.type.everywhere else group.count,
            pending=counts[group.name]["pending"],
            starting=counts[group.name]["starting"],
            running=counts[group.name]["running"],
            healthy=counts[group.name]["healthy"],
            complete=counts[group.name]["complete"],
            failed=counts[group.name]["failed"],
            unknown=counts[group.name]["unknown"],
        )
        for group in spec.groups
    )


def current_allocations(record: JobRecord, spec: Job, allocations: Iterable[Allocation]) -> tuple[Allocation, ...]:
    """Return the allocation that stands for each slot of the present run, by group and slot.

    For a slot whose work is done that is the one that did it; else one that is to run before one that is to stop, one
    that is heard of before one that is not, and then the latest. Slots that are not wanted any more have none, unless
    something still runs there.
    """
    counts = {group.name: group.count for group in spec.groups}
    found: dict[tuple[str, int], Allocation] = {}
    for one in allocations:
        wanted = one.group in counts and (spec.type.everywhere or one.slot < counts[one.group])
        if one.run != record.run or not (wanted or one.live):
            continue
        slot = (one.group, one.slot)
        other = found.get(slot)
        if other is None or _weight(one, spec.type) > _weight(other, spec.type):
            found[slot] = one
    return tuple(found[slot] for slot in sorted(found))


def _weight(one: Allocation, job_type: JobType) -> tuple[bool, bool, bool, int, float, str]:
    done = one.status is _A.COMPLETE and not job_type.keeps_running
    runs = one.live and one.desired is Desired.RUN
    return (done, runs and one.status is not _A.UNKNOWN, runs, one.generation, one.created_at, one.id)


def latest_first(allocations: Iterable[Allocation]) -> Sequence[Allocation]:
    """Return allocations by age, the newest first: how a job's story is shown."""
    return sorted(allocations, key=lambda one: (one.created_at, one.generation, one.id), reverse=True)
