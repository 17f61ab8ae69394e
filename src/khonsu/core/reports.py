"""What an agent says of an allocation, and what that changes: only ever forward."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from attrs import evolve, field, frozen

from khonsu.core.job import JSON
from khonsu.core.protocol import AllocationReport
from khonsu.core.records import Allocation, TaskStatus, Time
from khonsu.core.states import ALLOCATION, AllocationStatus, Desired, TaskState

_A = AllocationStatus

EVENT_OF: Mapping[AllocationStatus, str] = {
    _A.STARTING: "start",
    _A.RUNNING: "run",
    _A.STOPPING: "stop",
    _A.COMPLETE: "complete",
    _A.FAILED: "fail",
    _A.STOPPED: "stopped",
    _A.LOST: "lose",
}
"""What a reported status is to the machine; an agent reports no other."""

_TASK_EVENTS: Mapping[TaskState, str] = {
    TaskState.RUNNING: "task-started",
    TaskState.BACKOFF: "task-restarting",
    TaskState.COMPLETE: "task-complete",
    TaskState.FAILED: "task-failed",
    TaskState.STOPPED: "task-stopped",
}


MESSAGE_LENGTH_MAX = 4096
"""More of a message of an agent is not remembered."""


@frozen(kw_only=True)
class ReportEvent:
    """Something that a report told of, still without its place in the history."""

    type: str
    message: str = ""
    task: str | None = None
    details: Mapping[str, JSON] = field(factory=dict)


def believed(report: AllocationReport, tasks: Collection[str]) -> AllocationReport:
    """Return what of a report is to be remembered: of tasks that there are, and texts that can be shown."""
    if len(report.message) <= MESSAGE_LENGTH_MAX and all(
        task.name in tasks and len(task.message) <= MESSAGE_LENGTH_MAX for task in report.tasks
    ):
        return report
    known = tuple(
        evolve(task, message=task.message[:MESSAGE_LENGTH_MAX]) for task in report.tasks if task.name in tasks
    )
    return evolve(report, tasks=known, message=report.message[:MESSAGE_LENGTH_MAX])


def apply_report(allocation: Allocation, report: AllocationReport, now: Time) -> Allocation | None:
    """Return the allocation after a report, or None where the report says nothing new.

    A repeated, late or foreign report changes nothing: an end is final, a status never goes back, and another
    generation is another copy. An unknown allocation is heard of again by running or by its end.
    """
    if report.generation != allocation.generation or report.id != allocation.id or allocation.status.terminal:
        return None
    event = EVENT_OF.get(report.status)
    moved = event is not None and report.status is not allocation.status and ALLOCATION.can(allocation.status, event)
    if not moved and report.status is not allocation.status:
        return None
    status = ALLOCATION.step(allocation.status, event, allocation.id) if moved and event else allocation.status
    tasks = _tasks(allocation.tasks, report.tasks)
    healthy = allocation.health is not True and report.health is True and status is _A.RUNNING
    after = evolve(
        allocation,
        status=status,
        health=True if healthy else _health(allocation, report),
        tasks=tasks,
        exit_code=_exit_code(status, tasks),
        healthy_at=now if healthy else allocation.healthy_at,
        changed_at=now if moved else allocation.changed_at,
        # A stop has its reason from the control plane; any other message is the agent's and ends with its cause.
        message=report.message or ("" if moved and allocation.desired is Desired.RUN else allocation.message),
    )
    return None if after == allocation else after


def _health(allocation: Allocation, report: AllocationReport) -> bool | None:
    """Return the health: once true it stays, and a late recovery counts."""
    if allocation.health is True or report.health is None:
        return allocation.health
    return report.health if report.status is _A.RUNNING or not report.health else allocation.health


def _tasks(before: tuple[TaskStatus, ...], reported: tuple[TaskStatus, ...]) -> tuple[TaskStatus, ...]:
    """Return the tasks, each by the later of its attempts."""
    known = {task.name: task for task in before}
    later = tuple(_later(known.pop(task.name, task), task) for task in reported)
    return (*later, *known.values())


def _later(before: TaskStatus, reported: TaskStatus) -> TaskStatus:
    if reported.attempt != before.attempt:
        return reported if reported.attempt > before.attempt else before
    return before if before.status.terminal and not reported.status.terminal else reported


def _exit_code(status: AllocationStatus, tasks: tuple[TaskStatus, ...]) -> int | None:
    """Return 0 for a complete allocation, and what the first failed task left behind for a failed one."""
    if status is _A.COMPLETE:
        return 0
    if status is not _A.FAILED:
        return None
    return next((task.code for task in tasks if task.failed and task.code is not None), None)


def report_events(before: Allocation, after: Allocation) -> Iterator[ReportEvent]:
    """Return what happened between two states of an allocation, tasks first."""
    known = {task.name: task for task in before.tasks}
    for task in after.tasks:
        earlier = known.get(task.name, TaskStatus(name=task.name))
        type_ = _TASK_EVENTS.get(task.status)
        if type_ is not None and (task.status, task.attempt) != (earlier.status, earlier.attempt):
            yield ReportEvent(type=type_, message=task.message, task=task.name, details=_task_details(task))
    if after.status is not before.status:
        yield ReportEvent(type=f"allocation-{after.status}", message=after.message, details=_details(before, after))
    if after.health is not before.health and after.health is not None:
        yield ReportEvent(type="allocation-healthy" if after.health else "allocation-unhealthy", message=after.message)


def _details(before: Allocation, after: Allocation) -> dict[str, JSON]:
    details: dict[str, JSON] = {"before": str(before.status)}
    if after.exit_code is not None:
        details["exit_code"] = after.exit_code
    return details


def _task_details(task: TaskStatus) -> dict[str, JSON]:
    details: dict[str, JSON] = {"attempt": task.attempt}
    if task.status is TaskState.RUNNING and task.pid is not None:
        details["pid"] = task.pid
    if task.status is not TaskState.RUNNING:
        details |= {
            key: value for key, value in (("exit_code", task.exit_code), ("signal", task.signal)) if value is not None
        }
        if task.out_of_memory:
            details["out_of_memory"] = True
    return details


def lost(allocation: Allocation, now: Time, why: str) -> Allocation:
    """Return an allocation that is given up for good, and why."""
    status = ALLOCATION.step(allocation.status, "lose", allocation.id)
    return evolve(allocation, status=status, changed_at=now, message=why)


def needs_look(before: Allocation, after: Allocation) -> str | None:
    """Return why a change asks for a look at the job, or None where it does not.

    An end frees a slot or settles it; a copy that is healthy, or failed to become so, moves a rollout on; one that is
    heard of again may be one too many; one that runs may start the job.
    """
    if after.status.terminal and not before.status.terminal:
        return f"allocation-{after.status}"
    if before.status is _A.UNKNOWN is not after.status:
        return "allocation-returned"
    if after.health is not before.health:
        return "allocation-health"
    if after.status is _A.RUNNING is not before.status:
        return "allocation-running"
    return None
