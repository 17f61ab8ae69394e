"""What a client asks about jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import evolve

from khonsu.client.asking import Asking
from khonsu.client.targets import JobLike, named_job, named_run, placed_in
from khonsu.client.waiting import Look, Patience, Until, Wait
from khonsu.core.brief import brief_job
from khonsu.core.codec import from_json, to_json
from khonsu.core.job import Job
from khonsu.core.records import JobVersion
from khonsu.core.results import Explanation, JobInfo, JobPlan, JobResult, Submission
from khonsu.core.units import DurationLike, optional_seconds, seconds
from khonsu.errors import NotFound, WaitTimeout

GROUPS_LONG_MAX = 50
"""A job with more groups is sent in its short form."""

Progress: TypeAlias = Callable[[JobResult], None]


class JobMethods(Asking):
    """The methods of a client that are about jobs."""

    async def submit(
        self,
        job: Job,
        /,
        *,
        rerun: bool = False,
        expect_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Submit a job.

        Args:
            job: The job; one equal to the present version changes nothing.
            rerun: Whether a finished, unchanged batch job runs again.
            expect_version: The version that must be the present one, 0 for none.
            idempotency_key: Makes a repeat of this call the same submission.

        Raises:
            InvalidJob: With every mistake.
            VersionConflict: Another version is the present one.

        """
        key = idempotency_key or self._env.token_bytes(16).hex()
        body = {**self._spec(job), "rerun": rerun, "expect_version": expect_version}
        return from_json(Submission, await self._asker.call("job.submit", body, key=key))

    async def wait(
        self,
        target: JobLike,
        /,
        *,
        timeout: DurationLike | None = None,
        placement_timeout: DurationLike = "10s",
        until: Until = "done",
        progress: Progress | None = None,
    ) -> JobResult:
        """Wait until a run of a job is done: a service when all copies are healthy, a batch job when it finished.

        A job that failed, was reverted, stopped, superseded or is blocked is returned, not raised. A control plane that
        is away for a while, such as one that is started anew, is asked again.

        Args:
            target: The job, of which the present run is meant, or a submission, whose run is meant.
            timeout: How long to wait in all; None is without end.
            placement_timeout: How long the job may find no place before it is returned as blocked.
            until: Also `"placed"`: as soon as every copy has a place.
            progress: Called with each result on the way.

        Raises:
            WaitTimeout: Time ran out; `result` says what is pending, and why.
            Unreachable: The control plane is away.

        """
        named = named_run(target, self.namespace)
        patience = Patience(
            until=until,
            timeout_seconds=optional_seconds(timeout),
            placement_seconds=seconds(placement_timeout),
        )

        async def ask(look: Look) -> JobResult:
            run = {"version": look.version, "run": look.run} if look.version is not None else {}
            watch: dict[str, Any] = {}
            if look.after is not None:
                # Without somebody who watches the progress, one answer at the end will do.
                held = "change" if progress is not None else until
                watch = {"after": str(look.after), "wait": look.hold_seconds, "until": held}
            return from_json(JobResult, await self._asker.call("job.result", {**named, **run, **watch}))

        try:
            result = await Wait(ask, patience, self._env, progress or _ignore).end()
        except WaitTimeout as error:
            if isinstance(error.result, JobResult):
                error.result = await self._explained(error.result)
            raise
        return await self._explained(result)

    async def _explained(self, result: JobResult) -> JobResult:
        """Return a result with the reason why copies have no place, where some have none."""
        if result.explanation is not None or not result.unplaced or result.status not in ("blocked", "pending"):
            return result
        try:
            return evolve(result, explanation=await self.explain(result))
        except NotFound:  # it was purged meanwhile
            return result

    async def run(self, job: Job, /, *, timeout: DurationLike | None = None) -> JobResult:
        """Submit a job, again if it is a finished batch job, and wait for it."""
        return await self.wait(await self.submit(job, rerun=True), timeout=timeout)

    async def plan(self, job: Job, /) -> JobPlan:
        """Return what submitting a job would change and where its copies would go; commits nothing."""
        return from_json(JobPlan, await self._asker.call("job.plan", self._spec(job)))

    async def explain(self, name: JobLike, /) -> Explanation:
        """Return why a job's copies are where they are, and why the others are nowhere."""
        return from_json(Explanation, await self._asker.call("job.explain", named_job(name, self.namespace)))

    async def job(self, name: JobLike, /) -> JobInfo:
        """Return a job as it stands, with its allocations and latest events."""
        return from_json(JobInfo, await self._asker.call("job.get", named_job(name, self.namespace)))

    async def jobs(self) -> tuple[JobInfo, ...]:
        """Return the jobs of the namespace, by name."""
        return await self._asker.pages("job.list", JobInfo, {"namespace": self.namespace})

    async def history(self, name: JobLike, /) -> tuple[JobVersion, ...]:
        """Return the versions of a job, the newest first."""
        body = await self._asker.call("job.history", named_job(name, self.namespace))
        return from_json(tuple[JobVersion, ...], body["items"])

    async def revert(self, name: JobLike, /, *, version: int) -> Submission:
        """Submit an earlier version's spec again, as a new version."""
        return from_json(
            Submission, await self._asker.call("job.revert", {**named_job(name, self.namespace), "version": version})
        )

    async def scale(self, name: JobLike, /, count: int, *, group: str | None = None) -> Submission:
        """Change the count of a group, as a new version; the group need not be named where there is only one."""
        body = {**named_job(name, self.namespace), "count": count, "group": group}
        return from_json(Submission, await self._asker.call("job.scale", body))

    async def stop(self, name: JobLike, /, *, purge: bool = False) -> JobInfo:
        """Stop a job; with `purge`, forget it as soon as its copies have ended."""
        return from_json(
            JobInfo, await self._asker.call("job.stop", {**named_job(name, self.namespace), "purge": purge})
        )

    def _spec(self, job: Job) -> dict[str, Any]:
        placed = placed_in(job, self.namespace)
        # In the short form ten thousand groups fit into a request; in the long one every default is written out.
        table = brief_job(placed) if len(placed.groups) > GROUPS_LONG_MAX else to_json(placed)
        return {"job": table, "namespace": placed.namespace}


def _ignore(_: JobResult) -> None:
    """Do nothing."""
