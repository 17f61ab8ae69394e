"""Allocations in memory: new ones are columns until somebody asks, and nobody can tell the difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from khonsu.control.allocations import Allocations
from khonsu.control.placed import Placed, column
from khonsu.core.ids import EvaluationId, NodeId, key_text
from khonsu.core.records import Time
from khonsu.core.states import AllocationStatus as A
from khonsu.core.states import Desired
from khonsu.stores.tables import tables

EVALUATION = EvaluationId(key_text(1))
NODES = [NodeId(key_text(number)) for number in range(2, 6)]


CHANGES: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "end": lambda _: {"status": A.COMPLETE},
    "stop": lambda number: {"desired": Desired.STOP, "desired_at": number},
    "lose": lambda _: {"status": A.UNKNOWN},
}


def placed(first: int, job: str, nodes: list[NodeId]) -> Placed:
    """Return a copy on each of some nodes, every second one in another group."""
    same: dict[str, Any] = {
        "namespace": "default",
        "job": job,
        "version": 1,
        "evaluation": EVALUATION,
        "created_at": Time(5.0),
        "changed_at": Time(5.0),
        "desired_at": first,
    }
    groups = [("main", "side")[slot % 2] for slot in range(len(nodes))]
    each: dict[str, list[Any]] = {"slot": list(range(len(nodes))), "node": [f"node-{node}" for node in nodes]}
    return Placed(first=first, node_ids=nodes, groups=groups, same=same, each=each)


@given(st.lists(st.sampled_from(NODES), min_size=1, max_size=20))
def test_a_store_is_given_what_the_tables_show(nodes: list[NodeId]) -> None:
    """The columns for the store and the allocations that are made one by one are the same."""
    new = placed(100, "work", nodes)
    assert tuple(map(new.make, new.ids())) == tables()["allocation"].block_from(new.columns()).records()


@given(st.lists(st.integers()))
def test_a_column_of_equal_values_is_one_value(values: list[int]) -> None:
    """What all have is said once."""
    found = column([*values, 0])
    assert found == (0 if set(values) <= {0} else [*values, 0])


@given(
    st.lists(
        st.tuples(st.sampled_from(["place", "read", "end", "stop", "lose", "drop"]), st.integers(0, 30)), max_size=40
    )
)
def test_columns_and_records_are_the_same_to_those_who_ask(steps: list[tuple[str, int]]) -> None:
    """Whatever is done and asked in between, the answers are those of records that were put one by one."""
    lazy, plain = Allocations(), Allocations()
    first = 1000
    for step, number in steps:
        known = list(plain)
        if step == "place":
            new = placed(first, f"job-{number % 3}", [NODES[(number + each) % 4] for each in range(number % 7 + 1)])
            first += 10
            lazy.add(new)
            for made in map(new.make, new.ids()):
                plain.put(made)
        elif known and (key := known[number % len(known)]):
            if step == "read":
                assert lazy[key] == plain[key]
            elif step in CHANGES:
                record = evolve(plain[key], **CHANGES[step](first))
                lazy.put(record)
                plain.put(record)
            else:
                lazy.drop(key)
                plain.drop(key)
        assert lazy.live == plain.live == sum(one.live for one in plain.values())
        assert lazy.counts() == plain.counts() == Counter(str(one.status) for one in plain.values())
    for node in NODES:
        there = [one for one in plain.values() if one.node_id == node]
        assert lazy.unknown(node) == plain.unknown(node) == any(one.status is A.UNKNOWN for one in there)
        for after in (-1, 1005, first):
            wanted = [one for one in there if (one.live or one.status is A.LOST) and one.desired_at > after]
            assert lazy.assigned(node, after) == plain.assigned(node, after) == wanted
    for job in ("default/job-0", "default/job-1"):
        ended = [one for one in plain.values() if one.job_key == job and not one.live]
        assert lazy.ended(job) == plain.ended(job) == len(ended)
    assert [lazy.of_job(f"default/job-{number}") for number in range(3)] == [
        plain.of_job(f"default/job-{number}") for number in range(3)
    ]
    assert [lazy.on_node(node) for node in NODES] == [plain.on_node(node) for node in NODES]
    assert list(lazy.items()) == list(plain.items())
