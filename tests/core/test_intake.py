"""Intake: what a request makes of a job."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from khonsu.core import intake
from khonsu.core.intake import Decision
from khonsu.core.job import Job
from khonsu.core.records import JobRecord, JobVersion, Rollout, Time
from khonsu.core.states import JobStatus
from khonsu.errors import Conflict, InvalidRequest, NotFound, VersionConflict
from tests.core.rules_model import make_group, make_job

NOW = Time(50.0)


def created(spec: Job, **fields: Any) -> tuple[JobRecord, dict[int, JobVersion]]:
    """Return a job that was submitted once, with some fields as they became later."""
    decision = intake.submit(None, {}, spec, Time(1.0))
    assert decision.version is not None
    return evolve(decision.record, **fields), {1: decision.version}


def applied(decision: Decision, versions: dict[int, JobVersion]) -> tuple[JobRecord, dict[int, JobVersion]]:
    """Return a job and its versions after a decision."""
    new = decision.version
    return decision.record, {**versions, **({new.version: new} if new is not None else {})}


def test_a_new_job_has_version_1() -> None:
    """It waits to be looked at."""
    decision = intake.submit(None, {}, make_job(), NOW, expect_version=0)
    assert decision.outcome == "created"
    assert (decision.record.version, decision.record.run, decision.record.status) == (1, 1, JobStatus.PENDING)
    assert decision.version is not None
    assert decision.version.key == "default/web/1"


def test_an_equal_spec_changes_nothing() -> None:
    """However often it is submitted."""
    record, versions = created(make_job(count=2))
    decision = intake.submit(record, versions, make_job(count=2), NOW)
    assert decision == Decision(outcome="unchanged", record=record)


def test_another_spec_is_a_new_version() -> None:
    """A service that runs goes on running."""
    record, versions = created(make_job(), status=JobStatus.RUNNING, message="old news")
    decision = intake.submit(record, versions, make_job(work=2), NOW)
    assert decision.outcome == "updated"
    assert (decision.record.version, decision.record.run, decision.record.message) == (2, 1, "")
    assert decision.record.status is JobStatus.RUNNING
    assert decision.record.submitted_at == NOW


def test_a_new_version_of_a_batch_job_is_a_new_run() -> None:
    """What the run before has done does not count any more."""
    record, versions = created(make_job("batch"), status=JobStatus.RUNNING)
    decision = intake.submit(record, versions, make_job("batch", work=2), NOW)
    assert (decision.record.version, decision.record.run, decision.record.status) == (2, 2, JobStatus.PENDING)


def test_a_stopped_job_runs_again_as_a_new_version() -> None:
    """The spec may be the same."""
    record, versions = created(make_job())
    record = intake.stop(record, NOW, purge=False).record
    decision = intake.submit(record, versions, make_job(), NOW)
    assert decision.outcome == "updated"
    assert (decision.record.version, decision.record.stopped, decision.record.status) == (2, False, JobStatus.PENDING)


@pytest.mark.parametrize(
    ("job_type", "status", "rerun", "expected"),
    [
        ("batch", JobStatus.COMPLETE, True, "rerun"),
        ("batch", JobStatus.FAILED, True, "rerun"),
        ("sysbatch", JobStatus.COMPLETE, True, "rerun"),
        ("batch", JobStatus.COMPLETE, False, "unchanged"),
        ("batch", JobStatus.RUNNING, True, "unchanged"),
        ("service", JobStatus.FAILED, True, "unchanged"),
    ],
)
def test_only_a_finished_batch_job_runs_anew(job_type: str, status: JobStatus, rerun: bool, expected: str) -> None:
    """And only where that is asked for."""
    record, versions = created(make_job(job_type), status=status)
    decision = intake.submit(record, versions, make_job(job_type), NOW, rerun=rerun)
    assert decision.outcome == expected
    assert decision.record.run == (2 if expected == "rerun" else 1)
    assert decision.record.status is (JobStatus.PENDING if expected == "rerun" else status)


def test_a_job_of_another_type_begins_anew() -> None:
    """A service that becomes a batch job has done nothing yet."""
    record, versions = created(make_job())
    decision = intake.submit(record, versions, make_job("batch"), NOW)
    assert (str(decision.record.type), decision.record.run) == ("batch", 2)


@pytest.mark.parametrize(("there", "expected"), [(True, 2), (True, 0), (False, 1)])
def test_a_job_that_changed_meanwhile_is_a_conflict(there: bool, expected: int) -> None:
    """Whoever expects another version is told which one is present."""
    record, versions = created(make_job()) if there else (None, {})
    with pytest.raises(VersionConflict, match="version 1 is the present one" if there else "there is no such job"):
        intake.submit(record, versions, make_job(work=2), NOW, expect_version=expected)


def test_a_submit_says_that_it_overrides_a_scale() -> None:
    """Only where the count differs, and only of the scale that it undoes."""
    record, versions = applied(intake.scale(*created(make_job(count=2)), 5, None, NOW), created(make_job(count=2))[1])
    decision = intake.submit(record, versions, make_job(count=2), NOW)
    assert decision.warnings == ("the count 2 of group main overrides the 5 that it was scaled to",)
    assert intake.submit(record, versions, make_job(count=5, work=2), NOW).warnings == ()
    record, versions = applied(decision, versions)
    assert intake.submit(record, versions, make_job(count=3), NOW).warnings == ()


# Scale.


def test_a_scale_is_a_new_version_of_the_same_run() -> None:
    """What a batch job has done stays done."""
    record, versions = created(make_job("batch", count=1), status=JobStatus.COMPLETE)
    decision = intake.scale(record, versions, 3, None, NOW)
    assert (decision.record.version, decision.record.run, decision.record.status) == (2, 1, JobStatus.PENDING)
    assert decision.version is not None
    assert (decision.version.origin, decision.version.spec.groups[0].count) == ("scale", 3)
    assert intake.scale(record, versions, 1, None, NOW).outcome == "unchanged"


def test_a_scale_has_to_name_one_of_several_groups() -> None:
    """An unknown one comes with the nearest known."""
    record, versions = created(make_job("service", make_group("front"), make_group("back")))
    with pytest.raises(InvalidRequest, match="front, back"):
        intake.scale(record, versions, 3, None, NOW)
    with pytest.raises(NotFound, match="did you mean front"):
        intake.scale(record, versions, 3, "frnt", NOW)
    decision = intake.scale(record, versions, 3, "back", NOW)
    assert decision.version is not None
    assert [group.count for group in decision.version.spec.groups] == [1, 3]


def test_some_jobs_cannot_be_scaled() -> None:
    """A stopped one has to be submitted, and one for every node has no count."""
    record, versions = created(make_job())
    with pytest.raises(Conflict):
        intake.scale(evolve(record, stopped=True), versions, 3, None, NOW)
    with pytest.raises(InvalidRequest, match="one copy on every node"):
        intake.scale(*created(make_job("system")), 3, None, NOW)


# Revert and stop.


def test_a_revert_is_a_new_version_with_an_old_spec() -> None:
    """Its origin says so, since a revert is not reverted."""
    record, versions = created(make_job())
    record, versions = applied(intake.submit(record, versions, make_job(work=2), NOW), versions)
    decision = intake.revert(record, versions, 1, NOW)
    assert decision.version is not None
    assert (decision.version.version, decision.version.origin) == (3, "revert")
    assert decision.version.spec == make_job()
    assert intake.revert(record, versions, 2, NOW).outcome == "unchanged"
    with pytest.raises(NotFound, match="has the versions 1, 2"):
        intake.revert(record, versions, 9, NOW)


def test_a_stop_ends_the_rollout_and_is_idempotent() -> None:
    """Stopping twice changes nothing, unless the job is now to be forgotten as well."""
    rollout = Rollout(version=1, started_at=NOW, progressed_at=NOW)
    record, _ = created(make_job(), rollout=rollout, status=JobStatus.RUNNING)
    stopped = intake.stop(record, NOW, purge=False).record
    assert (stopped.stopped, stopped.status) == (True, JobStatus.STOPPED)
    assert stopped.rollout is not None
    assert stopped.rollout.status == "cancelled"
    assert intake.stop(stopped, NOW, purge=False).outcome == "unchanged"
    assert intake.stop(stopped, NOW, purge=True).record.purge
