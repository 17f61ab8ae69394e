"""Rescheduling: delays that double, tries that are counted, and ends that cost none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.policies import Reschedule
from khonsu.core.records import Allocation, Time
from khonsu.core.reschedule import AT_ONCE, Turn, delay_seconds, next_turn, nodes_to_avoid
from khonsu.core.states import AllocationStatus, Desired
from tests.core.rules_model import make_allocation

A = AllocationStatus


def ended(status: A, **fields: Any) -> Allocation:
    """Return a copy that ended at 100."""
    return make_allocation(0, **{"status": status, "health": None, "changed_at": Time(100.0), **fields})


def turn(*copies: Allocation, policy: Reschedule | None = None, keeps_running: bool = True) -> Turn:
    """Return the next try at 150."""
    return next_turn(copies, policy if policy is not None else Reschedule(), keeps_running=keeps_running, now=150.0)


@given(tried=st.integers(0, 10**6), delay=st.floats(0.1, 100), most=st.floats(0.1, 10**6))
def test_the_delay_doubles_up_to_its_limit(tried: int, delay: float, most: float) -> None:
    """However often it has been tried, the number stays one."""
    policy = Reschedule(delay=delay, delay_max=most)
    expected = min(most, delay * 2.0**tried) if tried < 60 else most
    assert delay_seconds(policy, tried) == pytest.approx(expected)


def test_a_slot_without_a_past_is_filled_at_once() -> None:
    """There is nothing to wait for."""
    assert turn() == Turn(at=AT_ONCE, reschedules=0)


def test_a_failure_waits_and_is_counted() -> None:
    """From its end on."""
    assert turn(ended(A.FAILED, reschedules=2)) == Turn(at=120.0, reschedules=3, reason="failed")


def test_used_up_attempts_give_a_slot_up() -> None:
    """One try more is the default of batch jobs."""
    policy = Reschedule(attempts=1)
    assert not turn(ended(A.FAILED), policy=policy).given_up
    assert turn(ended(A.FAILED, reschedules=1), policy=policy).given_up


def test_a_copy_that_lasted_begins_a_new_story() -> None:
    """Its failure is tried again soon, and its attempts are all there; a batch job's never grow back."""
    policy = Reschedule(attempts=1, delay_max=60)
    lasted = ended(A.FAILED, reschedules=9, health=True, changed_at=Time(100.0), created_at=Time(40.0))
    assert turn(lasted, policy=policy) == Turn(at=105.0, reschedules=1, reason="failed")
    assert turn(lasted, policy=policy, keeps_running=False).given_up


@pytest.mark.parametrize(
    ("copy", "at"),
    [
        (ended(A.LOST, reschedules=1), AT_ONCE),
        (ended(A.STOPPED, reschedules=1, desired=Desired.STOP), AT_ONCE),
        (ended(A.STOPPED, reschedules=1), 105.0),
    ],
)
def test_what_did_not_fail_costs_no_attempt(copy: Allocation, at: float) -> None:
    """What stopped unasked may do so again, so it waits a little."""
    found = turn(copy, policy=Reschedule(attempts=1))
    assert (found.at, found.reschedules, found.given_up) == (at, 1, False)


def test_a_service_that_ends_well_has_failed_to_keep_running() -> None:
    """Unless it was asked to stop."""
    assert turn(ended(A.COMPLETE)).reason == "failed"
    assert turn(ended(A.COMPLETE, desired=Desired.STOP)).reason == "complete"


def test_nodes_where_it_failed_are_avoided() -> None:
    """The latest first, each once, and not those that were lost."""
    copies = [ended(A.FAILED, on=2), ended(A.LOST, on=3), ended(A.FAILED, on=1), ended(A.FAILED, on=2)]
    assert nodes_to_avoid(copies, keeps_running=True) == ("n2", "n1")
