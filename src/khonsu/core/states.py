"""The states of everything that has one, and the moves between them.

Each machine is an ordered enum, one table of moves, and one `step`. A move that is not in the table raises
`InvalidTransition` with the thing's story. The tables in the docs are made from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

from attrs import frozen

from khonsu.errors import InvalidTransition


class JobType(StrEnum):
    """What kind of work a job is."""

    SERVICE = "service"
    BATCH = "batch"
    SYSTEM = "system"
    SYSBATCH = "sysbatch"

    @property
    def keeps_running(self) -> bool:
        """Return whether copies are meant to run for ever."""
        return self in (JobType.SERVICE, JobType.SYSTEM)

    @property
    def everywhere(self) -> bool:
        """Return whether one copy runs on every feasible node."""
        return self in (JobType.SYSTEM, JobType.SYSBATCH)


class JobStatus(StrEnum):
    """The status of a job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"


class EvaluationStatus(StrEnum):
    """The status of an evaluation."""

    PENDING = "pending"
    BLOCKED = "blocked"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AllocationStatus(StrEnum):
    """The status of an allocation."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    UNKNOWN = "unknown"
    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def terminal(self) -> bool:
        """Return whether the allocation has ended for good."""
        return self in TERMINAL


TERMINAL = frozenset(
    {AllocationStatus.COMPLETE, AllocationStatus.FAILED, AllocationStatus.STOPPED, AllocationStatus.LOST}
)


class Desired(StrEnum):
    """What the control plane wants of an allocation."""

    RUN = "run"
    STOP = "stop"


class TaskState(StrEnum):
    """The status of one task of an allocation."""

    PENDING = "pending"
    PREPARING = "preparing"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def terminal(self) -> bool:
        """Return whether the task has ended for good."""
        return self in (TaskState.COMPLETE, TaskState.FAILED, TaskState.STOPPED)


class NodeStatus(StrEnum):
    """Whether a node is heard of."""

    READY = "ready"
    DOWN = "down"


class Eligibility(StrEnum):
    """Whether a node may be given work."""

    ELIGIBLE = "eligible"
    DRAINING = "draining"
    INELIGIBLE = "ineligible"


S = TypeVar("S", bound=StrEnum)


@frozen
class Machine(Generic[S]):
    """A state machine: for each event, the states it may be met in and the state it leads to."""

    name: str
    states: type[S]
    moves: Mapping[str, Mapping[S, S]]

    @property
    def first(self) -> S:
        """Return the state of a new thing."""
        return next(iter(self.states))

    def step(self, state: S, event: str, story: str = "") -> S:
        """Return the state after an event.

        Raises:
            InvalidTransition: The machine has no such move.

        """
        moves = self.moves.get(event)
        if moves is None or state not in moves:
            raise InvalidTransition(f"{self.name} in state {state} cannot take {event}{': ' + story if story else ''}")
        return moves[state]

    def can(self, state: S, event: str) -> bool:
        """Return whether the machine has the move."""
        return state in self.moves.get(event, {})


def _to(target: S, *sources: S) -> dict[S, S]:
    return dict.fromkeys(sources, target)


_J = JobStatus
JOB = Machine(
    "job",
    JobStatus,
    {
        "submit": _to(_J.PENDING, *JobStatus),
        "start": _to(_J.RUNNING, _J.PENDING, _J.RUNNING),
        "wait": _to(_J.PENDING, _J.PENDING, _J.RUNNING),
        "complete": _to(_J.COMPLETE, _J.PENDING, _J.RUNNING),
        "fail": _to(_J.FAILED, _J.PENDING, _J.RUNNING),
        "reopen": _to(_J.PENDING, _J.COMPLETE),
        "stop": _to(_J.STOPPED, *JobStatus),
    },
)

_E = EvaluationStatus
EVALUATION = Machine(
    "evaluation",
    EvaluationStatus,
    {
        "block": _to(_E.BLOCKED, _E.PENDING),
        "wake": _to(_E.PENDING, _E.BLOCKED),
        "complete": _to(_E.COMPLETE, _E.PENDING),
        "fail": _to(_E.FAILED, _E.PENDING),
        "cancel": _to(_E.CANCELLED, _E.PENDING, _E.BLOCKED),
    },
)

_A = AllocationStatus
_LIVE = (_A.PENDING, _A.STARTING, _A.RUNNING, _A.STOPPING)
ALLOCATION = Machine(
    "allocation",
    AllocationStatus,
    {
        "start": _to(_A.STARTING, _A.PENDING),
        "run": _to(_A.RUNNING, _A.PENDING, _A.STARTING, _A.UNKNOWN),
        "stop": _to(_A.STOPPING, _A.PENDING, _A.STARTING, _A.RUNNING),
        "complete": _to(_A.COMPLETE, *_LIVE, _A.UNKNOWN),
        "fail": _to(_A.FAILED, *_LIVE, _A.UNKNOWN),
        "stopped": _to(_A.STOPPED, *_LIVE, _A.UNKNOWN),
        "disconnect": _to(_A.UNKNOWN, *_LIVE),
        "lose": _to(_A.LOST, *_LIVE, _A.UNKNOWN),
    },
)

_T = TaskState
TASK = Machine(
    "task",
    TaskState,
    {
        "prepare": _to(_T.PREPARING, _T.PENDING, _T.BACKOFF),
        "started": _to(_T.RUNNING, _T.PREPARING),
        "exit_ok": _to(_T.COMPLETE, _T.RUNNING),
        "exit_failed": _to(_T.FAILED, _T.RUNNING, _T.PREPARING, _T.BACKOFF),
        "retry": _to(_T.BACKOFF, _T.RUNNING, _T.PREPARING),
        "stop": _to(_T.STOPPING, _T.PENDING, _T.PREPARING, _T.RUNNING, _T.BACKOFF, _T.STOPPING),
        "stopped": _to(_T.STOPPED, _T.STOPPING, _T.PENDING, _T.BACKOFF),
    },
)

_N = NodeStatus
NODE = Machine(
    "node",
    NodeStatus,
    {
        "join": _to(_N.READY, _N.DOWN, _N.READY),
        "renew": _to(_N.READY, _N.DOWN, _N.READY),
        "expire": _to(_N.DOWN, _N.READY, _N.DOWN),
    },
)

MACHINES: tuple[Machine[Any], ...] = (JOB, EVALUATION, ALLOCATION, TASK, NODE)


def state_table(machine: Machine[Any]) -> str:
    """Return the moves of a machine as a table in Markdown, for the docs."""
    rows = [f"| {event} | {_sources(moves)} | {_targets(moves)} |" for event, moves in machine.moves.items()]
    return "\n".join(("| event | from | to |", "|---|---|---|", *rows))


def state_diagram(machine: Machine[Any]) -> str:
    """Return the moves of a machine as a drawing in Mermaid, for the docs; those that lead nowhere new are left out."""
    events: dict[tuple[str, str], list[str]] = {}
    for event, moves in machine.moves.items():
        for source, target in moves.items():
            if source != target:
                events.setdefault((source.value, target.value), []).append(event)
    arrows = [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in events.items()]
    return "\n".join(("stateDiagram-v2", f"    [*] --> {machine.first.value}", *arrows))


def _sources(moves: Mapping[StrEnum, StrEnum]) -> str:
    return ", ".join(state.value for state in moves)


def _targets(moves: Mapping[StrEnum, StrEnum]) -> str:
    return ", ".join(dict.fromkeys(state.value for state in moves.values()))
