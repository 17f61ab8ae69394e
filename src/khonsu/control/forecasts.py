"""Forecasts: what a submit would change, and why copies are where they are. Nothing here is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from attrs import evolve

from khonsu.control.calls import Call
from khonsu.control.find import find_job
from khonsu.control.jobs import Jobs
from khonsu.control.looks import Looks
from khonsu.control.schedulers import Schedulers
from khonsu.control.state import State
from khonsu.core import intake
from khonsu.core.changes import Changes
from khonsu.core.codec import to_json
from khonsu.core.diff import diff_jobs
from khonsu.core.ids import EvaluationId
from khonsu.core.intake import Decision
from khonsu.core.job import Job
from khonsu.core.records import Allocation, Evaluation, JobRecord, job_key
from khonsu.core.results import Explanation, GroupPlan, JobPlan
from khonsu.core.status import FINISHED, group_summaries

if TYPE_CHECKING:
    from khonsu.abc.scheduler import Scheduler
    from khonsu.core.plan import Plan, Snapshot

T = TypeVar("T")

AT_ONCE_MAX = 4
"""So many forecasts are made with one scheduler at a time; each takes a thread."""


class Forecasts:
    """Serves `job.plan` and `job.explain`; schedulers run on threads of their own."""

    def __init__(self, state: State, looks: Looks, jobs: Jobs, schedulers: Schedulers) -> None:
        """Look at a state."""
        self._state = state
        self._looks = looks
        self._jobs = jobs
        self._schedulers = schedulers
        self._room: defaultdict[str, anyio.Semaphore] = defaultdict(lambda: anyio.Semaphore(AT_ONCE_MAX))

    async def plan(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.plan`."""
        spec, _ = await self._jobs.read(call)
        key = job_key(spec.namespace, spec.name)
        tables = self._state.tables
        record = tables.jobs.get(key)
        before = None if record is None else tables.spec(key, record.version)
        decision = intake.submit(record, tables.versions.get(key, {}), spec, self._state.now(), rerun=True)
        changes = self._looks.changes(decision.record, spec, origin="submit")
        snapshot = self._looks.snapshot(decision.record, {decision.record.version: spec})
        scheduler = self._schedulers.get(spec.scheduler)
        plan, explanation = await self._ask(scheduler, partial(_forecast, scheduler, snapshot, changes, spec))
        answer: Mapping[str, Any] = to_json(
            JobPlan(
                namespace=spec.namespace,
                job=spec.name,
                outcome=decision.outcome,
                diff=diff_jobs(before, spec) if decision.outcome != "unchanged" else (),
                groups=tuple(self._groups(spec, decision, changes, plan)),
                explanation=explanation,
            )
        )
        await self._state.settled()
        return answer

    def _groups(self, spec: Job, decision: Decision, changes: Changes, plan: Plan) -> list[GroupPlan]:
        """Return what happens to each group, those that go away last."""
        live = [one for one in self._state.tables.allocations_of(decision.record.key) if one.live]
        placed: dict[str, int] = {}
        for group in plan.placements.group.tolist():
            placed[plan.groups[group]] = placed.get(plan.groups[group], 0) + 1
        lacking = {failure.group: failure.wanted - failure.placed for failure in plan.unplaced}
        names = dict.fromkeys([*(group.name for group in spec.groups), *(one.group for one in live)])
        return [_group(name, live, changes, placed=placed.get(name, 0), lacking=lacking.get(name, 0)) for name in names]

    async def _ask(self, scheduler: Scheduler, question: Callable[[], T]) -> T:
        """Ask a scheduler something on a thread, when it is its turn.

        Raises:
            PluginError: It failed, or does not come back.

        """
        async with (
            self._room[scheduler.name],
            self._schedulers.turn(scheduler),
            self._state.env.worker("forecast") as thread,
        ):
            return await self._schedulers.ask(scheduler, thread, question)

    async def explain(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.explain`."""
        record = find_job(self._state, call.namespace, call.text("name"))
        spec = self._state.tables.spec(record.key, record.version)
        snapshot = self._looks.snapshot(record)
        scheduler = self._schedulers.get(spec.scheduler)
        explanation = await self._ask(scheduler, partial(_explain, scheduler, snapshot))
        explanation = _of_what_is_left(explanation, record, spec, self._state.tables.allocations_of(record.key))
        await self._state.settled()
        answer: Mapping[str, Any] = to_json(explanation)
        return answer


def _of_what_is_left(
    explanation: Explanation, record: JobRecord, spec: Job, allocations: Iterable[Allocation]
) -> Explanation:
    """Return an explanation in which no place is wanted for copies that have done their work."""
    ended = {one.name: one.complete for one in group_summaries(record, spec, allocations)}
    over = record.stopped or (record.status in FINISHED and not spec.type.keeps_running)
    if not over and (spec.type.keeps_running or not any(ended.values())):
        return explanation
    groups = tuple(
        evolve(group, wanted=group.placed if over else max(group.placed, group.wanted - ended.get(group.group, 0)))
        for group in explanation.groups
    )
    status = "stopped" if record.stopped else record.status
    message = f"the job is {status}: nothing of it is to be placed" if over else explanation.message
    return evolve(explanation, groups=groups, message=message)


def _group(name: str, live: list[Allocation], changes: Changes, *, placed: int, lacking: int) -> GroupPlan:
    ours = [one for one in live if one.group == name]
    stopped = {stop.allocation for stop in changes.stop}
    ending = sum(one.id in stopped for one in ours)
    # A copy that is replaced counts as one update, not as a stop and a start.
    replaced = {place.previous.id for place in changes.place if place.group == name and place.previous is not None}
    updates = sum(one.id in replaced for one in ours)
    return GroupPlan(
        group=name,
        place=max(0, placed - updates),
        stop=ending,
        update=updates,
        keep=len(ours) - ending - updates,
        unplaced=lacking,
    )


def _forecast(scheduler: Scheduler, snapshot: Snapshot, changes: Changes, spec: Job) -> tuple[Plan, Explanation]:
    from khonsu.core.explain import explain
    from khonsu.core.verify import check_plan

    evaluation = Evaluation(
        id=EvaluationId("forecast"),
        job=snapshot.job.key,
        priority=spec.priority,
        trigger="plan",
        created_at=snapshot.job.submitted_at,
    )
    plan = scheduler.schedule(evaluation, snapshot, changes)
    check_plan(plan, changes, len(plan.nodes), spec)
    return plan, explain(scheduler, snapshot, plan)


def _explain(scheduler: Scheduler, snapshot: Snapshot) -> Explanation:
    from khonsu.core.explain import explain

    return explain(scheduler, snapshot)
