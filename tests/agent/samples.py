"""Assignments and groups for the tests of the agent."""

from __future__ import annotations

from typing import Any

from khonsu.agent.state import AllocationState
from khonsu.core.ids import AllocationId
from khonsu.core.job import Group, Task
from khonsu.core.protocol import Assignment
from khonsu.core.states import Desired, JobType


def a_task(name: str = "one", **fields: Any) -> Task:
    """Return a task of the fake driver."""
    return Task(name, fields.pop("config", {}), driver=fields.pop("driver", "fake"), **fields)


def a_group(*tasks: Task, **fields: Any) -> Group:
    """Return a group."""
    return Group("main", tasks=tasks or (a_task(),), **fields)


def an_assignment(key: str = "alloc", *, type: JobType = JobType.SERVICE, **fields: Any) -> Assignment:
    """Return an assignment."""
    values: dict[str, Any] = {
        "id": AllocationId(key),
        "namespace": "default",
        "job": "job",
        "version": 1,
        "type": type,
        "group": "default/job/1/main",
        "slot": 0,
        "generation": 1,
        "desired": Desired.RUN,
    }
    return Assignment(**{**values, **fields})


def a_state(*tasks: Task, type: JobType = JobType.SERVICE, **fields: Any) -> AllocationState:
    """Return an allocation that has not begun; `fields` are the group's."""
    return AllocationState(assignment=an_assignment(type=type), group=a_group(*tasks, **fields))
