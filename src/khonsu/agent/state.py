"""One allocation as its node knows it. Frozen values and small rules."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from khonsu.abc.driver import Handle, TaskExit
from khonsu.agent.events import Ending
from khonsu.core.job import Group, Restart, Task
from khonsu.core.protocol import AllocationReport, Assignment
from khonsu.core.records import TaskStatus
from khonsu.core.states import AllocationStatus, TaskState


@frozen(kw_only=True)
class TaskRun:
    """One task: what is reported of it, and what only its node needs to know.

    Times without `_at` behind them are on the clock that never steps.
    """

    status: TaskStatus
    prepared: bool = False
    """Whether all is laid out for the present attempt."""
    starting: bool = False
    """Whether the present attempt may have been started."""
    handle: Handle | None = None
    restarts: tuple[float, ...] = ()
    """When it was restarted, as far as the policy still counts it."""
    running_since: float | None = None
    retry: float | None = None
    """When the next attempt is due."""

    @property
    def name(self) -> str:
        """Return the task's name."""
        return self.status.name

    @property
    def state(self) -> TaskState:
        """Return the task's state."""
        return self.status.status


@frozen(kw_only=True)
class Progress:
    """How far an allocation has come: what is kept on disk beside the assignment."""

    status: AllocationStatus = AllocationStatus.PENDING
    health: bool | None = None
    message: str = ""
    ending: Ending | None = None
    begun: bool = False
    """Whether all tasks were prepared once, so that each is started by itself from then on."""
    since: float | None = None
    """When it began, on the clock that never steps."""
    tasks: tuple[TaskRun, ...] = ()


@frozen(kw_only=True)
class AllocationState:
    """One allocation: what it is to be, and how far it has come."""

    assignment: Assignment
    group: Group
    progress: Progress = field()

    @progress.default
    def _fresh(self) -> Progress:
        return Progress(tasks=tuple(TaskRun(status=TaskStatus(name=task.name)) for task in self.group.tasks))

    @property
    def status(self) -> AllocationStatus:
        """Return the status."""
        return self.progress.status

    @property
    def terminal(self) -> bool:
        """Return whether it has ended for good."""
        return self.progress.status.terminal

    @property
    def started(self) -> bool:
        """Return whether any of its tasks was ever tried."""
        return any(run.status.attempt for run in self.progress.tasks)

    def spec(self, task: str) -> Task:
        """Return the spec of a task."""
        return next(spec for spec in self.group.tasks if spec.name == task)

    def run(self, task: str) -> TaskRun | None:
        """Return how far a task has come."""
        return next((run for run in self.progress.tasks if run.name == task), None)

    def report(self) -> AllocationReport:
        """Return what the control plane is told."""
        progress = self.progress
        return AllocationReport(
            id=self.assignment.id,
            generation=self.assignment.generation,
            status=progress.status,
            health=progress.health,
            tasks=tuple(run.status for run in progress.tasks),
            message=progress.message,
        )


def restart_delay(policy: Restart, restarts: Iterable[float], now: float) -> tuple[float | None, tuple[float, ...]]:
    """Return how long to wait before a task is restarted, or None if it is not, and the restarts that still count.

    Within its window a policy allows a number of restarts; the wait doubles with each of them.
    """
    recent = tuple(at for at in restarts if now - at < policy.within_seconds)
    if len(recent) >= policy.attempts:
        return None, recent
    # A large count would overflow before the limit cuts it.
    doubled = policy.delay_seconds * 2.0 ** min(len(recent), 64)
    return min(doubled, policy.delay_max_seconds), (*recent, now)


def describe_exit(end: TaskExit) -> str:
    """Return in words how a task ended."""
    if end.message:
        return end.message
    if end.out_of_memory:
        return "it used more memory than it may"
    if end.signal is not None:
        return f"it was ended by signal {end.signal}"
    return f"it ended with exit code {end.code}"
