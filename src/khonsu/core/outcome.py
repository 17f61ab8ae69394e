"""Outcomes: how a run of a job stands or ended, as a client waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from khonsu.core.job import Job
from khonsu.core.records import Allocation, Evaluation, JobRecord, JobVersion, PlacementFailure
from khonsu.core.results import GroupSummary, JobResult, ResultStatus, first_failed_task
from khonsu.core.revision import Revision
from khonsu.core.states import AllocationStatus, Desired, EvaluationStatus, JobStatus
from khonsu.core.status import current_allocations, group_summaries
from khonsu.errors import NotFound


def job_result(
    record: JobRecord,
    versions: Mapping[int, JobVersion],
    allocations: Iterable[Allocation],
    evaluations: Iterable[Evaluation],
    *,
    revision: Revision,
    version: int | None = None,
    run: int | None = None,
) -> JobResult:
    """Return how a run of a job stands.

    Args:
        record: The job.
        versions: Its versions.
        allocations: All that are known of it.
        evaluations: Those that have not ended.
        revision: The revision of all this.
        version: The version that is asked about; None is the present one.
        run: The run that is asked about; None is the present one.

    Raises:
        NotFound: There never was such a version or run.

    """
    spec = versions[record.version].spec
    known = tuple(allocations)
    current = current_allocations(record, spec, known)
    summaries = group_summaries(record, spec, known)
    failures = blocking(evaluations)
    waiting = any(
        evaluation.status is EvaluationStatus.PENDING and not evaluation.not_before for evaluation in evaluations
    )
    status = _overtaken(record, versions, version, run) or _status(
        record, spec, summaries, current, failures, waiting=waiting
    )
    return JobResult(
        namespace=record.namespace,
        job=record.name,
        version=record.version if version is None else version,
        run=record.run if run is None else run,
        type=record.type,
        status=status,
        allocations=current,
        unplaced=_unplaced(spec, summaries, failures),
        exit_code=exit_code(spec, current),
        message=record.message or describe(failures) or ("no node suits it" if status == "blocked" else ""),
        revision=revision,
    )


def blocking(evaluations: Iterable[Evaluation]) -> tuple[PlacementFailure, ...]:
    """Return what has no place, and why."""
    blocked = (one for one in evaluations if one.status is EvaluationStatus.BLOCKED)
    return tuple(failure for evaluation in blocked for failure in evaluation.failures)


def describe(failures: Sequence[PlacementFailure]) -> str:
    """Return in a sentence why copies have no place."""
    parts = []
    for failure in failures:
        reasons = sorted(failure.reasons.items(), key=lambda item: (-item[1], item[0]))
        why = ", ".join(f"{reason} ({count} of {failure.nodes} nodes)" for reason, count in reasons)
        missing = failure.wanted - failure.placed
        parts.append(
            f"{missing} of {failure.wanted} copies of {failure.group} have no place: {why or 'there are no nodes'}"
        )
    return "; ".join(parts)


def exit_code(spec: Job, current: Sequence[Allocation]) -> int | None:
    """Return the exit code of a batch job: 0, or that of the first task that failed, by group, slot and task."""
    if spec.type.keeps_running or not any(task.started_at for one in current for task in one.tasks):
        return None
    failed = first_failed_task(tuple(current))
    if failed is not None:
        return failed.code if failed.code is not None else 1
    return 0 if all(one.exit_code == 0 for one in current) else None


def _overtaken(
    record: JobRecord, versions: Mapping[int, JobVersion], version: int | None, run: int | None
) -> ResultStatus | None:
    """Return what became of a run that is not the present one any more.

    Raises:
        NotFound: There never was such a version or run of the job.

    """
    if version in (None, record.version) and run in (None, record.run):
        return None
    for kind, number, newest in (("version", version, record.version), ("run", run, record.run)):
        if number is not None and not 1 <= number <= newest:
            raise NotFound(kind, str(number), hint=f"the newest {kind} of job {record.name} is {newest}")
    undone = version is not None and any(one.failed_version == version for one in versions.values())
    return "reverted" if undone else "superseded"


def _status(
    record: JobRecord,
    spec: Job,
    summaries: Sequence[GroupSummary],
    current: Sequence[Allocation],
    failures: Sequence[PlacementFailure],
    *,
    waiting: bool,
) -> ResultStatus:
    if record.stopped:
        return "stopped"
    if record.status in (JobStatus.FAILED, JobStatus.COMPLETE):
        return "failed" if record.status is JobStatus.FAILED else "complete"
    wanted = [one for one in current if one.live and one.desired is Desired.RUN]
    # A batch job that does not fit as a whole gets on all the same, as its first copies end.
    gets_on = not spec.type.keeps_running and any(one.status is not AllocationStatus.UNKNOWN for one in wanted)
    nowhere = spec.type.everywhere and not current and not waiting
    if (failures and not gets_on) or nowhere:
        return "blocked"
    rolling = (
        record.rollout is not None and record.rollout.version == record.version and record.rollout.status == "running"
    )
    whole = all(summary.healthy >= summary.count for summary in summaries)
    # Until somebody has looked at a new version, the healthy copies are those of the version before.
    fresh = all(one.version == record.version for one in wanted)
    settled = spec.type.keeps_running and whole and fresh and not rolling
    # A job on every node has no count of its own: it must have been looked at first.
    if settled and not (waiting and (spec.type.everywhere or rolling)):
        return "healthy"
    return "pending"


def _unplaced(spec: Job, summaries: Sequence[GroupSummary], failures: Sequence[PlacementFailure]) -> int:
    if spec.type.everywhere:
        return sum(failure.wanted - failure.placed for failure in failures)
    return sum(
        max(0, one.count - one.pending - one.starting - one.running - one.unknown - one.complete - one.failed)
        for one in summaries
    )
