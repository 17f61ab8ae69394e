"""Reports: only ever forward."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.ids import AllocationId
from khonsu.core.protocol import AllocationReport
from khonsu.core.records import Allocation, TaskStatus, Time
from khonsu.core.reports import EVENT_OF, apply_report, needs_look, report_events
from khonsu.core.states import ALLOCATION, AllocationStatus, Desired, TaskState
from tests.core.rules_model import make_allocation

A = AllocationStatus
NOW = Time(50.0)


def copy(status: A = A.RUNNING, **fields: Any) -> Allocation:
    """Return a copy that is not healthy yet."""
    return make_allocation(0, **{"status": status, "health": None, "healthy_at": None, **fields})


def report(status: A, **fields: Any) -> AllocationReport:
    """Return a report of that copy."""
    return AllocationReport(**{"id": AllocationId("a0000"), "generation": 1, "status": status, **fields})


def task(status: TaskState = TaskState.RUNNING, **fields: Any) -> TaskStatus:
    """Return a task in its first attempt."""
    return TaskStatus(**{"name": "main", "status": status, "attempt": 1, **fields})


@pytest.mark.parametrize("before", list(A))
@pytest.mark.parametrize("reported", list(A))
def test_a_report_moves_a_copy_only_along_the_machine(before: A, reported: A) -> None:
    """What the machine does not allow is late or foreign, and changes nothing."""
    after = apply_report(copy(before), report(reported), NOW)
    event = EVENT_OF.get(reported)
    if event is not None and reported is not before and ALLOCATION.can(before, event):
        assert after is not None
        assert (after.status, after.changed_at) == (reported, NOW)
    else:
        assert after is None


statuses = st.sampled_from(list(A))
tasks = st.builds(
    TaskStatus,
    name=st.sampled_from(["a", "b"]),
    status=st.sampled_from(list(TaskState)),
    attempt=st.integers(0, 3),
    exit_code=st.none() | st.integers(0, 3),
)
reports = st.builds(
    AllocationReport,
    id=st.just(AllocationId("a0000")),
    generation=st.integers(1, 2),
    status=statuses,
    health=st.none() | st.booleans(),
    tasks=st.lists(tasks, max_size=2, unique_by=lambda one: one.name).map(tuple),
    message=st.sampled_from(["", "why"]),
)


@given(status=statuses, sent=st.lists(reports, max_size=8), data=st.data())
def test_repeats_and_late_reports_do_no_harm(status: A, sent: list[AllocationReport], data: st.DataObject) -> None:
    """Each report twice is as good as once, ends are final, health stays, and attempts only grow."""
    allocation = copy(status)
    for one in sent:
        after = apply_report(allocation, one, NOW)
        if after is None:
            continue
        assert not allocation.status.terminal
        assert apply_report(after, one, NOW) is None
        assert allocation.health is not True or after.health is True
        attempts = {known.name: known.attempt for known in allocation.tasks}
        assert all(later.attempt >= attempts.get(later.name, 0) for later in after.tasks)
        allocation = after


def test_another_generation_is_another_copy() -> None:
    """An older fencing token, or one from nowhere, has nothing to say."""
    assert apply_report(copy(), report(A.COMPLETE, generation=0), NOW) is None
    assert apply_report(copy(), report(A.COMPLETE, generation=2), NOW) is None
    assert apply_report(copy(), report(A.COMPLETE, id=AllocationId("other")), NOW) is None


def test_a_copy_is_healthy_from_the_first_report_that_says_so() -> None:
    """The time is kept, and a recovery after the deadline counts."""
    after = apply_report(copy(health=False), report(A.RUNNING, health=True), NOW)
    assert after is not None
    assert (after.health, after.healthy_at) == (True, NOW)
    assert apply_report(after, report(A.RUNNING, health=False), Time(60.0)) is None


def test_an_end_has_its_exit_code() -> None:
    """Zero when complete, that of the first failed task when failed."""
    done = apply_report(copy(), report(A.COMPLETE, tasks=(task(TaskState.COMPLETE, exit_code=0),)), NOW)
    assert done is not None
    assert done.exit_code == 0
    bad = (task(TaskState.COMPLETE, exit_code=0), task(TaskState.FAILED, name="side", signal=9))
    failed = apply_report(copy(), report(A.FAILED, tasks=bad), NOW)
    assert failed is not None
    assert failed.exit_code == 137


def test_the_reason_of_a_stop_outlives_the_reports_of_it() -> None:
    """It comes from the control plane, and agents do not repeat it."""
    stopping = copy(desired=Desired.STOP, message="scaled down")
    after = apply_report(stopping, report(A.STOPPED), NOW)
    assert after is not None
    assert after.message == "scaled down"
    waiting = apply_report(copy(A.STARTING, message="pulls its image"), report(A.RUNNING), NOW)
    assert waiting is not None
    assert waiting.message == ""


def test_events_tell_of_tasks_and_of_the_copy() -> None:
    """Each change once, with what is known of it."""
    before = copy(tasks=(task(pid=7),))
    ended = task(TaskState.FAILED, exit_code=3, out_of_memory=True, message="no memory")
    after = apply_report(before, report(A.FAILED, tasks=(ended,), message="gave up"), NOW)
    assert after is not None
    first, second = report_events(before, after)
    assert (first.type, first.task, first.message) == ("task-failed", "main", "no memory")
    assert first.details == {"attempt": 1, "exit_code": 3, "out_of_memory": True}
    assert (second.type, second.message) == ("allocation-failed", "gave up")
    assert second.details == {"before": "running", "exit_code": 3}
    assert list(report_events(after, after)) == []


def test_a_restart_and_health_are_events() -> None:
    """A new attempt counts although the state is the same."""
    before = copy(tasks=(task(),))
    after = apply_report(before, report(A.RUNNING, health=True, tasks=(task(attempt=2, pid=8),)), NOW)
    assert after is not None
    assert [event.type for event in report_events(before, after)] == ["task-started", "allocation-healthy"]
    assert next(report_events(before, after)).details == {"attempt": 2, "pid": 8}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (copy(), {"status": A.FAILED}, "allocation-failed"),
        (copy(A.UNKNOWN), {"status": A.RUNNING}, "allocation-returned"),
        (copy(), {"health": True}, "allocation-health"),
        (copy(A.STARTING), {"status": A.RUNNING}, "allocation-running"),
        (copy(A.PENDING), {"status": A.STARTING}, None),
        (copy(), {"message": "news"}, None),
    ],
)
def test_what_moves_a_job_on_has_it_looked_at(before: Allocation, after: dict[str, Any], expected: str | None) -> None:
    """And nothing else does."""
    assert needs_look(before, evolve(before, **after)) == expected
