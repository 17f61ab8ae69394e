from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.ask import make_ask
from khonsu.core.changes import Place
from khonsu.core.feasible import feasible
from khonsu.core.fleet_state import PORT_MAX, PORT_MIN, FleetState
from khonsu.core.ids import EvaluationId
from khonsu.core.job import Group, Job
from khonsu.core.plan import Conflict, Placements, Plan
from khonsu.core.states import NodeStatus
from khonsu.core.verify import Verdict, claim, verify
from khonsu.errors import PluginError
from khonsu.schedulers.fit import BinPack
from tests.core.worlds import (
    DEMAND,
    REVISION,
    World,
    allocation,
    changes_of,
    evaluation_of,
    job_of,
    node,
    snapshot_of,
    state_of,
    worlds,
)


def plan_of(job: Job, state: FleetState, *rows: int, groups: tuple[int, ...] | None = None) -> Plan:
    """Return a plan that wants a copy on each of these rows, slot after slot."""
    return Plan(
        evaluation=EvaluationId("evaluation"),
        revision=REVISION,
        scheduler="stranger",
        version=1,
        groups=tuple(group.name for group in job.groups),
        placements=Placements(group=groups or (0,) * len(rows), slot=range(len(rows)), node=rows),
        score=np.zeros(len(rows)),
        nodes=state.snapshot(REVISION).ids,
    )


def one_after_the_other(plan: Plan, world: World) -> list[bool]:
    """Return which claims of a plan of one group fit if each is looked at after the ones before are counted."""
    fleet = world.fleet
    accepted = []
    for row in plan.placements.node.tolist():
        accepted.append(bool(feasible(world.ask, fleet).fits[row] > 0))
        if accepted[-1]:
            fleet = fleet.after(world.ask, np.arange(len(fleet)) == row)
    return accepted


@given(worlds(distinct=True), st.data())
def test_claims_are_taken_while_they_fit(world: World, data: st.DataObject) -> None:
    """The first claims that fit are kept, exactly those that fit one after the other, and nothing is overcommitted."""
    rows = data.draw(st.lists(st.integers(0, len(world.fleet) - 1), max_size=20))
    plan = plan_of(world.ask.job, world.state, *rows)
    verdict = verify(plan, world.state, world.ask.job)
    assert one_after_the_other(plan, world) == verdict.accepted.tolist()
    assert rows == verdict.rows.tolist()
    assert verdict.rejected == sum(conflict.copies for conflict in verdict.conflicts)
    before = world.fleet
    claim(plan, verdict, world.state, world.ask.job)
    after = world.fleet
    for name in ("cpu", "memory", "disk", "ports"):
        moved = after.used[name] != before.used[name]
        assert (after.free[name][moved] >= 0).all()
    assert int(after.copies(world.ask).sum() - before.copies(world.ask).sum()) == np.count_nonzero(verdict.accepted)


@given(worlds(spreads=True, distinct=True))
def test_a_plan_on_the_present_has_no_conflict(world: World) -> None:
    """Scheduler and planner use the same feasibility."""
    job = world.ask.job
    plan = BinPack().schedule(evaluation_of(job), snapshot_of(job, world.state), changes_of(job))
    verdict = verify(plan, world.state, job)
    assert (verdict.rejected, verdict.conflicts) == (0, ())


def test_a_claim_on_a_node_that_filled_up_is_returned() -> None:
    """Somebody was quicker: the conflict names node, number and reason, and the others are kept."""
    job = job_of(count=3)
    state = state_of(node(0), node(1))
    plan = plan_of(job, state, 0, 0, 1)
    state.add(allocation(0, node(0), job="other"), {"cpu": 3000})
    verdict = verify(plan, state, job)
    assert verdict.accepted.tolist() == [True, False, True]
    assert (Conflict(group="main", node=node(0).id, copies=1, reason="cpu"),) == verdict.conflicts


def test_a_node_that_changed_takes_nothing() -> None:
    """Down, or with another attribute than the job wants."""
    job = job_of(count=3, constraints=["os = linux"])
    state = state_of(node(0), node(1), node(2))
    plan = plan_of(job, state, 0, 1, 2)
    state.put_node(node(0, status=NodeStatus.DOWN))
    state.put_node(node(1, attributes={"os": "darwin"}))
    verdict = verify(plan, state, job)
    assert verdict.accepted.tolist() == [False, False, True]
    assert [conflict.reason for conflict in verdict.conflicts] == ["state", "constraint os = linux"]


def test_rows_are_found_again_after_a_node_is_removed() -> None:
    """The last node has moved into the hole; claims on the node that is gone are returned."""
    job = job_of(count=3)
    state = state_of(node(0), node(1), node(2))
    plan = plan_of(job, state, 0, 1, 2)
    state.remove_node(node(0).id)
    verdict = verify(plan, state, job)
    assert verdict.rows.tolist() == [-1, 1, 0]
    assert verdict.accepted.tolist() == [False, True, True]
    assert (Conflict(group="main", node=node(0).id, copies=1, reason="gone"),) == verdict.conflicts
    claim(plan, verdict, state, job)
    assert state.snapshot(REVISION).used["cpu"].tolist() == [1000, 1000]


def test_a_new_node_moves_no_row() -> None:
    """Plans from before it came are still right."""
    job = job_of(count=1)
    state = state_of(node(0))
    plan = plan_of(job, state, 0)
    state.put_node(node(1))
    assert verify(plan, state, job).accepted.tolist() == [True]


def test_a_gang_is_accepted_whole_or_not_at_all() -> None:
    """One claim that does not fit returns all, and its room is left to the next group."""
    gang = evolve(job_of(count=2).groups[0], name="gang", gang=True)
    single = evolve(job_of(count=1).groups[0], name="single")
    job = evolve(job_of(), groups=(gang, single))
    state = state_of(node(0), node(1, cpu=999))
    verdict = verify(plan_of(job, state, 0, 1, 0, groups=(0, 0, 1)), state, job)
    assert verdict.accepted.tolist() == [False, False, True]
    assert [conflict.group for conflict in verdict.conflicts] == ["gang"]
    assert verify(plan_of(job, state, 0, 0, 0, groups=(0, 0, 1)), state, job).accepted.tolist() == [True] * 3


def test_what_a_plan_says_of_its_groups_is_not_believed() -> None:
    """A gang is one by the spec, whatever the plan says, and so is what a copy takes."""
    job = job_of(count=2, gang=True)
    state = state_of(node(0), node(1, cpu=1))
    plan = plan_of(job, state, 0, 1)
    assert plan.all_or_nothing == ()
    assert verify(plan, state, job).accepted.tolist() == [False, False]
    with pytest.raises(PluginError, match="scheduler stranger: web has no group other"):
        verify(evolve(plan, groups=("other",)), state, job)


def hosts(verdict: Verdict) -> list[dict[str, int]]:
    """Return the ports of each placement on its node, by name."""
    return [{port.name: port.host for port in ports} for ports in verdict.ports]


def test_copies_are_given_ports() -> None:
    """Static ones as they are, dynamic ones of the range; `task` is the one inside where it is another."""
    job = job_of(count=2, ports={"http": {"host": 80, "task": 8080}, "a": "dynamic", "b": "dynamic"})
    state = state_of(node(0), node(1))
    verdict = verify(plan_of(job, state, 0, 1), state, job)
    for ports in verdict.ports:
        assert [port.name for port in ports] == ["http", "a", "b"]
        assert (ports[0].host, ports[0].task) == (80, 8080)
        assert len({port.host for port in ports[1:] if PORT_MIN <= port.host <= PORT_MAX}) == 2
        assert all(port.task == port.host for port in ports[1:])
    assert hosts(verdict) == hosts(verify(plan_of(job, state, 0, 1), state, job))


def test_a_static_port_goes_to_one_copy_per_node() -> None:
    """The second claim, and that on a node where somebody else has it, are returned."""
    job = job_of(count=3, ports={"http": 80})
    state = state_of(node(0), node(1))
    state.add(allocation(0, node(1), job="other", ports=[80]), DEMAND)
    verdict = verify(plan_of(job, state, 0, 0, 1), state, job)
    assert verdict.accepted.tolist() == [True, False, False]
    assert [conflict.reason for conflict in verdict.conflicts] == ["port 80", "port 80"]
    assert hosts(verdict) == [{"http": 80}, {}, {}]


@given(st.lists(st.integers(0, 1), min_size=1, max_size=12), st.integers(0, 3))
def test_ports_are_never_given_twice_on_a_node(rows: list[int], taken: int) -> None:
    """Not within a plan, not among what is there, and a full range returns what is too much."""
    job = job_of(count=12, demand={"cpu": 1, "memory": 1, "disk": 1}, ports={"a": "dynamic", "b": "dynamic"})
    state = state_of(node(0), node(1), port_min=20_000, port_max=20_006)
    state.add(allocation(0, node(0), job="other", ports=range(20_000, 20_000 + taken)), {})
    plan = plan_of(job, state, *rows)
    verdict = verify(plan, state, job)
    given_ports = [(row, host) for row, ports in zip(rows, hosts(verdict), strict=True) for host in ports.values()]
    assert len(set(given_ports)) == len(given_ports) == 2 * np.count_nonzero(verdict.accepted)
    assert not [pair for pair in given_ports if state.taken(*pair)]
    assert [min(rows.count(0), (7 - taken) // 2), min(rows.count(1), 3)] == [
        int(np.count_nonzero(verdict.accepted[np.array(rows) == row])) for row in (0, 1)
    ]
    claim(plan, verdict, state, job)
    assert all(state.taken(*pair) for pair in given_ports)


def test_a_static_port_within_the_range_may_be_given_to_another() -> None:
    """Then the copy that wants it is returned, and what it was given is free again."""
    group = job_of(count=1, ports={"a": "dynamic"}).groups[0]
    wants: Group = evolve(job_of(count=1, ports={"b": "dynamic", "c": 20_000}).groups[0], name="wants")
    job = evolve(job_of(), groups=(group, wants))
    state = state_of(node(0), port_min=20_000, port_max=20_000)
    verdict = verify(plan_of(job, state, 0, 0, groups=(0, 1)), state, job)
    assert hosts(verdict) == [{"a": 20_000}, {}]


def test_the_check_looks_at_the_fleet_once() -> None:
    """Its work does not grow with the number of claims on a node: a thousand are one column."""
    job = job_of(count=1000, demand={"cpu": 1, "memory": 1, "disk": 1})
    state = state_of(node(0, cpu=900), node(1))
    verdict = verify(plan_of(job, state, *([0] * 1000)), state, job)
    assert (int(np.count_nonzero(verdict.accepted)), len(verdict.conflicts)) == (900, 1)
    assert verdict.accepted[:900].tolist() == [True] * 900
    assert feasible(make_ask(job, job.groups[0], ()), state.snapshot(REVISION)).fits[0] == 900


def test_a_slot_that_failed_is_given_another_port() -> None:
    """A stranger on the node may hold the port that the slot had; what did not fail keeps its own."""
    job = job_of(count=2, ports={"a": "dynamic"})
    state = state_of(node(0), node(1))
    plan = plan_of(job, state, 0, 1)

    def ports(*reschedules: int) -> list[int]:
        places = [Place(group="main", slot=slot, reschedules=times) for slot, times in enumerate(reschedules)]
        return [each["a"] for each in hosts(verify(plan, state, job, wanted=places))]

    first = ports(0, 0)
    assert first == ports()
    assert first[1] == ports(1, 0)[1]
    assert len({ports(times, 0)[0] for times in range(5)}) == 5
