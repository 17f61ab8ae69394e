"""The life of one allocation on its node: events in, actions out. Pure.

All tasks are prepared, then all are started. A task that ends is restarted as the group's policy says, or completes,
or fails for good, which ends the others. What is stale is ignored: an event of an earlier attempt, or of something
that was given up meanwhile.
"""

from __future__ import annotations

from typing import assert_never

from attrs import evolve

from khonsu.agent.events import (
    Action,
    Begin,
    Ended,
    Ending,
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
from khonsu.agent.state import AllocationState, TaskRun, describe_exit, restart_delay
from khonsu.core.ids import ATTEMPT_MAX
from khonsu.core.records import TaskStatus, Time
from khonsu.core.states import ALLOCATION, TASK, AllocationStatus, TaskState

_T = TaskState
_A = AllocationStatus


def step(state: AllocationState, event: Event) -> tuple[AllocationState, tuple[Action, ...]]:
    """Return the allocation after an event, and what is to be done, in this order."""
    if state.terminal:
        return state, ()
    change = _Change(state)
    match event:
        case Begin():
            change.begin(event)
        case Ended():
            change.end(event.ending, event.message)
        case Looked():
            change.look(event.now)
        case _:
            run = state.run(event.task)
            if run is not None and run.status.attempt == event.attempt and not run.state.terminal:
                _step_task(change, run, event)
    return change.result()


def _step_task(change: _Change, run: TaskRun, event: Prepared | Started | Refused | Exited | Halted | Retried) -> None:
    match event:
        case Prepared():
            change.prepared(run)
        case Started():
            change.started(run, event)
        case Refused():
            change.refused(run, event)
        case Exited():
            change.exited(run, event)
        case Halted():
            change.halted(run)
        case Retried():
            change.retried(run)
        case _:
            assert_never(event)


def recover(state: AllocationState, now: float, *, same_boot: bool) -> tuple[AllocationState, tuple[Action, ...]]:
    """Return the allocation as a new agent goes on with it, and what is to be done.

    Args:
        state: As it was when the last agent ended, or was killed.
        now: The time on the clock that never steps.
        same_boot: Whether the machine has run since then; else no process of it is left.

    """
    if state.terminal:
        return state, ()
    change = _Change(state)
    if not same_boot and state.started:
        change.lose_all("the machine was started anew")
    elif not state.started and state.progress.ending is None:
        change.begin(Begin(now=now))
    else:
        for run in state.progress.tasks:
            change.resume(run, now)
        change.plan_looks()
        change.finish()
    return change.result()


class _Change:
    """One step in the making."""

    def __init__(self, state: AllocationState) -> None:
        self._state = state
        self._progress = state.progress
        self._runs = {run.name: run for run in state.progress.tasks}
        self._actions: list[Action] = []
        self._service = state.assignment.type.keeps_running

    def result(self) -> tuple[AllocationState, tuple[Action, ...]]:
        tasks = tuple(self._runs.values())
        progress = self._progress if tasks == self._progress.tasks else evolve(self._progress, tasks=tasks)
        changed = progress is not self._state.progress
        return evolve(self._state, progress=progress) if changed else self._state, tuple(self._actions)

    # Moves.

    def _move(self, run: TaskRun, event: str, told: TaskStatus | None = None) -> TaskRun:
        """Move a task by its machine; `told` is what is reported of it, but for its state."""
        state = TASK.step(run.state, event, f"{self._state.assignment.id}/{run.name}")
        return self._keep(evolve(run, status=evolve(told if told is not None else run.status, status=state)))

    def _keep(self, run: TaskRun) -> TaskRun:
        self._runs[run.name] = run
        return run

    def _move_allocation(self, event: str) -> None:
        status = ALLOCATION.step(self._progress.status, event, self._state.assignment.id)
        self._progress = evolve(self._progress, status=status)

    # The way up.

    def begin(self, event: Begin) -> None:
        """Prepare all tasks."""
        if self._progress.status is not _A.PENDING or self._progress.ending is not None:
            return
        self._progress = evolve(self._progress, since=event.now)
        self._move_allocation("start")
        for run in list(self._runs.values()):
            self._prepare(run)
        self.plan_looks()

    def _prepare(self, run: TaskRun) -> None:
        """Begin the next attempt."""
        attempt = run.status.attempt + 1
        status = TaskStatus(name=run.name, status=run.state, attempt=attempt)
        self._move(TaskRun(status=status, restarts=run.restarts), "prepare")
        self._actions.append(Prepare(task=run.name, attempt=attempt))

    def prepared(self, run: TaskRun) -> None:
        if run.state is not _T.PREPARING or run.prepared:
            return
        self._keep(evolve(run, prepared=True))
        if not self._progress.begun and all(each.prepared for each in self._runs.values()):
            self._progress = evolve(self._progress, begun=True)
        if self._progress.begun:
            for each in list(self._runs.values()):
                if each.state is _T.PREPARING and each.prepared and not each.starting:
                    self._keep(evolve(each, starting=True))
                    self._actions.append(Start(task=each.name, attempt=each.status.attempt))

    def started(self, run: TaskRun, event: Started) -> None:
        if not run.starting or run.handle is not None:
            return
        pid = event.handle.get("pid")
        at = event.handle.get("started_at")
        told = evolve(
            run.status,
            pid=pid if isinstance(pid, int) else None,
            # Whoever started it knows better: a short task has ended before we heard that it began.
            started_at=Time(at) if isinstance(at, float) else event.at,
        )
        run = self._keep(evolve(run, status=told, handle=event.handle, running_since=event.now))
        self._actions.append(Watch(task=run.name, attempt=told.attempt, handle=event.handle))
        if run.state is _T.STOPPING:
            self._stop(run)
            return
        self._move(run, "started")
        up = (_T.RUNNING, _T.COMPLETE)
        if self._progress.status is _A.STARTING and all(each.state in up for each in self._runs.values()):
            self._move_allocation("run")
            # What was said of an earlier, failed attempt is over.
            self._progress = evolve(self._progress, message="")
        if self._healthy_at() is not None:
            self.plan_looks()

    # The way down, of one task.

    def refused(self, run: TaskRun, event: Refused) -> None:
        told = evolve(run.status, message=event.message, finished_at=event.at)
        if run.state is _T.STOPPING and run.handle is None:
            self._move(run, "stopped", told)
            self.finish()
        elif run.state is _T.PREPARING and event.retryable:
            self._again(run, told, event.message, event.now)
        elif run.state is _T.PREPARING:
            self._fail(run, told, event.message)

    def exited(self, run: TaskRun, event: Exited) -> None:
        end = event.exit
        told = evolve(
            run.status,
            exit_code=end.code,
            signal=end.signal,
            out_of_memory=end.out_of_memory,
            finished_at=Time(end.finished_at),
            message=end.message,
        )
        if run.state is _T.STOPPING:
            self._move(run, "stopped", told)
            self.finish()
        elif run.state is not _T.RUNNING:
            return
        elif end.lease_expired:
            self._move(self._move(run, "stop", told), "stopped")
            self.end(Ending.LOSE, "the lease of the node ran out")
        elif end.ok and not self._service:
            self._move(run, "exit_ok", told)
            self.finish()
        else:
            self._again(run, told, describe_exit(end), event.now)

    def _again(self, run: TaskRun, told: TaskStatus, why: str, now: float) -> None:
        """Have a task tried again after a while, or let it fail for good."""
        policy = self._state.group.restart_policy(self._state.assignment.type)
        delay, restarts = restart_delay(policy, run.restarts, now)
        # After years of restarts a copy is placed anew: its next attempt has no fencing token here.
        if delay is None or told.attempt >= ATTEMPT_MAX:
            self._fail(run, told, f"{why} (restarted {len(restarts)} times before)" if restarts else why)
            return
        run = self._move(run, "retry", told)
        self._keep(TaskRun(status=run.status, restarts=restarts, retry=now + delay))
        self._actions.append(Retry(task=run.name, attempt=told.attempt, delay_seconds=delay))

    def _fail(self, run: TaskRun, told: TaskStatus, why: str) -> None:
        self._move(run, "exit_failed", told)
        self.end(Ending.FAIL, f"task {run.name}: {why}")

    def retried(self, run: TaskRun) -> None:
        if run.state is _T.BACKOFF:
            self._prepare(run)

    def halted(self, run: TaskRun) -> None:
        if run.state is _T.STOPPING and run.handle is None:
            self._move(run, "stopped")
            self.finish()

    # The end of all tasks.

    def end(self, ending: Ending, message: str) -> None:
        """End what still runs; the first reason is the one that counts."""
        if self._progress.ending is None:
            self._progress = evolve(self._progress, ending=ending, message=message or self._progress.message)
            self._move_allocation("stop")
            for run in list(self._runs.values()):
                self._end_task(run)
        self.finish()

    def _end_task(self, run: TaskRun) -> None:
        match run.state:
            case _T.PENDING | _T.BACKOFF:
                self._move(self._move(run, "stop"), "stopped")
            case _T.PREPARING:
                self._move(run, "stop")
                self._actions.append(Halt(task=run.name, attempt=run.status.attempt))
            case _T.RUNNING:
                self._stop(self._move(run, "stop"))
            case _:
                pass

    def _stop(self, run: TaskRun, *, waited: bool = False) -> None:
        if run.handle is None:
            return
        delay = 0.0 if waited else self._state.spec(run.name).shutdown_delay_seconds
        self._actions.append(Stop(task=run.name, attempt=run.status.attempt, handle=run.handle, delay_seconds=delay))

    def finish(self) -> None:
        """End the allocation when nothing of it is left."""
        if not all(run.state.terminal for run in self._runs.values()):
            return
        complete = all(run.state is _T.COMPLETE for run in self._runs.values())
        self._move_allocation("complete" if complete else self._progress.ending or Ending.STOP)
        if self._progress.status is _A.FAILED and self._service:
            self._progress = evolve(self._progress, health=False)

    def lose_all(self, message: str) -> None:
        """Take note that no process of it is left."""
        for run in list(self._runs.values()):
            if not run.state.terminal:
                stopping = run if run.state is _T.STOPPING else self._move(run, "stop")
                self._move(stopping, "stopped", evolve(run.status, message=message))
        self._progress = evolve(self._progress, ending=Ending.LOSE, message=message)
        self._move_allocation("lose")

    # Health.

    def _healthy_at(self) -> float | None:
        """Return when it will have run for long enough, or None while one of its tasks does not run."""
        since = [run.running_since for run in self._runs.values() if run.state is _T.RUNNING]
        if not self._service or len(since) < len(self._runs):
            return None
        return max(at or 0.0 for at in since) + self._state.group.update.healthy_for_seconds

    def plan_looks(self) -> None:
        """Have the health looked at when it may change next."""
        if not self._service or self._progress.health is True or self._progress.ending is not None:
            return
        healthy_at = self._healthy_at()
        if healthy_at is not None:
            self._actions.append(Look(at=healthy_at))
        elif self._progress.health is None and self._progress.since is not None:
            self._actions.append(Look(at=self._progress.since + self._state.group.update.healthy_within_seconds))

    def look(self, now: float) -> None:
        """See whether it is healthy, or failed to become so in time; a late recovery counts."""
        if not self._service or self._progress.ending is not None or self._progress.health is True:
            return
        healthy_at = self._healthy_at()
        since = self._progress.since
        if healthy_at is not None and healthy_at <= now:
            self._progress = evolve(self._progress, health=True)
        elif since is not None and self._progress.health is None:
            within = self._state.group.update.healthy_within_seconds
            if now - since >= within:
                self._progress = evolve(self._progress, health=False, message=f"not healthy within {within:g} s")

    # After a restart of the agent.

    def resume(self, run: TaskRun, now: float) -> None:
        """Go on with one task of a machine that has run meanwhile."""
        attempt = run.status.attempt
        match run.state:
            case _T.PREPARING:
                # It may have been started: the same attempt is asked for again, which gives the same process.
                self._keep(evolve(run, prepared=False, starting=False))
                self._actions.append(Prepare(task=run.name, attempt=attempt))
            case _T.RUNNING if run.handle is not None:
                self._actions.append(Watch(task=run.name, attempt=attempt, handle=run.handle))
            case _T.STOPPING if run.handle is not None:
                self._actions.append(Watch(task=run.name, attempt=attempt, handle=run.handle))
                self._stop(run, waited=True)
            case _T.STOPPING:
                self._actions.append(Halt(task=run.name, attempt=attempt))
            case _T.BACKOFF:
                wait = max(0.0, (run.retry or now) - now)
                self._actions.append(Retry(task=run.name, attempt=attempt, delay_seconds=wait))
            case _:
                pass
