"""The planner: commits what of a plan still fits. The one writer of new allocations and of what is wanted of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from khonsu.control.batch import Batch
from khonsu.control.broker import cancelled
from khonsu.control.looks import Scene
from khonsu.control.state import State
from khonsu.core.ids import AllocationId, EvaluationId
from khonsu.core.intake import next_version
from khonsu.core.records import Allocation, Evaluation, JobRecord, PlacementFailure, Time
from khonsu.core.reports import lost
from khonsu.core.revision import Revision
from khonsu.core.states import EVALUATION, Desired, EvaluationStatus, JobStatus

if TYPE_CHECKING:
    from khonsu.core.plan import Conflict, Plan
    from khonsu.core.verify import Verdict


@frozen(kw_only=True)
class Result:
    """What became of a plan.

    Args:
        revision: The revision of the commit.
        accepted: How many placements were committed.
        rejected: How many were not, because the fleet had changed.
        stale: Whether nothing was committed, because the job had changed.
        conflicts: What was not committed, and why.

    """

    revision: Revision
    accepted: int = 0
    rejected: int = 0
    stale: bool = False
    conflicts: tuple[Conflict, ...] = ()

    @property
    def settled(self) -> bool:
        """Return whether the evaluation has ended."""
        return not self.rejected and not self.stale


class Planner:
    """Checks plans against the present, and writes what fits."""

    def __init__(self, state: State) -> None:
        """Write to a state."""
        self._state = state

    async def commit(self, evaluation: Evaluation, scene: Scene, plan: Plan | None) -> Result:
        """Commit a plan for what a look found; without a plan there is nothing to place.

        The evaluation ends with it, unless some placements were refused: then it stays pending, to be looked at again.

        Raises:
            PluginError: The plan is not one that answers the look.
            StoreError: Nothing was written.

        """
        tables = self._state.tables
        present = tables.evaluations.get(evaluation.id)
        if present is None or present.status is not EvaluationStatus.PENDING:
            return Result(revision=self._state.durable)
        if not scene.holds(tables.jobs.get(evaluation.job)):
            return Result(revision=self._state.durable, stale=True)
        batch = self._state.batch()
        result = self._gather(batch, present, scene, plan)
        await self._state.commit(batch)
        return result

    def _gather(self, batch: Batch, evaluation: Evaluation, scene: Scene, plan: Plan | None) -> Result:
        """Put into a batch all that a plan changes."""
        placed: list[Allocation] = []
        conflicts: tuple[Conflict, ...] = ()
        rejected = 0
        if plan is not None and len(plan.placements):
            from khonsu.core.verify import check_plan, verify

            check_plan(plan, scene.changes, len(plan.nodes))
            verdict = verify(plan, self._state.columns.fleet, scene.spec)
            rejected, conflicts = verdict.rejected, verdict.conflicts
            placed = self._allocations(batch, evaluation, scene, plan, verdict)
            batch.put(*placed)
        self._stop(batch, scene)
        self._put_job(batch, scene, placed)
        if rejected:
            batch.put(evolve(evaluation, attempts=evaluation.attempts + 1))
        else:
            self._end(batch, evaluation, scene, () if plan is None else plan.unplaced)
        self._tell(batch, evaluation, scene, placed)
        return Result(revision=batch.revision, accepted=len(placed), rejected=rejected, conflicts=conflicts)

    def _allocations(  # the columns of a plan become records here, and nowhere else
        self, batch: Batch, evaluation: Evaluation, scene: Scene, plan: Plan, verdict: Verdict
    ) -> list[Allocation]:
        """Return the new allocations of what a verdict accepts."""
        wanted = {(place.group, place.slot): place for place in scene.changes.place}
        nodes = self._state.tables.nodes
        record = scene.record
        columns = zip(
            plan.placements.group.tolist(),
            plan.placements.slot.tolist(),
            plan.placements.node.tolist(),
            plan.score.tolist(),
            verdict.accepted.tolist(),
            verdict.ports or ((),) * len(plan.placements),
            strict=True,
        )
        made = []
        for group, slot, row, score, accepted, ports in columns:
            if not accepted:
                continue
            place = wanted[plan.groups[group], slot]
            node = plan.nodes[row]
            made.append(
                Allocation(
                    id=AllocationId(self._state.new_id()),
                    namespace=record.namespace,
                    job=record.name,
                    version=record.version,
                    run=record.run,
                    group=place.group,
                    slot=slot,
                    node_id=node,
                    node=nodes[node].name,
                    generation=record.generation + 1,
                    ports=ports,
                    previous=place.previous.id if place.previous is not None else None,
                    replaces=place.replaces,
                    reschedules=place.reschedules,
                    evaluation=EvaluationId(evaluation.id),
                    score=score,
                    created_at=batch.now,
                    changed_at=batch.now,
                    desired_at=batch.revision.number,
                    message=place.reason,
                )
            )
        return made

    def _stop(self, batch: Batch, scene: Scene) -> None:
        """Have what is too much stopped, label what runs on, and give up what is lost."""
        tables = self._state.tables
        number = batch.revision.number
        reasons = {stop.allocation: stop.reason for stop in scene.changes.stop}
        adopted = dict.fromkeys(scene.changes.adopt)
        given_up = dict.fromkeys(scene.changes.mark_lost)
        # In the order of the look: that of a set would differ from process to process.
        for key in {**reasons, **adopted, **given_up}:
            allocation = tables.allocations.get(key)
            if allocation is None or not allocation.live:
                continue
            if key in adopted:
                allocation = evolve(allocation, version=scene.record.version, desired_at=number)
            if key in reasons:
                allocation = evolve(allocation, desired=Desired.STOP, desired_at=number, message=reasons[key])
            if key in given_up:
                reason = "its node is silent for too long" if allocation.node_id in tables.nodes else "its node is gone"
                allocation = lost(allocation, batch.now, reason)
                batch.event("allocation-lost", reason, allocation=allocation)
                batch.evaluate(scene.record.key, "allocation-lost")
            batch.put(allocation)

    def _put_job(self, batch: Batch, scene: Scene, placed: list[Allocation]) -> None:
        """Record how the job stands, and go back to the stable version where the rollout failed."""
        changes = scene.changes
        record = scene.record
        after = evolve(
            record,
            status=changes.status,
            rollout=changes.rollout,
            generation=record.generation + bool(placed),
            stable_version=record.version if changes.stable else record.stable_version,
            message=changes.message or ("" if changes.status is not JobStatus.FAILED else record.message),
        )
        if changes.stable:
            version = self._state.tables.versions[record.key][record.version]
            batch.put(evolve(version, stable=True))
        if changes.revert_to is not None:
            after = self._revert(batch, after, changes.revert_to)
        if after != record:
            batch.put(after)

    def _revert(self, batch: Batch, record: JobRecord, version: int) -> JobRecord:
        """Make the spec of a stable version the present one again, as a new version."""
        versions = self._state.tables.versions[record.key]
        message = f"version {record.version} failed: back to version {version}"
        again = next_version(
            record.key,
            versions,
            versions[version].spec,
            batch.now,
            origin="revert",
            message=message,
            failed_version=record.version,
        )
        batch.put(again)
        batch.event("job-reverted", message, job=record)
        batch.evaluate(record.key, "revert")
        return evolve(record, version=again.version)

    def _end(self, batch: Batch, evaluation: Evaluation, scene: Scene, unplaced: tuple[PlacementFailure, ...]) -> None:
        """End an evaluation: it blocks while copies have no place."""
        for other in self._state.tables.evaluations_of(evaluation.job):
            if other.status is EvaluationStatus.BLOCKED and other.id != evaluation.id:
                batch.put(cancelled(other, "superseded"))
        blocked = bool(unplaced)
        batch.put(
            evolve(
                evaluation,
                status=EVALUATION.step(evaluation.status, "block" if blocked else "complete"),
                failures=unplaced,
                blocked_on=tuple(sorted({reason for failure in unplaced for reason in failure.reasons})),
                message="",
            )
        )
        if scene.changes.wake_at is not None:
            batch.evaluate(scene.record.key, "due", not_before=scene.changes.wake_at)

    def _tell(self, batch: Batch, evaluation: Evaluation, scene: Scene, placed: list[Allocation]) -> None:
        """Record what happened: one event for the plan, whatever its size, and one for each turn of the job."""
        changes, record = scene.changes, scene.record
        if placed or changes.stop or changes.adopt:
            groups = Counter(allocation.group for allocation in placed)
            parts = [f"placed {count} of {group}" for group, count in sorted(groups.items())]
            parts += [f"stopped {len(changes.stop)}"] if changes.stop else []
            parts += [f"kept {len(changes.adopt)} as they are"] if changes.adopt else []
            nodes = sorted({allocation.node for allocation in placed})[:20]
            details = {"trigger": evaluation.trigger, "placed": dict(groups), "nodes": nodes}
            batch.event("job-planned", ", ".join(parts), job=record, details=details)
        if changes.status is not record.status:
            batch.event(f"job-{changes.status}", changes.message, job=record)
        if changes.rollout is not None and changes.rollout != record.rollout:
            before = record.rollout.status if record.rollout and record.rollout.version == record.version else None
            if changes.rollout.status != before:
                batch.event(f"rollout-{changes.rollout.status}", changes.rollout.message, job=record)

    async def give_up(self, evaluation: Evaluation, message: str, retry_seconds: float) -> None:
        """End an evaluation that cannot be decided, say why, and look at the job again later."""
        present = self._state.tables.evaluations.get(evaluation.id)
        record = self._state.tables.jobs.get(evaluation.job)
        if present is None or present.status is not EvaluationStatus.PENDING:
            return
        batch = self._state.batch()
        batch.put(evolve(present, status=EVALUATION.step(present.status, "fail"), message=message))
        if record is not None:
            batch.put(evolve(record, message=message))
            batch.event("evaluation-failed", message, job=record)
            batch.evaluate(record.key, "retry", not_before=Time(batch.now + retry_seconds))
        await self._state.commit(batch)

    async def cancel(self, evaluation: Evaluation, message: str) -> None:
        """End an evaluation whose job is gone."""
        present = self._state.tables.evaluations.get(evaluation.id)
        if present is not None and present.status is EvaluationStatus.PENDING:
            batch = self._state.batch()
            batch.put(cancelled(present, message))
            await self._state.commit(batch)
