"""The status of a job, and the counts that are shown of it."""

from __future__ import annotations

import pytest

from khonsu.core.results import GroupSummary
from khonsu.core.states import AllocationStatus, Desired, JobStatus, JobType
from khonsu.core.status import Tally, current_allocations, group_summaries, job_status, latest_first
from tests.core.rules_model import make_allocation, make_job, make_record

A = AllocationStatus


@pytest.mark.parametrize(
    ("job_type", "tally", "expected"),
    [
        ("service", Tally(), "running"),
        ("service", Tally(wanted=2), "pending"),
        ("service", Tally(wanted=2, live=2, started=1), "running"),
        ("service", Tally(wanted=2, up=2, live=2, started=2), "running"),
        ("service", Tally(wanted=2, up=1, live=1, started=1, given_up=1), "failed"),
        ("service", Tally(wanted=3, up=1, live=2, started=1, given_up=1), "running"),
        ("batch", Tally(), "complete"),
        ("batch", Tally(wanted=2, done=1, live=1, started=1), "running"),
        ("batch", Tally(wanted=2, done=2), "complete"),
        ("batch", Tally(wanted=2, done=1, given_up=1), "failed"),
        ("batch", Tally(wanted=2, done=1), "pending"),
        ("system", Tally(), "pending"),
        ("system", Tally(wanted=1, up=1, live=1, started=1), "running"),
        ("sysbatch", Tally(), "pending"),
        ("sysbatch", Tally(wanted=1, done=1), "complete"),
        ("sysbatch", Tally(wanted=1, done=1, live=1, started=1), "running"),
    ],
)
def test_the_status_follows_from_the_slots(job_type: str, tally: Tally, expected: str) -> None:
    """For each type of job."""
    assert job_status(JobStatus.PENDING, JobType(job_type), tally) == expected


@pytest.mark.parametrize("status", [JobStatus.STOPPED, JobStatus.FAILED, JobStatus.COMPLETE])
def test_an_end_lasts_until_somebody_submits(status: JobStatus) -> None:
    """No count of copies takes it back."""
    assert job_status(status, JobType.SERVICE, Tally(wanted=1, up=1, live=1, started=1)) is status


def test_a_halted_rollout_fails_its_job() -> None:
    """Whatever still runs."""
    tally = Tally(wanted=1, up=1, live=1, started=1)
    assert job_status(JobStatus.RUNNING, JobType.SERVICE, tally, halted=True) is JobStatus.FAILED


def test_the_summary_counts_each_slot_once() -> None:
    """By the copy that stands for it; what is to stop is not counted."""
    spec = make_job(count=5)
    copies = [
        make_allocation(0),
        make_allocation(1, health=None),
        make_allocation(10, slot=1, status=A.FAILED, generation=0),
        make_allocation(2, status=A.UNKNOWN),
        make_allocation(3, desired=Desired.STOP),
        make_allocation(4, status=A.FAILED),
    ]
    expected = GroupSummary(name="main", count=5, running=2, healthy=1, unknown=1, failed=1)
    assert group_summaries(make_record(spec), spec, copies) == (expected,)


def test_a_system_job_counts_its_copies() -> None:
    """It has no count of its own."""
    spec = make_job("system")
    (summary,) = group_summaries(make_record(spec), spec, [make_allocation(0), make_allocation(1, 1)])
    assert (summary.count, summary.healthy) == (2, 2)


def test_a_copy_that_is_heard_of_stands_before_one_that_is_not() -> None:
    """The replacement stands for the slot while the old copy is unknown."""
    spec = make_job()
    old = make_allocation(0, status=A.UNKNOWN)
    new = make_allocation(1, 1, slot=0, generation=2)
    assert current_allocations(make_record(spec), spec, [old, new]) == (new,)
    assert current_allocations(make_record(spec), spec, [old]) == (old,)
    assert current_allocations(make_record(spec, run=2), spec, [old]) == ()
    assert latest_first([old, new]) == [new, old]
