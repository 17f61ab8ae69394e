"""Jobs: what users want to run. The one writer of versions, and of whether a job is stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from khonsu.control.calls import Call
from khonsu.control.configs import Configs
from khonsu.control.find import find_allocation, find_job
from khonsu.control.purge import generation_left
from khonsu.control.queries import Queries
from khonsu.control.schedulers import Schedulers
from khonsu.control.state import State
from khonsu.core import intake
from khonsu.core.configs import check_configs, check_scheduler
from khonsu.core.intake import Decision
from khonsu.core.job import COUNT_MAX, Job
from khonsu.core.parse import parse_job
from khonsu.core.records import job_key
from khonsu.core.results import Submission
from khonsu.core.states import Desired
from khonsu.errors import InvalidJob, Problem

GROUPS_READ_INLINE_MAX = 50
"""A job with more groups is read on a thread."""


class Jobs:
    """The operations that change jobs."""

    def __init__(self, state: State, queries: Queries, schedulers: Schedulers) -> None:
        """Work on a state."""
        self._state = state
        self._queries = queries
        self._schedulers = schedulers
        self._configs = Configs(state)

    async def submit(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.submit`."""
        spec, warnings = await self.read(call)
        expected = call.optional_integer("expect_version")
        tables = self._state.tables
        key = job_key(spec.namespace, spec.name)
        decision = intake.submit(
            tables.jobs.get(key),
            tables.versions.get(key, {}),
            spec,
            self._state.now(),
            rerun=call.flag("rerun"),
            expect_version=expected,
            generation=generation_left(tables),
        )
        decision = evolve(decision, warnings=(*warnings, *decision.warnings))
        return await self._carry_out(call, decision, "submit", spec)

    async def scale(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.scale`."""
        job = find_job(self._state, call.namespace, call.text("name"))
        count = call.integer("count", most=COUNT_MAX)
        versions = self._state.tables.versions[job.key]
        decision = intake.scale(job, versions, count, call.optional_text("group"), self._state.now())
        return await self._carry_out(call, decision, "scale")

    async def revert(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.revert`."""
        job = find_job(self._state, call.namespace, call.text("name"))
        versions = self._state.tables.versions[job.key]
        decision = intake.revert(job, versions, call.integer("version", least=1), self._state.now())
        return await self._carry_out(call, decision, "revert")

    async def stop(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.stop`."""
        job = find_job(self._state, call.namespace, call.text("name"))
        batch = self._state.batch()
        decision = intake.stop(job, batch.now, purge=call.flag("purge"))
        if decision.outcome != "unchanged":
            batch.put(decision.record)
            batch.event("job-stopped", job=decision.record)
            batch.evaluate(job.key, "stop")
        answer = call.answer(batch, self._queries.info(decision.record))
        await self._state.commit(batch)
        return answer

    async def stop_allocation(self, call: Call) -> Mapping[str, Any]:
        """Serve `allocation.stop`: the copy stops, and its slot is placed again."""
        allocation = find_allocation(self._state, call.namespace, call.text("id"))
        batch = self._state.batch()
        if allocation.live and allocation.desired is Desired.RUN:
            allocation = evolve(
                allocation, desired=Desired.STOP, desired_at=batch.revision.number, message="stopped by an operator"
            )
            batch.put(allocation)
            batch.event("allocation-stop", "asked for by an operator", allocation=allocation)
            batch.evaluate(allocation.job_key, "allocation-stop")
        answer = call.answer(batch, allocation)
        await self._state.commit(batch)
        return answer

    async def read(self, call: Call) -> tuple[Job, tuple[str, ...]]:
        """Return the job of a call, and what its user may not have meant.

        Raises:
            InvalidJob: It is wrong; has every mistake that can be found here.

        """
        table = call.mapping("job")
        namespace = call.namespace
        if table.get("namespace", namespace) not in (namespace, None):
            found = repr(table["namespace"])
            raise InvalidJob([Problem("namespace", found, f"{namespace!r}, which the request is about")])
        named = {**table, "namespace": namespace}
        groups = table.get("groups")
        passed_over: list[Problem] = []
        if isinstance(groups, list) and len(groups) > GROUPS_READ_INLINE_MAX:
            job = await self._state.env.run_blocking(parse_job, named, passed_over=passed_over)
        else:
            job = parse_job(named, passed_over=passed_over)
        problems = list(check_configs(job, self._configs.schemas()))
        if not self._schedulers.knows(job.scheduler):
            problems.extend(check_scheduler(job, self._schedulers.names()))
        if problems:
            raise InvalidJob(problems)
        return job, tuple(map(_told, passed_over))

    async def _carry_out(
        self, call: Call, decision: Decision, trigger: str, spec: Job | None = None
    ) -> Mapping[str, Any]:
        """Write a decision and answer with it."""
        batch = self._state.batch()
        record = decision.record
        if decision.outcome != "unchanged":
            batch.put(record)
            if decision.version is not None:
                batch.put(decision.version)
                spec = decision.version.spec
            message = decision.version.message if decision.version is not None else ""
            batch.event(f"job-{decision.outcome}", message, job=record)
            batch.evaluate(record.key, trigger, priority=None if spec is None else spec.priority)
        submission = Submission(
            namespace=record.namespace,
            job=record.name,
            version=record.version,
            run=record.run,
            outcome=decision.outcome,
            revision=batch.revision if decision.outcome != "unchanged" else self._state.closed,
            warnings=decision.warnings,
        )
        answer = call.answer(batch, submission)
        if batch.changes:
            await self._state.commit(batch)
        else:
            await self._state.settled()
        return answer


def _told(unknown: Problem) -> str:
    """Return a key that was passed over, as a warning: it may be of a later version, or mistyped."""
    hint = f" (did you mean {unknown.nearest}?)" if unknown.nearest else ""
    return f"{unknown.path} is not known here and was passed over{hint}"
