"""A worker: looks at one job after the other. Decides in pure functions, and hands the plan to the planner."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from khonsu.control.broker import Broker
from khonsu.control.group import Group
from khonsu.control.looks import Looks, Scene
from khonsu.control.planner import Planner, Result
from khonsu.control.purge import purge
from khonsu.control.schedulers import Schedulers, learns
from khonsu.control.state import State
from khonsu.core.records import Evaluation
from khonsu.env import Worker as Thread
from khonsu.errors import KhonsuError, StoreError, Unavailable
from khonsu.scopes import bare_task_group

if TYPE_CHECKING:
    from khonsu.abc.scheduler import Scheduler
    from khonsu.core.plan import Plan

ATTEMPTS_MAX = 20
"""So often a plan is made anew at once when others were quicker; then its job is looked at again later."""

STORE_RETRY_SECONDS = 0.5

WRITTEN_MAX = 8
"""So many evaluations that a worker has decided may be on their way to the disk while it looks at the next one."""


class Worker:
    """Takes evaluations from the broker. Several run side by side, each with a thread for its schedulers."""

    def __init__(
        self,
        number: int,
        *,
        state: State,
        broker: Broker,
        looks: Looks,
        planner: Planner,
        schedulers: Schedulers,
    ) -> None:
        """Wire it."""
        self._number = number
        self._state = state
        self._broker = broker
        self._looks = looks
        self._planner = planner
        self._schedulers = schedulers
        self._room = anyio.Semaphore(WRITTEN_MAX)

    async def run(self) -> None:
        """Work for ever."""
        async with bare_task_group() as writing:
            while True:
                async with self._state.env.worker(f"scheduler-{self._number}") as thread:
                    # A thread on which a scheduler does not come back is left to it.
                    while not thread.left:
                        await self._room.acquire()
                        writing.start_soon(self._end, *await self._work(thread))

    async def _work(self, thread: Thread) -> tuple[Evaluation, Group | None]:
        """Take the next evaluation and see to it; return it, and what is to be waited for before it is given back."""
        evaluation = await self._broker.take()
        try:
            return evaluation, await self._evaluate(evaluation, thread)
        except (StoreError, Unavailable):
            await self._rest()
            return evaluation, None

    async def _end(self, evaluation: Evaluation, group: Group | None) -> None:
        """Give an evaluation back when what was decided is on the disk."""
        try:
            if group is not None:
                await group.durable()
        except (StoreError, Unavailable):
            await self._rest()
        finally:
            self._broker.give_back(evaluation)
            self._room.release()

    async def _rest(self) -> None:
        """Wait a moment: nothing was written, and the evaluation is still pending and will be taken again."""
        await self._state.env.sleep(self._state.env.jittered(STORE_RETRY_SECONDS))

    async def _evaluate(self, evaluation: Evaluation, thread: Thread) -> Group | None:
        """Plan and decide until everything fits or is known not to; return what goes to the disk at last."""
        try:
            for _ in range(ATTEMPTS_MAX):
                record = self._state.tables.jobs.get(evaluation.job)
                if record is None or await purge(self._state, record):
                    await self._planner.cancel(evaluation, "the job is gone")
                    return None
                result = await self._attempt(evaluation, self._looks.at(record), thread)
                if result.settled:
                    return result.group
                await result.durable()
        except (StoreError, Unavailable):
            raise
        except KhonsuError as error:
            await self._give_up(evaluation, str(error))
        except Exception as error:  # noqa: BLE001 - a scheduler is a stranger's code
            await self._give_up(evaluation, f"{type(error).__name__}: {error}")
        else:
            await self._give_up(evaluation, "other schedulers were quicker each time")
        return None

    async def _give_up(self, evaluation: Evaluation, message: str) -> None:
        # What failed may have been the decision itself, and would fail again at once after the rebuild.
        await self._state.whole()
        await self._planner.give_up(evaluation, message)

    async def _attempt(self, evaluation: Evaluation, scene: Scene, thread: Thread) -> Result:
        """Make one plan and decide on it."""
        if not scene.changes.place:
            return self._planner.decide(evaluation, scene, None)
        scheduler = self._schedulers.get(scene.spec.scheduler)
        async with self._schedulers.turn(scheduler):
            plan = await self._plan(evaluation, scene, scheduler, thread)
            if crowded := _without_room(scene, plan):
                # There is no room beside the old copies of these slots: there the old copy stops first.
                scene = self._looks.at(scene.record, no_room=crowded)
                plan = await self._plan(evaluation, scene, scheduler, thread)
            result = self._planner.decide(evaluation, scene, plan)
            if learns(scheduler) and not result.stale:
                await self._tell(scheduler, evaluation, result, thread)
            return result

    async def _plan(self, evaluation: Evaluation, scene: Scene, scheduler: Scheduler, thread: Thread) -> Plan:
        snapshot = self._looks.snapshot(scene.record)
        question = partial(scheduler.schedule, evaluation, snapshot, scene.changes)
        return await self._schedulers.ask(scheduler, thread, question)

    async def _tell(self, scheduler: Scheduler, evaluation: Evaluation, result: Result, thread: Thread) -> None:
        """Let a scheduler that learns know what became of its plan."""
        from khonsu.core.plan import Outcome

        outcome = Outcome(
            evaluation=evaluation.id,
            revision=await result.durable(),
            accepted=result.accepted,
            rejected=result.rejected,
            conflicts=result.conflicts,
        )
        await self._schedulers.ask(scheduler, thread, partial(scheduler.observe, outcome))


def _without_room(scene: Scene, plan: Plan) -> frozenset[tuple[str, int]]:
    """Return the slots whose new copy found no place beside the one it replaces."""
    beside = {(place.group, place.slot) for place in scene.changes.place if place.replaces}
    if not beside:
        return frozenset()
    placed = zip(plan.placements.group.tolist(), plan.placements.slot.tolist(), strict=True)
    return frozenset(beside - {(plan.groups[group], slot) for group, slot in placed})
