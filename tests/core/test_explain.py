from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given

from khonsu.abc.scheduler import Scheduler
from khonsu.core.arrays import BoolArray, FloatArray
from khonsu.core.ask import Ask
from khonsu.core.conditions import Spread
from khonsu.core.explain import explain, explain_group, placement_failure
from khonsu.core.fleet import Fleet
from khonsu.core.records import DriverInfo
from khonsu.core.states import JobType, NodeStatus
from khonsu.schedulers.fit import BinPack, SpreadOut
from tests.core.worlds import (
    DEMAND,
    MIB,
    REVISION,
    World,
    allocation,
    ask_of,
    changes_of,
    evaluation_of,
    job_of,
    node,
    snapshot_of,
    state_of,
    worlds,
)
from tests.effort import examples


class Picky(Scheduler):
    """Refuses by a filter and by a score, and prefers the last row."""

    name = "picky"

    def filters(self, ask: Ask, fleet: Fleet, /) -> dict[str, BoolArray]:
        """Refuse the node with the name node-0."""
        return {"not the first": fleet.where("node.name", "!=", "node-0")}

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        """Refuse the node with the name node-1."""
        return np.where(fleet.where("node.name", "=", "node-1"), -np.inf, 0.0)


def test_every_reason_is_told_with_what_is_wanted_and_what_is_there() -> None:
    """The sentences that a user reads."""
    job = job_of(
        constraints=["os = linux", "label.disk is_set", "label.rack distinct"],
        ports={"http": 80, "debug": "dynamic"},
        max_per_node=1,
    )
    bad = node(
        1, pool="gpu", drivers=(), attributes={"os": "darwin"}, labels={"rack": "a"}, cpu=500, memory=64 * MIB, disk=0
    )
    state = state_of(
        node(0, labels={"rack": "a", "disk": "ssd"}),
        evolve(bad, status=NodeStatus.DOWN),
        node(2, drivers=(DriverInfo(name="binary", healthy=False, message="no /bin/sh"),)),
        port_min=1,
        port_max=0,
    )
    state.add(allocation(0, node(0)), DEMAND)
    state.add(allocation(1, bad, job="other", ports=[80]), {"cpu": 1000})
    group = explain_group(BinPack(), ask_of(job), state.snapshot(REVISION, job="default/web"), wanted=3)
    by_node = {each.node: [str(refusal) for refusal in each.refusals] for each in group.nodes}
    assert list(by_node) == ["node-0", "node-2", "node-1"]
    assert by_node["node-0"] == []
    assert by_node["node-2"] == [
        "driver binary, no /bin/sh",
        "constraint: label.disk is_set, is not set",
        "constraint: label.rack distinct, is not set",
        "ports: asks 1, free 0",
    ]
    assert by_node["node-1"] == [
        "pool: default, is gpu",
        "driver binary, is not there",
        "constraint: os = linux, is darwin",
        "constraint: label.disk is_set, is not set",
        "distinct: label.rack, a has a copy",
        "state: ready, is down",
        "port 80, is taken",
        "cpu: asks 1, free 0",
        "memory: asks 100MiB, free 64MiB",
        "disk: asks 10MiB, free 0B",
        "ports: asks 1, free 0",
    ]


def test_a_full_group_says_so() -> None:
    """A node with as many copies as it may have is one with copies, not a refused one; without any it is refused."""
    ask = ask_of(job_of(max_per_node=0))
    group = explain_group(BinPack(), ask, state_of(node(0)).snapshot(REVISION), wanted=3)
    assert [str(each) for each in group.nodes[0].refusals] == ["max_per_node: at most 0, has 0"]


def test_the_schedulers_own_reasons_are_told() -> None:
    """A filter by its name, a refusal by score as such, and both are counted in short."""
    ask = ask_of(job_of(count=1))
    fleet = state_of(node(0), node(1), node(2)).snapshot(REVISION)
    group = explain_group(Picky(), ask, fleet, wanted=1)
    refusals = {each.node: [str(refusal) for refusal in each.refusals] for each in group.nodes}
    assert refusals == {"node-2": [], "node-0": ["filter not the first"], "node-1": ["score"]}
    failure = placement_failure(Picky(), ask, fleet, wanted=4, placed=0)
    assert dict(failure.reasons) == {"filter not the first": 1, "score": 1}
    assert (failure.wanted, failure.placed, failure.nodes) == (4, 0, 3)


def test_placed_nodes_show_their_terms_and_others_by_how_much_they_lost() -> None:
    """The terms of a node add up to its score; the losers are sorted by how near they came."""
    job = job_of(count=1)
    state = state_of(node(0), node(1), node(2))
    state.add(allocation(0, node(1), job="other"), {"cpu": 2000, "memory": 0, "disk": 0})
    state.add(allocation(1, node(2), job="other"), {"cpu": 1000, "memory": 0, "disk": 0})
    snapshot = snapshot_of(job, state)
    plan = BinPack().schedule(evaluation_of(job), snapshot, changes_of(job))
    explanation = explain(BinPack(), snapshot, plan)
    assert (
        explanation.namespace,
        explanation.job,
        explanation.version,
        explanation.scheduler,
        explanation.revision,
    ) == ("default", "web", 1, "binpack", REVISION)
    (group,) = explanation.groups
    assert [(each.node, each.placed) for each in group.nodes] == [("node-1", 1), ("node-2", 0), ("node-0", 0)]
    best, second, third = group.nodes
    assert best.lost_by is None
    assert best.score == sum(term.value for term in best.terms) == float(plan.score[0])
    assert second.lost_by is not None
    assert third.lost_by is not None
    assert 0.0 < second.lost_by < third.lost_by
    assert second.score == pytest.approx(best.score - second.lost_by)


def test_what_is_live_is_explained_without_a_plan() -> None:
    """The copies that run count as placed, on the fleet that has them."""
    job = job_of(count=2)
    state = state_of(node(0), node(1, cpu=10))
    state.add(allocation(0, node(0)), DEMAND)
    (group,) = explain(BinPack(), snapshot_of(job, state)).groups
    assert (group.wanted, group.placed) == (2, 1)
    assert [each.node for each in group.nodes] == ["node-0", "node-1"]
    assert {term.name: True for term in group.nodes[0].terms} == {"best_fit": True, "anti_affinity": True}


def test_a_job_for_every_node_wants_what_it_has_and_what_it_lacks() -> None:
    """It has no count of its own."""
    job = evolve(job_of(count=1), type=JobType.SYSTEM)
    state = state_of(node(0))
    state.add(allocation(0, node(0)), DEMAND)
    (group,) = explain(BinPack(), snapshot_of(job, state)).groups
    assert (group.wanted, group.placed) == (1, 1)


def test_a_job_with_spreads_shows_each_node_as_it_was_before_its_copy() -> None:
    """Terms that depend on other nodes are those with all other copies there."""
    job = job_of(count=2, spreads=[Spread("label.rack")])
    state = state_of(node(0, labels={"rack": "a"}), node(1, labels={"rack": "b"}), node(2, labels={"rack": "a"}))
    snapshot = snapshot_of(job, state)
    plan = SpreadOut().schedule(evaluation_of(job), snapshot, changes_of(job))
    (group,) = explain(SpreadOut(), snapshot, plan).groups
    spreads = {each.node: {term.name: term.value for term in each.terms}["spread"] for each in group.nodes}
    placed = {each.node for each in group.nodes if each.placed}
    assert len(placed) == 2
    assert dict.fromkeys(placed, 1.0) == {name: value for name, value in spreads.items() if name in placed}


@examples(80)
@given(worlds(spreads=True, distinct=True))
def test_every_node_is_explained_once(world: World) -> None:
    """With its copies, with what it lost by, or with every reason; nobody who lost was better."""
    job = world.ask.job
    snapshot = snapshot_of(job, world.state)
    plan = BinPack().schedule(evaluation_of(job), snapshot, changes_of(job))
    (group,) = explain(BinPack(), snapshot, plan).groups
    assert sorted(world.fleet.names) == sorted(each.node for each in group.nodes)
    there = int(world.fleet.copies(world.ask).sum())
    assert group.placed == sum(each.placed for each in group.nodes) == there + len(plan.placements)
    for each in group.nodes:
        shown = [bool(each.placed), each.score is not None and not each.placed, bool(each.refusals)]
        assert sum(shown) == 1, each
        assert all(str(refusal) for refusal in each.refusals)


@given(worlds())
def test_nobody_who_lost_was_better(world: World) -> None:
    """Where no copies were there before, each loser is behind the worst of the winners."""
    job = evolve(world.ask.job, name="another")
    snapshot = snapshot_of(job, world.state)
    plan = SpreadOut().schedule(evaluation_of(job), snapshot, changes_of(job))
    (group,) = explain(SpreadOut(), snapshot, plan).groups
    assert all(each.lost_by >= 0 for each in group.nodes if each.lost_by is not None)


def test_a_job_of_many_groups_shows_the_nearest_nodes_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explanation has a limit, and says so."""
    monkeypatch.setattr("khonsu.core.explain.NODES_MAX", 4)
    one = job_of(count=1).groups[0]
    job = evolve(job_of(), groups=(evolve(one, name="first"), evolve(one, name="second", constraints=["os = nothing"])))
    state = state_of(*(node(number) for number in range(5)))
    snapshot = snapshot_of(job, state)
    plan = BinPack().schedule(evaluation_of(job), snapshot, changes_of(job))
    explanation = explain(BinPack(), snapshot, plan)
    assert explanation.message == "of each group the 2 nearest nodes"
    first, second = explanation.groups
    assert [(each.placed, each.lost_by) for each in first.nodes] == [(1, None), (0, 0.0)]
    assert [len(each.refusals) for each in second.nodes] == [1, 1]
    assert (second.wanted, second.placed) == (1, 0)
