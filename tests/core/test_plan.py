from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given

from khonsu.core.changes import Changes, Place, Stop
from khonsu.core.fleet_state import FleetState
from khonsu.core.ids import AllocationId, NodeId
from khonsu.core.job import Group, Job
from khonsu.core.plan import Placements, Plan
from khonsu.core.records import PlacementFailure
from khonsu.core.states import JobType, NodeStatus
from khonsu.core.task import Resources, Task
from khonsu.core.units import Millis
from khonsu.core.verify import check_plan
from khonsu.errors import InvalidTransition, PluginError
from khonsu.schedulers.fit import BinPack, SpreadOut
from tests.core.worlds import (
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


def plan_of(job: Job, state: FleetState, changes: Changes | None = None) -> Plan:
    """Return the plan of the default scheduler."""
    return BinPack().schedule(evaluation_of(job), snapshot_of(job, state), changes or changes_of(job))


def group_of(name: str, cpu: int, count: int, **fields: object) -> Group:
    """Return a group whose copies take so much CPU and next to nothing else."""
    task = Task("task", {"command": "true"}, driver="binary", resources=Resources(cpu=Millis(cpu), memory=1))
    return Group(name, tasks=[task], count=count, disk=1, **fields)  # type: ignore[arg-type]


@given(worlds(spreads=True))
def test_a_plan_accounts_for_every_copy(world: World) -> None:
    """Each wanted slot is placed once or counted as not placed, with reasons that add up to all nodes."""
    job = world.ask.job
    plan = plan_of(job, world.state)
    assert (plan.revision, plan.scheduler, plan.version) == (REVISION, "binpack", 1)
    assert world.fleet.ids == plan.nodes
    lacking = sum(failure.wanted - failure.placed for failure in plan.unplaced)
    assert job.groups[0].count == len(plan.placements) + lacking
    assert len(set(plan.placements.slot.tolist())) == len(plan.placements) == len(plan.score)
    for failure in plan.unplaced:
        assert failure.nodes == len(world.fleet) == sum(failure.reasons.values())
    check_plan(plan, changes_of(job), len(world.fleet), job)


def test_groups_are_placed_on_what_the_ones_before_left() -> None:
    """Together they never take more than there is."""
    job = Job("web", groups=[group_of("first", 3000, 2), group_of("second", 1500, 2)])
    plan = plan_of(job, state_of(node(0), node(1), node(2)))
    assert plan.groups == ("first", "second")
    used = np.bincount(plan.placements.node, weights=np.array([3000, 1500])[plan.placements.group], minlength=3)
    assert used.tolist() == [3000, 3000, 3000]


def test_groups_of_a_job_do_not_share_a_static_port() -> None:
    """The second group finds the port taken where the first was placed, as it would by another job."""
    ports = {"http": 80}
    job = Job("web", groups=[group_of("first", 1, 1, ports=ports), group_of("second", 1, 2, ports=ports)])
    plan = plan_of(job, state_of(node(0), node(1)))
    assert len(set(plan.placements.node.tolist())) == len(plan.placements) == 2
    assert plan.unplaced[0].reasons == {"port 80": 2}


def test_a_job_of_many_groups_is_planned() -> None:
    """Work grows with the groups, each of which is placed on what the others left."""
    job = Job("web", groups=[group_of(f"g{number}", 4, 1, ports={"p": 1000 + number}) for number in range(1000)])
    plan = plan_of(job, state_of(node(0), node(1)))
    assert len(plan.placements) == 1000
    assert len(set(plan.placements.node.tolist())) == 1


def test_threads_may_plan_on_one_snapshot() -> None:
    """Columns that are made when they are looked at are the same for everybody."""
    state = state_of(*(node(number, labels={"rack": f"r{number % 7}"}) for number in range(300)))
    job = job_of(count=40, constraints=["label.rack in r1,r2,r3", "os = linux"])
    snapshot = snapshot_of(job, state)

    def rows(_: int) -> tuple[int, ...]:
        return tuple(BinPack().schedule(evaluation_of(job), snapshot, changes_of(job)).placements.node.tolist())

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(rows, range(16)))) == 1


def test_a_gang_is_placed_whole_or_not_at_all() -> None:
    """What it would have taken is left to the groups after it, and the reasons are those of its last copy."""
    job = Job("web", groups=[group_of("gang", 3000, 3, gang=True), group_of("other", 4000, 2)])
    plan = plan_of(job, state_of(node(0), node(1)))
    assert (plan.groups, len(plan.placements)) == (("other",), 2)
    expected = PlacementFailure(group="gang", wanted=3, placed=0, nodes=2, reasons={"cpu": 2})
    assert (expected,) == plan.unplaced
    whole = plan_of(job, state_of(node(0), node(1), node(2)))
    assert (whole.groups, whole.all_or_nothing) == (("gang",), ("gang",))


def test_slots_that_failed_somewhere_are_placed_singly_and_first() -> None:
    """They go elsewhere while there is another place, and back if there is none."""
    job = job_of(count=2)
    places = [Place(group="main", slot=0), Place(group="main", slot=1, avoid=(NodeId("id-0"),))]
    plan = plan_of(job, state_of(node(0), node(1)), changes_of(job, places))
    assert plan.placements.slot.tolist() == [1, 0]
    assert plan.nodes[plan.placements.node[0]] == "id-1"
    alone = plan_of(job, state_of(node(0)), changes_of(job, places[1:]))
    assert alone.placements.node.tolist() == [0]


def test_copies_for_one_node_each_go_there_or_nowhere() -> None:
    """Nodes that are not for the group are left out in silence; full ones are counted as not placed."""
    job = evolve(job_of(count=1, constraints=["os = linux"]), type=JobType.SYSTEM)
    state = state_of(node(0), node(1), node(2, attributes={}), node(3, cpu=1), node(4, status=NodeStatus.DOWN))
    places = [Place(group="main", slot=0, node=NodeId(f"id-{number}")) for number in (0, 1, 2, 3, 4, 9)]
    plan = plan_of(job, state, changes_of(job, places))
    assert [plan.nodes[row] for row in plan.placements.node] == ["id-0", "id-1"]
    expected = PlacementFailure(group="main", wanted=4, placed=2, nodes=2, reasons={"state": 1, "cpu": 1})
    assert (expected,) == plan.unplaced


def test_stops_are_taken_over() -> None:
    """What is to stop stands in the plan; its room is not free yet."""
    job = job_of(count=1, demand={"cpu": 3000, "memory": 1, "disk": 1})
    state = state_of(node(0))
    old = allocation(0, node(0))
    state.add(old, job.groups[0].demand())
    stop = Stop(allocation=AllocationId("allocation-0"), reason="update")
    plan = plan_of(job, state, changes_of(job, stop=(stop,)))
    assert ((stop,), 0) == (plan.stops, len(plan.placements))


def test_a_plan_of_nothing_is_empty() -> None:
    """No copies, no nodes: columns without rows."""
    job = job_of(count=1)
    plan = plan_of(job, state_of(), changes_of(job, []))
    assert (len(plan.placements), len(plan.score), plan.unplaced) == (0, 0, ())
    expected = PlacementFailure(group="main", wanted=1, placed=0, nodes=0, reasons={})
    assert (expected,) == plan_of(job, state_of()).unplaced


def test_a_group_that_the_version_does_not_have_is_a_bug() -> None:
    """Changes and version belong together."""
    job = job_of()
    with pytest.raises(InvalidTransition, match="has a group nobody"):
        plan_of(job, state_of(node(0)), changes_of(job, [Place(group="nobody", slot=0)]))


def test_the_shipped_schedulers_pack_and_spread() -> None:
    """One fills the node that is used, the other takes the one that is not."""
    job = job_of(count=1)
    state = state_of(node(0), node(1))
    state.add(allocation(0, node(1), job="other"), {"cpu": 1000, "memory": 0, "disk": 0})
    snapshot, changes = snapshot_of(job, state), changes_of(job)
    nodes = [each.schedule(evaluation_of(job), snapshot, changes).placements.node for each in (BinPack(), SpreadOut())]
    assert [column.tolist() for column in nodes] == [[1], [0]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"score": (0.0,)}, "columns of different lengths"),
        ({"version": 2}, "is for version 2, not 1"),
        ({"placements": Placements(group=(1, 0), slot=(0, 1), node=(0, 0))}, "a group that is not there"),
        ({"placements": Placements(group=(0, 0), slot=(0, 1), node=(0, 7))}, "a node that is not there"),
        ({"placements": Placements(group=(0, 0), slot=(0, 0), node=(0, 0))}, "slot 0 of group main, more often"),
        (
            {"placements": Placements(group=(0, 0), slot=(0, 5), node=(0, 0))},
            "slot 5 of group main, which nobody",
        ),
        (
            {"placements": Placements(group=(0,), slot=(0,), node=(0,)), "score": (0.0,)},
            "1 of 2 copies .* that 0",
        ),
        (
            {"unplaced": (PlacementFailure(group="main", wanted=2, placed=1, nodes=1),)},
            "2 of 2 copies .* that 1",
        ),
        ({"stops": (Stop(allocation=AllocationId("x"), reason="why"),)}, "does not stop what is to be stopped"),
    ],
)
def test_a_plan_that_does_not_answer_the_changes_is_refused(fields: dict[str, object], words: str) -> None:
    """A stranger's scheduler may say anything; the error names it and what is wrong."""
    job = job_of(count=2)
    plan = evolve(plan_of(job, state_of(node(0))), **fields)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=f"scheduler binpack: the plan .*{words}"):
        check_plan(plan, changes_of(job), 1, job)


def test_a_plan_holds_to_the_node_that_is_wanted() -> None:
    """The copy of a job on every node is placed on its own node, or not at all."""
    job = job_of(count=1)
    state = state_of(node(0), node(1))
    changes = evolve(changes_of(job), place=(Place(group="main", slot=0, node=node(1).id),))
    plan = plan_of(job, state, changes)
    check_plan(plan, changes, 2, job)
    elsewhere = evolve(plan, placements=Placements(group=(0,), slot=(0,), node=(0,)))
    with pytest.raises(PluginError, match=f"on node {node(0).id}, where only {node(1).id} will do"):
        check_plan(elsewhere, changes, 2, job)


def test_a_plan_places_all_of_a_gang_or_nothing() -> None:
    """A part of one would be committed, and the rest might never come."""
    job = job_of(count=2)
    job = evolve(job, groups=(evolve(job.groups[0], gang=True),))
    lacks = PlacementFailure(group="main", wanted=2, placed=1, nodes=1)
    part = evolve(
        plan_of(job, state_of(node(0))),
        placements=Placements(group=(0,), slot=(0,), node=(0,)),
        score=(0.0,),
        unplaced=(lacks,),
    )
    with pytest.raises(PluginError, match="1 of 2 copies of group main, which is a gang"):
        check_plan(part, changes_of(job), 1, job)
