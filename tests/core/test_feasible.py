from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from khonsu.core.ask import Ask
from khonsu.core.constraints import matches
from khonsu.core.feasible import eligible, feasible
from khonsu.core.records import DriverInfo, Node
from khonsu.core.states import Eligibility, NodeStatus
from khonsu.errors import KhonsuError
from khonsu.schedulers.fit import BinPack
from tests.core.worlds import DEMAND, MIB, REVISION, World, allocation, ask_of, job_of, node, state_of, worlds


def fits_on(ask: Ask, world: World, each: Node) -> int:
    """Return how many copies fit on a node, from its record and one number after the other."""
    fleet = world.fleet
    row = fleet.ids.index(each.id)
    copies = int(fleet.copies(ask)[row])
    if not (each.schedulable and each.pool == ask.job.pool and each.drivers):
        return 0
    if not all(matches(one.operator, one.value, each.attribute(one.attribute)) for one in ask.job.constraints):
        return 0
    rooms = [int(fleet.free[name][row]) // amount for name, amount in ask.resources.items() if amount]
    if ask.group.max_per_node is not None:
        rooms.append(ask.group.max_per_node - copies)
    rooms.extend(0 if fleet.taken(port)[row] else 1 for port in ask.static_ports)
    for constraint in ask.job.constraints:
        if constraint.operator == "distinct":
            hosts = np.flatnonzero(fleet.copies(ask)).tolist()
            values = [fleet.attribute(constraint.attribute).text(host) for host in hosts]
            rooms.append(0 if each.attribute(constraint.attribute) in values else 1)
    return max(min(rooms), 0)


@given(worlds(distinct=True))
def test_columns_agree_with_one_node_after_the_other(world: World) -> None:
    """What fits by columns is what fits by the records of the nodes, and refused nodes fit nothing."""
    found = feasible(world.ask, world.fleet)
    expected = [fits_on(world.ask, world, world.state.nodes[key]) for key in world.fleet.ids]
    assert expected == found.fits.tolist()
    refused = np.zeros(len(expected), np.bool_)
    for mask in found.refused.values():
        refused |= mask
    assert [count == 0 for count in expected] == refused.tolist()
    assert np.count_nonzero(refused) == sum(found.first_reasons().values())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pool": "gpu"}, "pool"),
        ({"drivers": ()}, "driver binary"),
        ({"drivers": (DriverInfo(name="binary", healthy=False, message="broken"),)}, "driver binary"),
        ({"attributes": {"os": "darwin"}}, "constraint os = linux"),
        ({"status": NodeStatus.DOWN}, "state"),
        ({"eligibility": Eligibility.INELIGIBLE}, "state"),
        ({"cpu": 999}, "cpu"),
        ({"memory": 99 * MIB}, "memory"),
        ({"disk": 9 * MIB}, "disk"),
    ],
)
def test_each_thing_that_stands_against_a_node_has_a_reason(fields: dict[str, object], reason: str) -> None:
    """A node that lacks one thing is refused for it alone."""
    ask = ask_of(job_of(constraints=["os = linux"]))
    fleet = state_of(node(0), node(1, **fields)).snapshot(REVISION)
    found = feasible(ask, fleet)
    assert {reason: 1} == found.first_reasons()
    assert (reason,) == found.reasons(1)
    assert found.fits.tolist() == [4, 0]


def test_what_is_on_a_node_stands_against_it_too() -> None:
    """Copies of the group, ports and used resources refuse nodes, those of others do so only by what they take."""
    job = job_of(max_per_node=1, ports={"http": 80}, constraints=["node.name distinct"])
    ask = ask_of(job)
    state = state_of(node(0), node(1), node(2), node(3))
    state.add(allocation(0, node(0)), DEMAND)
    state.add(allocation(1, node(1), job="other", ports=[80]), DEMAND)
    state.add(allocation(2, node(2), job="other"), {"cpu": 3500, "memory": 0, "disk": 0})
    found = feasible(ask, state.snapshot(REVISION, job="default/web"))
    assert found.reasons(0) == ("distinct node.name", "max_per_node")
    assert [found.reasons(row) for row in (1, 2, 3)] == [("port 80",), ("cpu",), ()]
    assert found.fits.tolist() == [0, 0, 0, 1]


def test_the_range_of_dynamic_ports_is_a_resource() -> None:
    """A node fits no more copies than it has ports for."""
    ask = ask_of(job_of(count=9, demand={"cpu": 1, "memory": 1, "disk": 1}, ports={"a": "dynamic", "b": "dynamic"}))
    fleet = state_of(node(0), port_min=20_000, port_max=20_004).snapshot(REVISION)
    assert feasible(ask, fleet).fits.tolist() == [2]
    assert feasible(ask, fleet.after(ask, 2)).first_reasons() == {"ports": 1}


def test_first_reasons_count_each_node_once() -> None:
    """The static reason comes first: what changes does not help such a node."""
    ask = ask_of(job_of(constraints=["os = linux"]))
    fleet = state_of(node(0, cpu=1, attributes={}), node(1, cpu=1)).snapshot(REVISION)
    assert feasible(ask, fleet).first_reasons() == {"constraint os = linux": 1, "cpu": 1}


def test_eligible_looks_at_what_a_registration_says() -> None:
    """Whether a node is ready or full does not matter."""
    ask = ask_of(job_of(constraints=["os = linux"]))
    nodes = (node(0, status=NodeStatus.DOWN, cpu=1), node(1, attributes={}))
    assert eligible(ask, state_of(*nodes).snapshot(REVISION)).tolist() == [True, False]


def test_copies_that_take_nothing_have_no_end() -> None:
    """A group that asks for nothing fits without limit, and placement caps it by the count."""
    ask = ask_of(job_of(demand={"cpu": 0, "memory": 0, "disk": 0}))
    assert feasible(ask, state_of(node(0)).snapshot(REVISION)).fits[0] > 2**40


def test_a_wrong_constraint_is_an_error() -> None:
    """Submission refuses it before; here it does not pass as a refusal of nodes."""
    ask = ask_of(job_of(constraints=["os regex (a+)+"]))
    with pytest.raises((ValueError, KhonsuError), match="repeats a group"):
        feasible(ask, state_of(node(0)).snapshot(REVISION))


def test_absurd_amounts_fit_nowhere() -> None:
    """They are no numbers that a column cannot hold, neither for the check nor for the score."""
    ask = ask_of(job_of(demand={"cpu": 1, "memory": 2**80, "disk": 2**63}))
    fleet = state_of(node(0, memory=2**50), node(1, memory=2**90, disk=-1)).snapshot(REVISION)
    assert [feasible(ask, fleet).reasons(row) for row in (0, 1)] == [("memory", "disk"), ("disk",)]
    assert BinPack().place(ask, fleet).tolist() == [-1, -1, -1]
    assert np.isfinite(fleet.after(ask).share("memory")).all()
