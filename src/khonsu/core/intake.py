"""Intake: what a submit, a scale, a revert or a stop makes of a job. Pure decisions; the caller writes them."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

from khonsu.core.diff import same_spec
from khonsu.core.job import Job
from khonsu.core.names import nearest
from khonsu.core.records import JobRecord, JobVersion, Rollout, Time, job_key, version_key
from khonsu.core.results import Outcome
from khonsu.core.states import JOB, JobStatus
from khonsu.core.status import FINISHED
from khonsu.errors import Conflict, InvalidRequest, NotFound, VersionConflict


@frozen(kw_only=True)
class Decision:
    """What becomes of a job.

    Args:
        outcome: In one word.
        record: The job as it is to be recorded.
        version: A version to be recorded with it, or None.
        warnings: What the user may not have meant.

    """

    outcome: Outcome
    record: JobRecord
    version: JobVersion | None = None
    warnings: tuple[str, ...] = ()


def submit(
    record: JobRecord | None,
    versions: Mapping[int, JobVersion],
    spec: Job,
    now: Time,
    *,
    rerun: bool = False,
    expect_version: int | None = None,
    generation: int = 0,
) -> Decision:
    """Decide a submit.

    A spec equal to the present one changes nothing, unless the job is stopped, or is a finished batch job that is to
    run again.

    Args:
        record: The job as it stands, or None.
        versions: Its versions.
        spec: What is submitted.
        now: The time.
        rerun: Whether a finished batch job with this spec runs again.
        expect_version: The version that must be the present one; 0 says that there must be no such job.
        generation: What a new job's fencing tokens begin after.

    Raises:
        VersionConflict: Another version is the present one.

    """
    present = 0 if record is None else record.version
    if expect_version is not None and expect_version != present:
        there = f"version {present} is the present one" if present else "there is no such job"
        raise VersionConflict(
            f"job {spec.name}: expected version {expect_version}, but {there}", hint="look at it again"
        )
    if record is None:
        return _create(spec, now, generation)
    current = versions[record.version]
    if record.stopped or not same_spec(current.spec, spec):
        again = record.stopped or not spec.type.keeps_running or current.spec.type is not spec.type
        return _renew(record, versions, spec, now, origin="submit", again=again, warnings=_overridden(current, spec))
    if rerun and not spec.type.keeps_running and record.status in FINISHED:
        return Decision(outcome="rerun", record=_begin(evolve(record, run=record.run + 1), now))
    return Decision(outcome="unchanged", record=record)


def scale(record: JobRecord, versions: Mapping[int, JobVersion], count: int, group: str | None, now: Time) -> Decision:
    """Decide a scale: a new version that differs in the count of one group. What a batch job has done stays done.

    Raises:
        Conflict: The job is stopped.
        InvalidRequest: The job has one copy per node, or the group has to be named.
        NotFound: It has no such group.

    """
    spec = versions[record.version].spec
    names = [one.name for one in spec.groups]
    if record.stopped:
        raise Conflict(f"job {record.name} is stopped", hint="submit it again, with the count you want")
    if spec.type.everywhere:
        raise InvalidRequest(f"job {record.name} is a {spec.type} job: it has one copy on every node")
    if group is None and len(names) > 1:
        raise InvalidRequest(f"job {record.name} has the groups {', '.join(names)}: say which one to scale")
    name = names[0] if group is None else group
    chosen = spec.group(name)
    if chosen is None:
        raise NotFound("group", name, nearest=nearest(name, names))
    if chosen.count == count:
        return Decision(outcome="unchanged", record=record)
    groups = [evolve(one, count=count) if one.name == name else one for one in spec.groups]
    changed = evolve(spec, groups=groups)
    message = f"{name} from {chosen.count} to {count}"
    return _renew(record, versions, changed, now, origin="scale", again=False, message=message)


def revert(record: JobRecord, versions: Mapping[int, JobVersion], version: int, now: Time) -> Decision:
    """Decide a revert: the spec of an earlier version becomes a new one.

    Raises:
        NotFound: The version is not known any more.

    """
    target = versions.get(version)
    if target is None:
        known = ", ".join(str(number) for number in sorted(versions))
        raise NotFound("version", str(version), hint=f"job {record.name} has the versions {known}")
    current = versions[record.version]
    if not record.stopped and same_spec(current.spec, target.spec):
        return Decision(outcome="unchanged", record=record)
    again = record.stopped or not target.spec.type.keeps_running
    message = f"back to version {version}"
    return _renew(record, versions, target.spec, now, origin="revert", again=again, message=message)


def stop(record: JobRecord, now: Time, *, purge: bool) -> Decision:
    """Decide a stop: nothing of the job is to run; with `purge` it is forgotten after that."""
    if record.stopped and (record.purge or not purge):
        return Decision(outcome="unchanged", record=record)
    rollout = record.rollout
    if rollout is not None and rollout.status == "running":
        rollout = _cancelled(rollout, now)
    stopped = evolve(
        record,
        stopped=True,
        purge=purge or record.purge,
        status=JOB.step(record.status, "stop", record.key),
        rollout=rollout,
        message="",
    )
    return Decision(outcome="updated", record=stopped)


def _cancelled(rollout: Rollout, now: Time) -> Rollout:
    return evolve(rollout, status="cancelled", progressed_at=now, message="the job was stopped")


def next_version(
    job: str,
    versions: Mapping[int, JobVersion],
    spec: Job,
    now: Time,
    *,
    origin: str,
    message: str = "",
    failed_version: int | None = None,
) -> JobVersion:
    """Return the version of a job that comes after those it has."""
    number = max(versions, default=0) + 1
    return JobVersion(
        key=version_key(job, number),
        job=job,
        version=number,
        spec=spec,
        created_at=now,
        origin=origin,
        failed_version=failed_version,
        message=message,
    )


def _create(spec: Job, now: Time, generation: int) -> Decision:
    key = job_key(spec.namespace, spec.name)
    record = JobRecord(
        key=key,
        namespace=spec.namespace,
        name=spec.name,
        type=spec.type,
        version=1,
        generation=generation,
        created_at=now,
        submitted_at=now,
    )
    version = next_version(key, {}, spec, now, origin="submit")
    return Decision(outcome="created", record=record, version=version)


def _renew(
    record: JobRecord,
    versions: Mapping[int, JobVersion],
    spec: Job,
    now: Time,
    *,
    origin: str,
    again: bool,
    message: str = "",
    warnings: tuple[str, ...] = (),
) -> Decision:
    """Make a new version; `again` begins a new run, in which nothing is done yet."""
    version = next_version(record.key, versions, spec, now, origin=origin, message=message)
    begun = evolve(record, type=spec.type, version=version.version, stopped=False, purge=False, run=record.run + again)
    return Decision(outcome="updated", record=_begin(begun, now), version=version, warnings=warnings)


def _begin(record: JobRecord, now: Time) -> JobRecord:
    status = record.status
    # A service that runs goes on running while its copies are replaced.
    if status is not JobStatus.RUNNING or not record.type.keeps_running:
        status = JOB.step(status, "submit", record.key)
    return evolve(record, status=status, submitted_at=now, message="")


def _overridden(current: JobVersion, spec: Job) -> tuple[str, ...]:
    """Return what of an earlier scale a submit undoes."""
    if current.origin != "scale":
        return ()
    found = []
    for group in spec.groups:
        before = current.spec.group(group.name)
        if before is not None and before.count != group.count:
            found.append(
                f"the count {group.count} of group {group.name} overrides the {before.count} that it was scaled to"
            )
    return tuple(found)
