"""Outcomes: what a client that waits is told."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from khonsu.core.ids import EvaluationId
from khonsu.core.job import Job
from khonsu.core.outcome import describe, job_result
from khonsu.core.records import (
    Allocation,
    Evaluation,
    JobRecord,
    JobVersion,
    PlacementFailure,
    Rollout,
    TaskStatus,
    Time,
    version_key,
)
from khonsu.core.results import JobResult
from khonsu.core.revision import Revision
from khonsu.core.states import AllocationStatus, Desired, EvaluationStatus, JobStatus, TaskState
from khonsu.errors import NotFound
from tests.core.rules_model import make_allocation, make_job, make_record

A = AllocationStatus
FAILURE = PlacementFailure(group="main", wanted=3, placed=1, nodes=4, reasons={"memory": 3, "constraint os = mac": 1})


def versions(*specs: Job, **failed: int) -> dict[int, JobVersion]:
    """Return versions of the job, numbered from 1."""
    return {
        number: JobVersion(
            key=version_key("default/web", number),
            job="default/web",
            version=number,
            spec=spec,
            created_at=Time(0.0),
            failed_version=failed.get(f"v{number}"),
        )
        for number, spec in enumerate(specs, 1)
    }


def evaluation(status: EvaluationStatus, **fields: Any) -> Evaluation:
    """Return an evaluation of the job."""
    values: dict[str, Any] = {
        "id": EvaluationId("e"),
        "job": "default/web",
        "priority": 50,
        "trigger": "submit",
        "status": status,
        "created_at": Time(0.0),
    }
    return Evaluation(**{**values, **fields})


def result(
    spec: Job,
    *allocations: Allocation,
    record: JobRecord | None = None,
    evaluations: tuple[Evaluation, ...] = (),
    **options: Any,
) -> JobResult:
    """Return the result of a job with one version, or with those that are given."""
    known = options.pop("versions", versions(spec))
    job = make_record(spec) if record is None else record
    return job_result(job, known, allocations, evaluations, revision=Revision(1, 1), **options)


def test_a_service_is_done_when_all_copies_are_healthy() -> None:
    """One that is not healthy yet is waited for."""
    spec = make_job(count=2)
    good = make_allocation(0)
    assert result(spec, good, make_allocation(1)).status == "healthy"
    assert result(spec, good, make_allocation(1, health=None)).status == "pending"
    assert result(spec, good).status == "pending"
    assert result(spec, good).exit_code is None


def test_the_copies_of_the_version_before_do_not_make_a_new_one_healthy() -> None:
    """Until somebody has looked at a new version there is nothing to be said of it."""
    spec = make_job(count=1)
    record = make_record(spec, version=2)
    answer = result(spec, make_allocation(0), record=record, versions=versions(spec, spec))
    assert answer.status == "pending"


def test_a_rollout_has_to_end() -> None:
    """All copies may be healthy while old ones are still replaced."""
    spec = make_job(count=1)
    rollout = Rollout(version=1, started_at=Time(0.0), progressed_at=Time(0.0))
    record = make_record(spec, rollout=rollout)
    assert result(spec, make_allocation(0), record=record).status == "pending"
    over = evolve(record, rollout=evolve(rollout, status="successful"))
    assert result(spec, make_allocation(0), record=over).status == "healthy"


@pytest.mark.parametrize(
    ("status", "stopped", "expected"),
    [
        (JobStatus.COMPLETE, False, "complete"),
        (JobStatus.FAILED, False, "failed"),
        (JobStatus.STOPPED, True, "stopped"),
    ],
)
def test_the_end_of_a_job_is_its_result(status: JobStatus, stopped: bool, expected: str) -> None:
    """What ended is not waited for."""
    spec = make_job("batch")
    assert result(spec, record=make_record(spec, status=status, stopped=stopped)).status == expected


def test_a_blocked_job_says_what_is_missing() -> None:
    """The message counts the nodes by reason, the most frequent first."""
    spec = make_job(count=3)
    blocked = evaluation(EvaluationStatus.BLOCKED, failures=(FAILURE,))
    answer = result(spec, make_allocation(0), evaluations=(blocked,))
    assert answer.status == "blocked"
    assert answer.unplaced == 2
    expected = "2 of 3 copies of main have no place: memory (3 of 4 nodes), constraint os = mac (1 of 4 nodes)"
    assert answer.message == expected


def test_a_failure_without_nodes_says_so() -> None:
    """No node at all is a reason, too."""
    assert describe([PlacementFailure(group="main", wanted=1, placed=0, nodes=0)]).endswith("there are no nodes")


def test_a_batch_job_that_gets_on_is_not_blocked() -> None:
    """While some of its copies run there is room to come for the others."""
    spec = make_job("batch", count=3)
    blocked = evaluation(EvaluationStatus.BLOCKED, failures=(FAILURE,))
    assert result(spec, make_allocation(0), evaluations=(blocked,)).status == "pending"
    assert result(spec, make_allocation(0, status=A.COMPLETE), evaluations=(blocked,)).status == "blocked"
    assert result(spec, make_allocation(0, status=A.UNKNOWN), evaluations=(blocked,)).status == "blocked"


def test_a_system_job_that_no_node_suits_is_blocked() -> None:
    """Nothing runs, and nothing will until a node comes that suits; once looked at, that is known."""
    spec = make_job("system")
    assert result(spec, evaluations=(evaluation(EvaluationStatus.PENDING),)).status == "pending"
    assert (result(spec).status, result(spec).message) == ("blocked", "no node suits it")
    assert result(spec, make_allocation(0)).status == "healthy"


def test_an_earlier_version_was_superseded_or_reverted() -> None:
    """Who waited for it learns which."""
    spec = make_job()
    record = make_record(spec, version=3)
    known = versions(spec, spec, spec, v3=2)
    assert result(spec, record=record, versions=known, version=2).status == "reverted"
    assert result(spec, record=record, versions=known, version=1).status == "superseded"
    assert result(spec, record=evolve(record, run=2), versions=known, version=3, run=1).status == "superseded"
    assert result(spec, record=evolve(record, run=2), versions=known, run=1).status == "superseded"


@pytest.mark.parametrize("asked", [{"version": 4}, {"version": 0}, {"run": 77}, {"run": 0}])
def test_what_never_was_has_no_result(asked: dict[str, Any]) -> None:
    """A version or a run that the job never had is not found, whatever else became of the job."""
    spec = make_job()
    with pytest.raises(NotFound, match="of job web"):
        result(spec, record=make_record(spec, version=3), versions=versions(spec, spec, spec), **asked)


def task(name: str, status: TaskState, **fields: Any) -> TaskStatus:
    """Return a task that has been started."""
    return TaskStatus(name=name, status=status, started_at=Time(1.0), **fields)


def test_the_exit_code_is_that_of_the_first_failed_task() -> None:
    """By group, slot and task; a signal counts from 128 on."""
    spec = make_job("batch", count=3)
    copies = [
        make_allocation(2, status=A.FAILED, tasks=(task("a", TaskState.FAILED, exit_code=7),)),
        make_allocation(0, status=A.COMPLETE, exit_code=0, tasks=(task("a", TaskState.COMPLETE, exit_code=0),)),
        make_allocation(1, status=A.FAILED, tasks=(task("a", TaskState.FAILED, signal=9),)),
    ]
    assert result(spec, *copies).exit_code == 137
    assert result(spec, copies[1]).exit_code == 0
    assert result(spec).exit_code is None


def test_a_slot_is_shown_by_the_copy_that_stands_for_it() -> None:
    """Earlier tries and copies that are to stop step back."""
    spec = make_job("batch", count=2)
    copies = [
        make_allocation(1, slot=0, status=A.FAILED),
        make_allocation(2, slot=0, status=A.COMPLETE, generation=2),
        make_allocation(3, slot=1, desired=Desired.STOP, generation=3),
        make_allocation(4, slot=1, generation=2),
        make_allocation(5, slot=7, status=A.FAILED),
    ]
    assert [one.id for one in result(spec, *copies).allocations] == ["a0002", "a0004"]
