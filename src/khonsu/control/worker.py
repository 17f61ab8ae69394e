"""A worker: looks at one job after the other. Decides in pure functions, and hands the plan to the planner."""

from __future__ import annotations

from khonsu.control.broker import Broker
from khonsu.control.planner import Planner
from khonsu.control.schedulers import Schedulers
from khonsu.control.state import State
from khonsu.core.changes import Changes
from khonsu.core.records import Evaluation
from khonsu.env import Worker as Thread
from khonsu.errors import KhonsuError, StoreError

ATTEMPTS_MAX = 20
"""So often a plan is made anew at once when others were quicker; then its evaluation goes back to the queue."""

RETRY_SECONDS = 5.0
STORE_RETRY_SECONDS = 0.5


class Worker:
    """Takes evaluations from the broker. Several run side by side, each with a thread for its schedulers."""

    def __init__(self, number: int, state: State, broker: Broker, planner: Planner, schedulers: Schedulers) -> None:
        """Wire it."""
        self._number = number
        self._state = state
        self._broker = broker
        self._planner = planner
        self._schedulers = schedulers

    async def run(self) -> None:
        """Work for ever."""
        async with self._state.env.worker(f"scheduler-{self._number}") as thread:
            while True:
                evaluation = await self._broker.take()
                try:
                    await self._evaluate(evaluation, thread)
                except StoreError:
                    # Nothing was written: the evaluation is still pending, and is taken again.
                    await self._state.env.sleep(self._state.env.jittered(STORE_RETRY_SECONDS))
                finally:
                    self._broker.give_back(evaluation)

    async def _evaluate(self, evaluation: Evaluation, thread: Thread) -> None:
        """Plan and commit until everything fits or is known not to."""
        for _ in range(ATTEMPTS_MAX):
            look = self._planner.look(evaluation)
            if look is None:
                return
            try:
                settled = await self._attempt(evaluation, look, thread)
            except StoreError:
                raise
            except KhonsuError as error:
                await self._planner.give_up(evaluation, str(error), RETRY_SECONDS)
                return
            except Exception as error:  # noqa: BLE001 - a scheduler is a stranger's code
                await self._planner.give_up(evaluation, f"{type(error).__name__}: {error}", RETRY_SECONDS)
                return
            if settled:
                return
        await self._planner.give_up(evaluation, "other schedulers were quicker each time", RETRY_SECONDS)

    async def _attempt(self, evaluation: Evaluation, changes: Changes, thread: Thread) -> bool:
        """Make one plan and commit it; return whether nothing is left to be done."""
        if not changes.place:
            return await self._planner.commit(evaluation, changes, None)
        snapshot = self._planner.snapshot(evaluation)
        scheduler = self._schedulers.get(self._planner.spec(evaluation).scheduler)
        plan = await thread.run(scheduler.schedule, evaluation, snapshot, changes)
        outcome = await self._planner.commit(evaluation, changes, plan)
        scheduler.observe(outcome)
        return not outcome.rejected
