from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from khonsu.core.states import (
    ALLOCATION,
    EVALUATION,
    JOB,
    MACHINES,
    NODE,
    TASK,
    TERMINAL,
    AllocationStatus,
    EvaluationStatus,
    JobStatus,
    JobType,
    Machine,
    NodeStatus,
    TaskState,
    state_diagram,
    state_table,
)
from khonsu.errors import InvalidTransition

# Every move, written down a second time: (machine, event, from, to).
MOVES: dict[str, dict[tuple[str, str], str]] = {
    "job": {
        ("pending", "submit"): "pending",
        ("running", "submit"): "pending",
        ("complete", "submit"): "pending",
        ("failed", "submit"): "pending",
        ("stopped", "submit"): "pending",
        ("pending", "start"): "running",
        ("running", "start"): "running",
        ("pending", "wait"): "pending",
        ("running", "wait"): "pending",
        ("pending", "complete"): "complete",
        ("running", "complete"): "complete",
        ("pending", "fail"): "failed",
        ("running", "fail"): "failed",
        ("pending", "stop"): "stopped",
        ("running", "stop"): "stopped",
        ("complete", "reopen"): "pending",
        ("complete", "stop"): "stopped",
        ("failed", "stop"): "stopped",
        ("stopped", "stop"): "stopped",
    },
    "evaluation": {
        ("pending", "block"): "blocked",
        ("blocked", "wake"): "pending",
        ("pending", "complete"): "complete",
        ("pending", "fail"): "failed",
        ("pending", "cancel"): "cancelled",
        ("blocked", "cancel"): "cancelled",
    },
    "allocation": {
        ("pending", "start"): "starting",
        ("pending", "run"): "running",
        ("starting", "run"): "running",
        ("unknown", "run"): "running",
        ("pending", "stop"): "stopping",
        ("starting", "stop"): "stopping",
        ("running", "stop"): "stopping",
        **{
            (state, event): end
            for event, end in (("complete", "complete"), ("fail", "failed"), ("stopped", "stopped"), ("lose", "lost"))
            for state in ("pending", "starting", "running", "stopping", "unknown")
        },
        **{(state, "disconnect"): "unknown" for state in ("pending", "starting", "running", "stopping")},
    },
    "task": {
        ("pending", "prepare"): "preparing",
        ("backoff", "prepare"): "preparing",
        ("preparing", "started"): "running",
        ("running", "exit_ok"): "complete",
        ("running", "exit_failed"): "failed",
        ("preparing", "exit_failed"): "failed",
        ("backoff", "exit_failed"): "failed",
        ("running", "retry"): "backoff",
        ("preparing", "retry"): "backoff",
        ("pending", "stop"): "stopping",
        ("preparing", "stop"): "stopping",
        ("running", "stop"): "stopping",
        ("backoff", "stop"): "stopping",
        ("stopping", "stop"): "stopping",
        ("stopping", "stopped"): "stopped",
        ("pending", "stopped"): "stopped",
        ("backoff", "stopped"): "stopped",
    },
    "node": {
        ("down", "join"): "ready",
        ("ready", "join"): "ready",
        ("down", "renew"): "ready",
        ("ready", "renew"): "ready",
        ("ready", "expire"): "down",
        ("down", "expire"): "down",
    },
}


def states_of(machine: Machine[Any]) -> list[StrEnum]:
    """Return the states of a machine, in their order."""
    return list(machine.states.__members__.values())


CASES = [
    pytest.param(machine, state, event, id=f"{machine.name}-{state}-{event}")
    for machine in MACHINES
    for state in states_of(machine)
    for event in (*machine.moves, "no-such-event")
]


@pytest.mark.parametrize(("machine", "state", "event"), CASES)
def test_every_state_with_every_event(machine: Machine[Any], state: StrEnum, event: str) -> None:
    """A move that is written down is made; every other is refused with the thing's story."""
    expected = MOVES[machine.name].get((state.value, event))
    assert machine.can(state, event) is (expected is not None)
    if expected is not None:
        assert machine.step(state, event).value == expected
        return
    with pytest.raises(InvalidTransition, match=f"{machine.name} in state {state} cannot take {event}: the story"):
        machine.step(state, event, "the story")


def test_every_machine_is_tested() -> None:
    """There is no machine but these, and each knows the states of its enum only."""
    assert [machine.name for machine in MACHINES] == list(MOVES)
    for machine in MACHINES:
        assert {state for moves in machine.moves.values() for state in moves} <= set(states_of(machine))


@pytest.mark.parametrize(
    ("machine", "terminal"),
    [
        (ALLOCATION, TERMINAL),
        (EVALUATION, {EvaluationStatus.COMPLETE, EvaluationStatus.FAILED, EvaluationStatus.CANCELLED}),
        (TASK, {TaskState.COMPLETE, TaskState.FAILED, TaskState.STOPPED}),
        (JOB, set()),
        (NODE, set()),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_terminal_is_final(machine: Machine[Any], terminal: set[StrEnum]) -> None:
    """No event leads out of an end state, and every other state has a way on."""
    leaving = {state for moves in machine.moves.values() for state in moves}
    assert set(states_of(machine)) - leaving == set(terminal)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_state_can_be_reached(machine: Machine[Any]) -> None:
    """From the first state, some events lead to each of the others."""
    reached = {machine.first}
    for _ in states_of(machine):
        reached |= {moves[state] for state in reached for moves in machine.moves.values() if state in moves}
    assert reached == set(states_of(machine))


def test_unknown_leads_to_running_or_to_an_end_only() -> None:
    """A copy on a silent node is not started or stopped anew: it runs, or it has ended."""
    targets = {
        moves[AllocationStatus.UNKNOWN] for moves in ALLOCATION.moves.values() if AllocationStatus.UNKNOWN in moves
    }
    assert targets == {AllocationStatus.RUNNING, *TERMINAL}


@pytest.mark.parametrize(
    ("job_type", "keeps_running", "everywhere"),
    [("service", True, False), ("batch", False, False), ("system", True, True), ("sysbatch", False, True)],
)
def test_what_kinds_of_jobs_there_are(job_type: str, keeps_running: bool, everywhere: bool) -> None:
    """Two kinds run for ever, and two have one copy on every node."""
    kind = JobType(job_type)
    assert (kind.keeps_running, kind.everywhere) == (keeps_running, everywhere)


def test_which_states_are_ends() -> None:
    """Allocations and tasks know whether they have ended for good."""
    assert [state for state in AllocationStatus if state.terminal] == ["complete", "failed", "stopped", "lost"]
    assert [state for state in TaskState if state.terminal] == ["complete", "failed", "stopped"]


def test_the_drawings_are_made_from_the_tables() -> None:
    """A table has a row per event, a drawing an arrow per move that leads somewhere else."""
    assert state_table(NODE).splitlines() == [
        "| event | from | to |",
        "|---|---|---|",
        "| join | down, ready | ready |",
        "| renew | down, ready | ready |",
        "| expire | ready, down | down |",
    ]
    assert state_diagram(NODE).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> ready",
        "    down --> ready: join, renew",
        "    ready --> down: expire",
    ]
    assert NODE.first is NodeStatus.READY
    assert JOB.first is JobStatus.PENDING
