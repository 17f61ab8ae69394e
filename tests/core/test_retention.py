from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.job import Job
from khonsu.core.records import Allocation, JobRecord, JobVersion, Time
from khonsu.core.retention import HOUR, Retention, is_old_job, latest, old_allocations, old_versions
from khonsu.core.states import AllocationStatus, JobStatus
from tests.core.worlds import allocation, job_of, node

A = AllocationStatus
NODE = node(1)
NOW = 1_000 * HOUR
POLICY = Retention()


def copy(number: int, status: AllocationStatus = A.COMPLETE, *, hours: float = 0.0, **fields: Any) -> Allocation:
    """Return a copy in slot 0 that has had its status for some hours."""
    changed = Time(NOW - hours * HOUR)
    values = {"slot": 0, "generation": number, "status": status, "changed_at": changed, **fields}
    return allocation(number, NODE, **values)


def record(status: JobStatus = JobStatus.RUNNING, *, hours: float = 0.0, **fields: Any) -> JobRecord:
    """Return a job that was submitted some hours ago."""
    at = Time(NOW - hours * HOUR)
    values: dict[str, Any] = {
        "key": "default/web",
        "namespace": "default",
        "name": "web",
        "type": job_of().type,
        "version": 1,
        "status": status,
        "created_at": at,
        "submitted_at": at,
    }
    return JobRecord(**{**values, **fields})


def versions(count: int, spec: Job | None = None) -> dict[int, JobVersion]:
    """Return so many versions."""
    made = spec if spec is not None else job_of()
    return {
        number: JobVersion(
            key=f"default/web/{number}", job="default/web", version=number, spec=made, created_at=Time(0)
        )
        for number in range(1, count + 1)
    }


def test_durations_are_as_people_write_them() -> None:
    """They are kept in seconds."""
    assert Retention(allocations="2h", jobs="1d").allocations_seconds == 2 * HOUR
    with pytest.raises(ValueError, match="soon"):
        Retention(events="soon")


def test_the_latest_of_a_slot_lives_or_is_the_newest() -> None:
    """A live copy counts before one that has ended, whatever their ages."""
    old, new = copy(1, A.RUNNING), copy(2)
    assert latest([old, new]) == {("main", 0): old}
    assert latest([copy(1), new]) == {("main", 0): new}


def test_ended_copies_are_forgotten_by_age() -> None:
    """But the latest of each slot stays, however old."""
    aged, young, last = copy(1, hours=30), copy(2, hours=3), copy(3, hours=1)
    assert old_allocations([last, young, aged], POLICY, NOW) == (aged,)
    assert old_allocations([copy(1, hours=999)], POLICY, NOW) == ()


def test_ended_copies_are_forgotten_by_number() -> None:
    """The oldest go first."""
    many = [copy(number, hours=20 - number) for number in range(1, 11)]
    gone = old_allocations(many, Retention(allocations_max=3), NOW)
    assert [one.generation for one in gone] == [1, 2, 3, 4, 5, 6]


def test_what_a_live_copy_came_from_stays() -> None:
    """It is part of the story of what runs."""
    first = copy(1, A.FAILED, hours=99)
    second = copy(2, A.RUNNING, hours=98, previous=first.id)
    assert old_allocations([first, second], POLICY, NOW) == ()


@given(
    st.lists(
        st.tuples(st.sampled_from(AllocationStatus), st.floats(0, 200), st.integers(0, 3), st.integers(1, 3)),
        max_size=12,
    ),
    st.integers(0, 3),
)
def test_nothing_that_lives_is_ever_forgotten(rows: list[tuple[AllocationStatus, float, int, int]], most: int) -> None:
    """Whatever the policy, live copies, the latest of each slot, and the job of a live copy stay."""
    copies = [
        copy(number, status, hours=hours, slot=slot, version=version)
        for number, (status, hours, slot, version) in enumerate(rows, 1)
    ]
    policy = Retention(allocations="0s", allocations_max=most, versions_max=most, jobs="0s")
    gone = old_allocations(copies, policy, NOW)
    kept = [one for one in copies if one not in gone]
    assert not any(one.live for one in gone)
    assert latest(kept) == latest(copies)
    job = record(JobStatus.STOPPED, hours=500, version=2, stable_version=1)
    forgotten = {one.version for one in old_versions(job, versions(5), kept, policy)}
    assert not forgotten & {1, 2, *(one.version for one in kept)}
    if any(one.live for one in copies):
        assert not is_old_job(job, copies, policy, NOW)


def test_the_copy_that_did_the_work_is_remembered() -> None:
    """A slot stays done when a second copy of it was stopped after the first had come back and completed."""
    done, second = copy(1, hours=30.0), copy(2, A.STOPPED, hours=29.0)
    assert old_allocations([done, second], POLICY, NOW) == ()


def test_old_versions_are_forgotten_but_those_in_use() -> None:
    """The present one, the stable one, those of copies, and the newest stay."""
    job = record(version=3, stable_version=2)
    gone = old_versions(job, versions(9), [copy(1, A.RUNNING, version=1)], Retention(versions_max=2))
    assert [one.version for one in gone] == [4, 5, 6, 7]


@pytest.mark.parametrize("status", JobStatus)
def test_only_a_job_that_has_ended_is_forgotten(status: JobStatus) -> None:
    """A week after its last change, and not before."""
    ended = status in (JobStatus.COMPLETE, JobStatus.FAILED, JobStatus.STOPPED)
    assert is_old_job(record(status, hours=8 * 24), [], POLICY, NOW) is ended
    assert not is_old_job(record(status, hours=6 * 24), [], POLICY, NOW)
    assert not is_old_job(record(status, hours=8 * 24), [copy(1, hours=1)], POLICY, NOW)
    late = evolve(copy(1, A.RUNNING), changed_at=Time(0.0))
    assert not is_old_job(record(status, hours=8 * 24), [late], POLICY, NOW)
