from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.ask import demand
from khonsu.core.fleet import Fleet
from khonsu.core.fleet_state import PORT_MIN, FleetState
from khonsu.core.ids import NodeId
from khonsu.core.records import Allocation, DriverInfo, Node
from khonsu.core.states import Eligibility, NodeStatus
from khonsu.errors import InvalidTransition
from tests.core.worlds import DEMAND, MIB, REVISION, allocation, ask_of, job_of, node, state_of
from tests.effort import examples


def columns(fleet: Fleet) -> dict[str, dict[str, object]]:
    """Return all that a fleet shows, by the name of the node, so that the order of rows does not matter."""
    ask = ask_of(job_of())
    return {
        name: {
            "id": fleet.ids[row],
            "ready": bool(fleet.ready[row]),
            "state": fleet.state(row),
            "rank": int(fleet.rank[row]),
            "total": {resource: int(fleet.total[resource][row]) for resource in fleet.units},
            "used": {resource: int(fleet.used[resource][row]) for resource in fleet.units},
            "rack": fleet.attribute("label.rack").text(row),
            "driver": fleet.driver("binary").text(row),
            "os": bool(fleet.where("os", "=", "linux")[row]),
            "copies": int(fleet.copies(ask)[row]),
            "ports": [port for port in (80, PORT_MIN, PORT_MIN + 1) if fleet.taken(port)[row]],
        }
        for row, name in enumerate(fleet.names)
    }


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Draw what happens to a fleet: a verb, a node, and a choice."""
    verbs = st.sampled_from(["put", "put", "state", "remove", "add", "add", "release", "look"])
    return draw(st.lists(st.tuples(verbs, st.integers(0, 5), st.integers(0, 3)), max_size=40))


@examples(250)
@given(histories(), st.integers(1, 3))
def test_columns_that_follow_equal_columns_made_anew(history: list[tuple[str, int, int]], seed: int) -> None:
    """After any history of nodes and allocations the columns are those of a fleet that is built from what is left."""
    state = FleetState(seed=seed)
    nodes: dict[int, Node] = {}
    live: dict[int, Allocation] = {}
    for number, (verb, which, choice) in enumerate(history):
        if verb == "put":
            labels = {} if choice == 3 else {"rack": f"r{choice}"}
            drivers = () if choice == 2 else (DriverInfo(name="binary", healthy=choice != 1, message="ill"),)
            nodes[which] = node(which, labels=labels, drivers=drivers, cpu=1000 * (choice + 1))
            state.put_node(nodes[which])
        elif verb == "state" and which in nodes:
            nodes[which] = evolve(
                nodes[which], eligibility=list(Eligibility)[choice % 3], status=list(NodeStatus)[choice % 2]
            )
            state.put_node(nodes[which])
        elif verb == "remove" and which in nodes:
            gone = nodes.pop(which)
            live = {key: each for key, each in live.items() if each.node_id != gone.id}
            state.remove_node(gone.id)
        elif verb == "add" and which in nodes:
            there = {port.host for each in live.values() if each.node_id == nodes[which].id for port in each.ports}
            ports = sorted({(80, PORT_MIN)[choice // 2]} - there)
            live[number] = allocation(number, nodes[which], job=("web", "db")[choice % 2], ports=ports)
            state.add(live[number], DEMAND)
        elif verb == "release" and live:
            state.release(live.pop(sorted(live)[choice % len(live)]), DEMAND)
        elif verb == "look":
            columns(state.snapshot(REVISION, job="default/web"))
    anew = FleetState(seed=seed)
    for each in nodes.values():
        anew.put_node(each)
    for copy in live.values():
        anew.add(copy, DEMAND)
    expected = columns(anew.snapshot(REVISION, job="default/web"))
    assert expected == columns(state.snapshot(REVISION, job="default/web"))
    assert {each.id: each for each in nodes.values()} == dict(state.nodes)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_counting_many_equals_counting_one_by_one(places: list[int]) -> None:
    """A plan's copies are counted as its allocations would be."""
    every = [node(number) for number in range(3)]
    together, singly = state_of(*every), state_of(*every)
    copies = [allocation(number, every[place], ports=[PORT_MIN + number]) for number, place in enumerate(places)]
    for copy in copies:
        singly.add(copy, DEMAND)
    rows = together.rows([copy.node_id for copy in copies])
    together.add_many("default/web", "main", rows, DEMAND, [(PORT_MIN + number,) for number in range(len(places))])
    shown = [columns(state.snapshot(REVISION, job="default/web")) for state in (singly, together)]
    assert shown[0] == shown[1]
    for copy in copies:
        together.release(copy, DEMAND)
    empty = columns(state_of(*every).snapshot(REVISION, job="default/web"))
    assert empty == columns(together.snapshot(REVISION, job="default/web"))


def test_a_snapshot_does_not_change() -> None:
    """What happens afterwards shows in the next snapshot only, and nobody can write to one."""
    state = state_of(node(0), node(1))
    state.add(allocation(0, node(0), ports=[80]), DEMAND)
    snapshot, nodes = state.snapshot(REVISION, job="default/web"), state.nodes
    before = columns(snapshot)
    state.add(allocation(1, node(1), ports=[80, PORT_MIN]), DEMAND)
    state.put_node(node(1, labels={"rack": "x"}, status=NodeStatus.DOWN))
    state.put_node(node(2))
    state.remove_node(node(0).id)
    assert before == columns(snapshot)
    assert [each.name for each in nodes.values()] == ["node-0", "node-1"]
    arrays = (snapshot.used["cpu"], snapshot.free["cpu"], snapshot.total["cpu"], snapshot.ready, snapshot.rank)
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_rows_stay_until_a_node_is_removed() -> None:
    """Changes and new nodes move no row; a removal moves the last one."""
    state = state_of(node(0), node(1), node(2))
    ids = state.snapshot(REVISION).ids
    state.put_node(node(1, cpu=9000))
    assert ids is state.snapshot(REVISION).ids
    state.put_node(node(3))
    assert state.rows([node(number).id for number in range(4)]).tolist() == [0, 1, 2, 3]
    state.remove_node(node(1).id)
    assert state.rows([node(number).id for number in range(4)]).tolist() == [0, -1, 2, 1]
    state.remove_node(NodeId("unknown"))


def test_a_changed_state_keeps_the_columns_of_attributes() -> None:
    """Nodes that come and go as ready do not make the columns of attributes anew, other changes only those rows."""
    state = state_of(*(node(number, labels={"rack": f"r{number % 2}"}) for number in range(4)))
    first = state.snapshot(REVISION)
    codes = first.attribute("label.rack")
    state.put_node(node(1, labels={"rack": "r1"}, status=NodeStatus.DOWN))
    assert codes is state.snapshot(REVISION).attribute("label.rack")
    state.put_node(node(1, labels={"rack": "new"}))
    assert [state.snapshot(REVISION).attribute("label.rack").text(row) for row in range(4)] == ["r0", "new", "r0", "r1"]


def test_the_order_of_equals_depends_on_seed_and_ids_only() -> None:
    """The same nodes have the same ranks in whatever order they came; another seed gives another order."""
    ids = range(20)
    ranks = []
    for seed, order in ((1, ids), (1, reversed(ids)), (2, ids)):
        fleet = state_of(*(node(number) for number in order), seed=seed).snapshot(REVISION)
        ranks.append(dict(zip(fleet.names, fleet.rank.tolist(), strict=True)))
    assert ranks[0] == ranks[1]
    assert ranks[0] != ranks[2]
    assert list(range(20)) == sorted(ranks[0].values())


def test_a_release_that_was_never_counted_is_a_bug() -> None:
    """Counting twice would overcommit a node without anybody noticing."""
    state = state_of(node(0))
    with pytest.raises(InvalidTransition, match="is counted before it is released"):
        state.release(allocation(0, node(0)), DEMAND)
    with pytest.raises(InvalidTransition, match="is on a node that is known"):
        state.add(allocation(0, node(9)), DEMAND)
    state.release(allocation(0, node(9)), DEMAND)


def test_after_adds_copies_of_the_ask() -> None:
    """Resources, copies and static ports of the copies count; dynamic ports count by number."""
    job = job_of(ports={"http": 80, "debug": "dynamic"})
    fleet = state_of(node(0), node(1)).snapshot(REVISION)
    after = fleet.after(ask_of(job), np.array([0, 2]))
    assert after.used["cpu"].tolist() == [0, 2000]
    assert after.free["memory"].tolist() == [400 * MIB, 200 * MIB]
    assert after.used["ports"].tolist() == [0, 2]
    assert after.copies(ask_of(job)).tolist() == [0, 2]
    assert after.taken(80).tolist() == [False, True]
    assert fleet.used["cpu"].tolist() == [0, 0]
    assert after.share("cpu").tolist() == [0.0, 0.5]
    assert fleet.after(ask_of(job)).used["cpu"].tolist() == [1000, 1000]


def test_a_part_of_a_fleet_has_the_rows_asked_for() -> None:
    """By mask, by rows in any order and number, and by slice, also of a part and after copies."""
    ask = ask_of(job_of(ports={"http": 80}), avoid=(NodeId("id-2"),))
    fleet = state_of(*(node(number, labels={"rack": f"r{number}"}) for number in range(4))).snapshot(REVISION)
    after = fleet.after(ask, np.array([0, 1, 0, 1]))
    part = after[np.array([3, 1, 1, 2])]
    assert part.names == ("node-3", "node-1", "node-1", "node-2")
    assert part.ids == ("id-3", "id-1", "id-1", "id-2")
    assert part.used["cpu"].tolist() == [1000, 1000, 1000, 0]
    assert part.copies(ask).tolist() == [1, 1, 1, 0]
    assert part.failures(ask).tolist() == [0, 0, 0, 1]
    assert part.taken(80).tolist() == [True, True, True, False]
    assert [part.attribute("label.rack").text(row) for row in range(4)] == ["r3", "r1", "r1", "r2"]
    assert part[1:][np.array([False, True, True])].names == ("node-1", "node-2")
    assert len(fleet[fleet.where("label.rack", "in", "r0, r1")]) == 2


def test_the_share_of_nothing_is_nothing() -> None:
    """A node without a resource is not full of it."""
    fleet = state_of(node(0, cpu=0)).snapshot(REVISION)
    assert fleet.share("cpu").tolist() == [0.0]


def test_chance_depends_on_the_seed_and_the_copies_so_far() -> None:
    """A scheduler that draws lots gets the same ones for the same fleet, and others for the next copy."""
    ask = ask_of(job_of())
    fleet = state_of(node(0)).snapshot(REVISION)
    draws = [
        each.rng().random() for each in (fleet, fleet, fleet.next_group(5), fleet.after(ask), fleet.after(ask, -1))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws[:4])) == 3


def test_an_unknown_resource_lists_the_known_ones() -> None:
    """A mistyped name is told at once."""
    with pytest.raises(KeyError, match="there are cpu, memory, disk, ports"):
        state_of(node(0)).snapshot(REVISION).used["gpu"]


def test_what_a_group_asks_for_has_the_units_of_the_fleet() -> None:
    """Millicores, bytes, and the number of dynamic ports."""
    group = job_of(ports={"a": "dynamic", "b": 80, "c": "dynamic"}).groups[0]
    assert demand(group) == {**DEMAND, "ports": 2}
    assert set(demand(group)) == set(state_of().snapshot(REVISION).units)


def test_columns_and_masks_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs with ever new attributes and values do not fill the memory."""
    monkeypatch.setattr("khonsu.core.nodes.COLUMNS_MAX", 3)
    monkeypatch.setattr("khonsu.core.nodes.MASKS_MAX", 3)
    state = state_of(node(0, labels={f"l{number}": "x" for number in range(9)}))
    fleet = state.snapshot(REVISION)
    for number in range(9):
        assert fleet.where(f"label.l{number}", "=", "x").tolist() == [True]
        assert fleet.where(f"label.l{number}", "=", f"{number}").tolist() == [False]
    assert len(fleet.table.known()) <= 3
