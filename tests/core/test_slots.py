"""Slots: what work is the same, and which slot a node has."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.conditions import Constraint
from khonsu.core.job import Group, Job
from khonsu.core.policies import Disconnect, Reschedule, Update
from khonsu.core.slots import IN_PLACE, Look, View, same_work
from khonsu.core.states import AllocationStatus
from tests.core.rules_model import make_allocation, make_group, make_job, make_node, make_record


@pytest.mark.parametrize(
    "change",
    [
        {"count": 7},
        {"gang": True},
        {"update": Update(max_parallel=9)},
        {"reschedule": Reschedule(attempts=9)},
        {"disconnect": Disconnect(replace_after=9, keep="original")},
    ],
)
def test_what_only_the_control_plane_acts_on_is_changed_in_place(change: dict[str, Any]) -> None:
    """No copy is replaced for it."""
    assert same_work(make_job(), make_job(**change), "main")


@pytest.mark.parametrize(
    "change",
    [
        {"work": 2},
        {"exclusive": True},
        {"max_per_node": 1},
        {"ports": {"http": "dynamic"}},
        {"disk": "1GiB"},
        {"constraints": ["os = linux"]},
        {"disconnect": Disconnect(stop_after=9)},
    ],
)
def test_what_a_copy_is_made_of_replaces_it(change: dict[str, Any]) -> None:
    """So does a condition that its node might not meet."""
    assert not same_work(make_job(), make_job(**change), "main")


@pytest.mark.parametrize(
    "change", [{"pool": "other"}, {"meta": {"a": "b"}}, {"constraints": (Constraint("os", "=", "linux"),)}]
)
def test_what_the_whole_job_is_made_of_replaces_it(change: dict[str, Any]) -> None:
    """A change of the job is one of every group; a group that is gone or new is never the same."""
    assert not same_work(make_job(), evolve(make_job(), **change), "main")
    assert not same_work(make_job(), evolve(make_job(), groups=[make_group("other")]), "main")


def test_every_field_of_a_group_is_decided_on() -> None:
    """A new field replaces copies until somebody says that it need not."""
    assert {field.name for field in fields(Group)} >= IN_PLACE


def view_of(spec: Job, nodes: int) -> View:
    """Return a look at the group `main`."""
    made = {node.id: node for node in map(make_node, range(nodes))}
    look = Look(record=make_record(spec), spec=spec, specs={1: spec}, nodes=made, now=0.0)
    return View(look=look, group=spec.groups[0], fresh_versions=frozenset({1}))


@given(copies=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), unique_by=lambda pair: pair[0]))
def test_a_node_keeps_its_slot_and_no_two_share_one(copies: list[tuple[int, int]]) -> None:
    """New nodes get the least numbers that are free."""
    taken: dict[int, int] = {}
    for node, slot in copies:
        if slot not in taken.values():
            taken[node] = slot
    allocations = [make_allocation(slot, node) for node, slot in taken.items()]
    slots = view_of(make_job("system"), 6).slots(allocations)
    numbers = {slot.node: slot.index for slot in slots}
    assert len(numbers) == len(set(numbers.values())) == 6
    assert all(numbers[make_node(node).id] == slot for node, slot in taken.items())


def test_a_number_that_was_given_away_is_not_taken_back() -> None:
    """A node whose copy has ended gets another slot when its old one went to a node that runs one."""
    copies = [make_allocation(0, 1, status=AllocationStatus.LOST), make_allocation(1, 2, slot=0, generation=2)]
    slots = view_of(make_job("system"), 3).slots(copies)
    assert {slot.node: slot.index for slot in slots} == {"n2": 0, "n0": 1, "n1": 2}


def test_slots_beyond_the_count_are_surplus() -> None:
    """They are looked at as long as something is known of them."""
    slots = view_of(make_job(count=2), 1).slots([make_allocation(0), make_allocation(4)])
    assert [(slot.index, slot.wanted, slot.surplus) for slot in slots] == [
        (0, True, ""),
        (1, True, ""),
        (4, False, "scaled down"),
    ]
