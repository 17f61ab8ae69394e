"""The planner: commits what of a plan still fits. The one writer of new allocations and of what is wanted of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from khonsu.control.batch import Batch
from khonsu.control.broker import cancelled
from khonsu.control.group import Group
from khonsu.control.looks import Scene
from khonsu.control.placed import Placed, column
from khonsu.control.state import State
from khonsu.core.ids import EvaluationId
from khonsu.core.intake import next_version
from khonsu.core.records import Evaluation, JobRecord, PlacementFailure, Time
from khonsu.core.reports import lost
from khonsu.core.revision import Revision
from khonsu.core.states import EVALUATION, Desired, EvaluationStatus, JobStatus

if TYPE_CHECKING:
    from khonsu.core.plan import Conflict, Plan
    from khonsu.core.verify import Verdict


RETRY_SECONDS = 5.0
RETRY_SECONDS_MAX = 300.0
"""After how long a job that could not be decided is looked at again: at first, and at most."""


@frozen(kw_only=True)
class Result:
    """What became of a plan.

    Args:
        revision: The revision of the decision.
        group: What it goes to the disk with; None where there was nothing to decide.
        accepted: How many placements were committed.
        rejected: How many were not, because the fleet had changed.
        stale: Whether nothing was committed, because the job had changed.
        conflicts: What was not committed, and why.

    """

    revision: Revision
    group: Group | None = None
    accepted: int = 0
    rejected: int = 0
    stale: bool = False
    conflicts: tuple[Conflict, ...] = ()

    @property
    def settled(self) -> bool:
        """Return whether the evaluation has ended."""
        return not self.rejected and not self.stale

    async def durable(self) -> Revision:
        """Wait until it is on the disk, and return its revision.

        Raises:
            StoreError: It was not written, and is undone.

        """
        return self.revision if self.group is None else await self.group.durable()


class Planner:
    """Checks plans against the present, and writes what fits."""

    def __init__(self, state: State) -> None:
        """Write to a state."""
        self._state = state
        self._given_up: dict[str, int] = {}
        """How often in a row evaluations of a job could not be decided."""

    def decide(self, evaluation: Evaluation, scene: Scene, plan: Plan | None) -> Result:
        """Decide on a plan for what a look found; without a plan there is nothing to place.

        The evaluation ends with it, unless some placements were refused: then it stays pending, to be looked at again.

        Raises:
            PluginError: The plan is not one that answers the look.
            StoreError: The last commit failed and the tables are being rebuilt.

        """
        tables = self._state.tables
        present = tables.evaluations.get(evaluation.id)
        if present is None or present.status is not EvaluationStatus.PENDING:
            return Result(revision=self._state.durable)
        if not scene.holds(tables.jobs.get(evaluation.job)):
            return Result(revision=self._state.durable, stale=True)
        verdict = self._verdict(scene, plan)
        batch = self._state.batch()
        placed = self._gather(batch, present, scene, plan, verdict)
        self._given_up.pop(evaluation.job, None)
        return Result(
            revision=batch.revision,
            group=self._state.apply(batch),
            accepted=0 if placed is None else len(placed),
            rejected=0 if verdict is None else verdict.rejected,
            conflicts=() if verdict is None else verdict.conflicts,
        )

    def _verdict(self, scene: Scene, plan: Plan | None) -> Verdict | None:
        """Decide what of a plan fits now; None where there is nothing to place."""
        if plan is None:
            return None
        from khonsu.core.verify import check_plan, verify

        check_plan(plan, scene.changes, len(plan.nodes), scene.spec)
        if not len(plan.placements):
            return None
        return verify(plan, self._state.columns.fleet, scene.spec, wanted=scene.changes.place)

    def _gather(
        self, batch: Batch, evaluation: Evaluation, scene: Scene, plan: Plan | None, verdict: Verdict | None
    ) -> Placed | None:
        """Put into a batch all that a plan changes, and return what it places."""
        placed = None
        if plan is not None and verdict is not None and verdict.accepted.any():
            placed = self._placed(batch, evaluation, scene, plan, verdict)
            batch.place(placed)
        self._stop(batch, scene)
        self._put_job(batch, scene, placed)
        if verdict is not None and verdict.rejected:
            batch.put(evolve(evaluation, attempts=evaluation.attempts + 1))
        else:
            self._end(batch, evaluation, scene, () if plan is None else plan.unplaced)
        self._tell(batch, evaluation, scene, placed)
        return placed

    def _placed(  # the columns of a plan become those of allocations here, and nowhere else
        self, batch: Batch, evaluation: Evaluation, scene: Scene, plan: Plan, verdict: Verdict
    ) -> Placed:
        """Return the new allocations of what a verdict accepts."""
        record, nodes, keep = scene.record, self._state.tables.nodes, verdict.accepted
        groups = [plan.groups[group] for group in plan.placements.group[keep].tolist()]
        slots = plan.placements.slot[keep].tolist()
        node_ids = [plan.nodes[row] for row in plan.placements.node[keep].tolist()]
        wanted = {(place.group, place.slot): place for place in scene.changes.place}
        places = [wanted[key] for key in zip(groups, slots, strict=True)]
        each = {
            "slot": slots,
            "node": [nodes[node].name for node in node_ids],
            "score": plan.score[keep].tolist(),
            "previous": column([place.previous and place.previous.id for place in places]),
            "replaces": column([place.replaces for place in places]),
            "reschedules": column([place.reschedules for place in places]),
            "message": column([place.reason for place in places]),
        }
        if verdict.ports:
            each["ports"] = [ports for ports, accepted in zip(verdict.ports, keep.tolist(), strict=True) if accepted]
        same = {
            "namespace": record.namespace,
            "job": record.name,
            "version": record.version,
            "run": record.run,
            "generation": record.generation + 1,
            "evaluation": EvaluationId(evaluation.id),
            "created_at": batch.now,
            "changed_at": batch.now,
            "desired_at": batch.revision.number,
        }
        return Placed(
            first=self._state.new_keys(len(places)),
            node_ids=node_ids,
            groups=groups,
            same={**same, **{name: value for name, value in each.items() if not isinstance(value, list)}},
            each={name: value for name, value in each.items() if isinstance(value, list)},
        )

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
                # Its agent is told to stop it, should it come back and run it still.
                allocation = evolve(
                    lost(allocation, batch.now, reason), desired=Desired.STOP, desired_at=batch.revision.number
                )
                batch.event("allocation-lost", reason, allocation=allocation)
                batch.evaluate(scene.record.key, "allocation-lost")
            batch.put(allocation)

    def _put_job(self, batch: Batch, scene: Scene, placed: Placed | None) -> None:
        """Record how the job stands, and go back to the stable version where the rollout failed."""
        changes = scene.changes
        record = scene.record
        after = evolve(
            record,
            status=changes.status,
            rollout=changes.rollout,
            generation=record.generation + (placed is not None),
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

    def _tell(self, batch: Batch, evaluation: Evaluation, scene: Scene, placed: Placed | None) -> None:
        """Record what happened: one event for the plan, whatever its size, and one for each turn of the job."""
        changes, record = scene.changes, scene.record
        if placed or changes.stop or changes.adopt:
            groups = Counter(placed.groups if placed is not None else ())
            parts = [f"placed {count} of {group}" for group, count in sorted(groups.items())]
            parts += [f"stopped {len(changes.stop)}"] if changes.stop else []
            parts += [f"kept {len(changes.adopt)} as they are"] if changes.adopt else []
            nodes = sorted(set(placed.each["node"]))[:20] if placed is not None else []
            details = {"trigger": evaluation.trigger, "placed": dict(groups), "nodes": nodes}
            batch.event("job-planned", ", ".join(parts), job=record, details=details)
        if changes.status is not record.status:
            batch.event(f"job-{changes.status}", changes.message, job=record)
        if changes.rollout is not None and changes.rollout != record.rollout:
            before = record.rollout.status if record.rollout and record.rollout.version == record.version else None
            if changes.rollout.status != before:
                batch.event(f"rollout-{changes.rollout.status}", changes.rollout.message, job=record)

    async def give_up(self, evaluation: Evaluation, message: str) -> None:
        """End an evaluation that cannot be decided, say why, and look at the job again later, each time later still."""
        present = self._state.tables.evaluations.get(evaluation.id)
        record = self._state.tables.jobs.get(evaluation.job)
        if present is None or present.status is not EvaluationStatus.PENDING:
            return
        batch = self._state.batch()
        batch.put(evolve(present, status=EVALUATION.step(present.status, "fail"), message=message))
        if record is not None:
            batch.put(evolve(record, message=message))
            batch.event("evaluation-failed", message, job=record)
            failures = self._given_up[record.key] = self._given_up.get(record.key, 0) + 1
            delay = min(RETRY_SECONDS * 2.0 ** min(failures - 1, 16), RETRY_SECONDS_MAX)
            batch.evaluate(record.key, "retry", not_before=Time(batch.now + self._state.env.jittered(delay)))
        await self._state.commit(batch)

    async def cancel(self, evaluation: Evaluation, message: str) -> None:
        """End an evaluation whose job is gone."""
        self._given_up.pop(evaluation.job, None)
        present = self._state.tables.evaluations.get(evaluation.id)
        if present is not None and present.status is EvaluationStatus.PENDING:
            batch = self._state.batch()
            batch.put(cancelled(present, message))
            await self._state.commit(batch)
