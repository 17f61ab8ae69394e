from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from khonsu.core.states import AllocationStatus, Desired, Eligibility, JobStatus
from khonsu.testing.simulation.story import told
from khonsu.testing.simulation.trace import Trace
from tests.simulation.histories import allocation, down, evaluation, job, node

if TYPE_CHECKING:
    from khonsu.core.records import Record

COPY = allocation()
NODE = node()
JOB = job()[0]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, COPY, "web/0 (a1, version 1) is placed on agent-1"),
        (COPY, evolve(COPY, status=AllocationStatus.LOST), "web/0 (a1, version 1) is lost on agent-1, was running"),
        (COPY, evolve(COPY, desired=Desired.STOP, message="x"), "web/0 (a1, version 1) is to stop on agent-1: x"),
        (COPY, evolve(COPY, health=True), "web/0 (a1, version 1) is healthy on agent-1"),
        (COPY, evolve(COPY, score=1.0), ""),
        (COPY, None, ""),
        (None, NODE, "agent-1 joins as n1"),
        (NODE, down(1, 1.0), "agent-1 is down"),
        (NODE, evolve(NODE, eligibility=Eligibility.DRAINING), "agent-1 is draining"),
        (NODE, None, "agent-1 is removed"),
        (None, JOB, "default/web is written down, version 1"),
        (JOB, evolve(JOB, version=2), "default/web is version 2 now, run 1"),
        (JOB, evolve(JOB, status=JobStatus.FAILED, message="x"), "default/web is failed, was pending: x"),
        (JOB, None, "default/web is forgotten"),
        (None, evaluation(), ""),
    ],
)
def test_a_change_is_told_in_words(before: Record | None, after: Record | None, expected: str) -> None:
    """Who, and what; nothing where there is no news."""
    assert told(before, after) == expected


def test_a_line_says_when_who_and_what() -> None:
    """The time first, in columns."""
    lines: list[str] = []
    trace = Trace(keep=True, tell=lines.append)
    trace.note(12.3456, "agent-1", "crashes")
    assert trace.lines == lines == ["    12.346  agent-1    crashes"]
