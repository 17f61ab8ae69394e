"""Drain: what a copy does on a node that somebody wants to switch off."""

from __future__ import annotations

import pytest

from khonsu.core.drain import Leave, leave
from khonsu.core.records import Time
from khonsu.core.states import Eligibility, JobType
from tests.core.rules_model import make_node


@pytest.mark.parametrize(
    ("job_type", "emptied", "before", "after"),
    [
        (JobType.SERVICE, False, Leave.MOVE, Leave.STOP),
        (JobType.BATCH, False, Leave.STAY, Leave.STOP),
        (JobType.SYSBATCH, True, Leave.STAY, Leave.STOP),
        (JobType.SYSTEM, False, Leave.STAY, Leave.STOP),
        (JobType.SYSTEM, True, Leave.STOP, Leave.STOP),
    ],
)
def test_who_leaves_when(job_type: JobType, emptied: bool, before: Leave, after: Leave) -> None:
    """Services at once, batch copies at the deadline, system copies last."""
    node = make_node(1, eligibility=Eligibility.DRAINING, drain_deadline_at=Time(100.0))
    others = frozenset({node.id}) if emptied else frozenset()
    assert leave(job_type, node, others, 99.0) is before
    assert leave(job_type, node, others, 100.0) is after


@pytest.mark.parametrize("eligibility", [Eligibility.ELIGIBLE, Eligibility.INELIGIBLE])
def test_nobody_leaves_a_node_that_is_not_drained(eligibility: Eligibility) -> None:
    """A node that gets no new work keeps what it has."""
    assert leave(JobType.SERVICE, make_node(1, eligibility=eligibility), frozenset(), 0.0) is Leave.STAY
