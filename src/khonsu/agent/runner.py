"""Carries out what the life of an allocation asks for: every verb of a driver is called from here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from khonsu.abc.driver import AnyDriver, TaskContext, TaskExit
from khonsu.agent.events import (
    Action,
    Event,
    Exited,
    Halt,
    Halted,
    Look,
    Looked,
    Prepare,
    Prepared,
    Refused,
    Retried,
    Retry,
    Start,
    Started,
    Stop,
    Watch,
)
from khonsu.agent.journal import Journal
from khonsu.agent.lease import Lease
from khonsu.agent.state import AllocationState
from khonsu.agent.timers import Timers
from khonsu.agent.verbs import call
from khonsu.agent.workshop import Workshop
from khonsu.core.ids import AllocationId
from khonsu.core.records import Time
from khonsu.env import Env
from khonsu.errors import DriverError

NOTE_SECONDS_MAX: Final = 1.0
"""How long a stop waits until it is noted that it is one."""

Feed = Callable[[AllocationId, Event], None]
_log = logging.getLogger(__name__)


class Runner:
    """Runs actions in a task group, and tells what came of them by events. For the event loop only."""

    def __init__(
        self,
        group: TaskGroup,
        *,
        feed: Feed,
        drivers: Mapping[str, AnyDriver],
        workshop: Workshop,
        journal: Journal,
        lease: Lease,
        timers: Timers,
        env: Env,
    ) -> None:
        """Begin with nothing to do.

        Args:
            group: Where the work runs.
            feed: Is told what came of it.
            drivers: By name.
            workshop: Makes what drivers are told.
            journal: Waited for before anything is started.
            lease: Waited for before anything exclusive is started.
            timers: For what is to be done later.
            env: Time.

        """
        self._group = group
        self._drivers = drivers
        self._workshop = workshop
        self._journal = journal
        self._lease = lease
        self._timers = timers
        self._env = env
        self._feed = feed
        # What can still be given up: preparations, and starts before the driver was asked.
        self._scopes: dict[tuple[str, str], anyio.CancelScope] = {}
        self._starting: set[tuple[str, str]] = set()
        self._noted: dict[tuple[str, str], int] = {}
        self._contexts: dict[tuple[str, str], TaskContext[Any]] = {}

    def carry_out(self, state: AllocationState, action: Action, *, again: bool = False) -> None:
        """Begin to carry out an action.

        Args:
            state: The allocation.
            action: What is to be done.
            again: Whether another run of the agent began it.

        """
        key = state.assignment.id
        match action:
            case Prepare():
                # By now it is noted that the attempt may be started; a start waits for that to be on the disk.
                self._noted[key, action.task] = self._journal.position
                self._begin(key, action.task, partial(self._prepare, state, action))
            case Start():
                self._begin(key, action.task, partial(self._start, state, action))
            case Watch():
                self._group.start_soon(partial(self._watch, state, action, again=again))
            case Halt():
                self._group.start_soon(self._halt, state, action)
            case Stop():
                self._group.start_soon(self._stop, state, action)
            case Retry(task=task, attempt=attempt):
                self._timers.after(action.delay_seconds, partial(self._retried, key, task, attempt))
            case Look(at=at):
                self._timers.at(at, partial(self._looked, key, at))

    async def remove(self, state: AllocationState) -> None:
        """Remove what is left of an allocation that was forgotten, but for its folder with its logs."""
        for run in state.progress.tasks:
            if run.status.attempt:
                await self._remove(state, run.name, run.status.attempt)
            self._contexts.pop((state.assignment.id, run.name), None)
            self._noted.pop((state.assignment.id, run.name), None)

    # The verbs.

    def _begin(
        self, key: AllocationId, task: str, work: Callable[[anyio.CancelScope], Coroutine[Any, Any, None]]
    ) -> None:
        """Run something that can be given up until it says otherwise."""
        scope = self._scopes[key, task] = anyio.CancelScope()
        self._group.start_soon(work, scope)

    def _end(self, key: AllocationId, task: str, scope: anyio.CancelScope) -> bool:
        """Take note that something cannot be given up any more; return whether it was given up before."""
        if self._scopes.get((key, task)) is scope:
            del self._scopes[key, task]
        return scope.cancel_called

    async def _prepare(self, state: AllocationState, action: Prepare, scope: anyio.CancelScope) -> None:
        key, task, attempt = state.assignment.id, action.task, action.attempt
        error: DriverError | None = None
        with scope:
            try:
                if attempt > 1:
                    # Its record goes only when the journal does not need it any more.
                    await self._journal.durable()
                    await self._remove(state, task, attempt - 1)
                driver, context = self._context(state, task, attempt)
                await call(driver, "lay out the task", self._workshop.lay_out(context))
                await call(driver, "prepare", driver.prepare(context))
            except DriverError as failure:
                error = failure
        if self._end(key, task, scope):
            return
        if error is not None:
            await self._refuse(state, task, attempt, error)
        else:
            self._feed(key, Prepared(task=task, attempt=attempt))

    async def _start(self, state: AllocationState, action: Start, scope: anyio.CancelScope) -> None:
        key, task, attempt = state.assignment.id, action.task, action.attempt
        error: DriverError | None = None
        with scope:
            try:
                await self._journal.durable(self._noted.get((key, task)))
                if state.group.exclusive:
                    await self._lease.wait()
                    await self._lease.publish()
            except DriverError as failure:
                error = failure
        if self._end(key, task, scope):
            return
        self._starting.add((key, task))
        try:
            if error is not None:
                raise error
            driver, context = self._context(state, task, attempt)
            handle = await call(driver, "start", driver.start(context), kind=Mapping)
        except DriverError as failure:
            await self._refuse(state, task, attempt, failure)
        else:
            now, at = self._env.monotonic(), Time(self._env.now())
            self._feed(key, Started(task=task, attempt=attempt, handle=handle, at=at, now=now))
        finally:
            self._starting.discard((key, task))

    async def _refuse(self, state: AllocationState, task: str, attempt: int, error: DriverError) -> None:
        """Tell that an attempt cannot be begun, once it is sure that no agent before this one has begun it."""
        await self._remove(state, task, attempt)
        self._feed(
            state.assignment.id,
            Refused(
                task=task,
                attempt=attempt,
                message=str(error),
                retryable=error.retryable,
                at=Time(self._env.now()),
                now=self._env.monotonic(),
            ),
        )

    async def _watch(self, state: AllocationState, action: Watch, *, again: bool) -> None:
        key, task, attempt = state.assignment.id, action.task, action.attempt
        try:
            driver = self._driver(state, task)
            if again and not await call(driver, "reattach", driver.reattach(action.handle)):
                end = TaskExit(
                    finished_at=self._env.now(), message="nothing is left of it, and nothing tells how it ended"
                )
            else:
                end = await call(driver, "wait", driver.wait(action.handle), kind=TaskExit)
        except DriverError as error:
            # Nobody would see it end: then it must not go on.
            await self._remove(state, task, attempt)
            end = TaskExit(finished_at=self._env.now(), message=str(error))
        self._feed(key, Exited(task=task, attempt=attempt, exit=end, now=self._env.monotonic()))

    async def _stop(self, state: AllocationState, action: Stop) -> None:
        spec = state.spec(action.task)
        if action.delay_seconds:
            await self._env.sleep(action.delay_seconds)
        with anyio.move_on_after(NOTE_SECONDS_MAX):
            # An agent that is killed after the signal must know that it meant this end: else it would be a failure, and
            # a reason to start the task again. A disk that does not take it keeps nothing running.
            await self._journal.durable()
        try:
            driver = self._driver(state, action.task)
            stop = driver.stop(action.handle, signal=spec.kill_signal, grace_seconds=spec.kill_timeout_seconds)
            await call(driver, "stop", stop)
        except DriverError as error:
            _log.warning("task %s of %s is removed by force: %s", action.task, state.assignment.id, error)
            await self._remove(state, action.task, action.attempt)

    async def _halt(self, state: AllocationState, action: Halt) -> None:
        key, task = state.assignment.id, action.task
        scope = self._scopes.pop((key, task), None)
        if scope is not None:
            scope.cancel()
        elif (key, task) in self._starting:
            return
        await self._remove(state, task, action.attempt)
        self._feed(key, Halted(task=task, attempt=action.attempt))

    async def _remove(self, state: AllocationState, task: str, attempt: int) -> None:
        """Remove an attempt, whatever there is of it, and also when its driver is not there any more."""
        key = state.assignment.id
        try:
            driver, context = self._context(state, task, attempt)
            await call(driver, "remove", driver.remove(context))
        except DriverError as error:
            try:
                await self._workshop.end(key, task, attempt)
            except (OSError, DriverError) as failure:
                _log.warning("attempt %d of %s of %s cannot be removed: %s, %s", attempt, task, key, error, failure)

    def _context(self, state: AllocationState, task: str, attempt: int) -> tuple[AnyDriver, TaskContext[Any]]:
        """Return the driver and the context of an attempt; the latest of each task is kept."""
        driver = self._driver(state, task)
        key = (state.assignment.id, task)
        context = self._contexts.get(key)
        if context is None or context.attempt != attempt:
            context = self._contexts[key] = self._workshop.context(state, task, attempt, driver)
        return driver, context

    def _driver(self, state: AllocationState, task: str) -> AnyDriver:
        name = state.spec(task).driver
        driver = self._drivers.get(name)
        if driver is None:
            known = ", ".join(sorted(self._drivers)) or "none"
            raise DriverError(f"this node has no driver {name!r}", hint=f"It has: {known}")
        return driver

    # Time.

    def _retried(self, key: AllocationId, task: str, attempt: int) -> None:
        self._feed(key, Retried(task=task, attempt=attempt, now=self._env.monotonic()))

    def _looked(self, key: AllocationId, at: float) -> None:
        # The clock may be a hair behind the time that was waited for.
        self._feed(key, Looked(now=max(at, self._env.monotonic())))
