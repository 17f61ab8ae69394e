from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from khonsu.core.conditions import Affinity, Constraint, Spread
from khonsu.core.ids import NodeId
from khonsu.core.terms import (
    STEPS,
    affinity,
    anti_affinity,
    best_fit,
    failed_before,
    spread,
    spread_blocks,
    wishes,
    worst_fit,
)
from tests.core.worlds import DEMAND, MIB, REVISION, World, allocation, ask_of, job_of, node, state_of, worlds


def racks(*names: str) -> tuple[dict[str, str], ...]:
    """Return the labels of nodes in these racks."""
    return tuple({"rack": name} if name else {} for name in names)


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [(2048, 4096, 1.0), (0, 0, 0.0), (1024, 2048, 13.675444679663241 / 18)],
)
def test_best_fit_at_known_points(cpu: int, memory: int, expected: float) -> None:
    """A node that is filled is 1, one that stays empty 0, half of it (20 - 2 sqrt 10) / 18."""
    ask = ask_of(job_of(count=1, demand={"cpu": cpu, "memory": memory * MIB, "disk": 0}))
    fleet = state_of(node(0, cpu=2048, memory=4096 * MIB)).snapshot(REVISION)
    assert expected == pytest.approx(best_fit(ask, fleet)[0], abs=1e-11)
    assert best_fit(ask, fleet)[0] + worst_fit(ask, fleet)[0] == 1.0


@given(worlds(spreads=True))
def test_terms_are_bounded_and_add_up_exactly(world: World) -> None:
    """Each is from -1 to 1 and a multiple of 2^-40, so that the order of addition does not matter."""
    fleet = world.fleet
    terms = {"best": best_fit(world.ask, fleet), "worst": worst_fit(world.ask, fleet), **wishes(world.ask, fleet)}
    room = fleet.fits(world.ask) > 0
    for name, term in terms.items():
        assert (np.abs(term[room]) <= 1.0).all(), name
        assert (term * STEPS == np.rint(term * STEPS)).all(), name
    exact = [sum((Fraction(term[row]) for term in terms.values()), Fraction(0)) for row in range(len(fleet))]
    assert exact == [Fraction(value) for value in sum(terms.values(), np.zeros(len(fleet)))]


def test_anti_affinity_counts_the_copies_on_the_node() -> None:
    """Minus the share of the group's count, -1 at most."""
    state = state_of(node(0), node(1), node(2))
    for number, each in enumerate([node(1), node(2), node(2), node(2), node(2), node(2)]):
        state.add(allocation(number, each), {"cpu": 0})
    fleet = state.snapshot(REVISION, job="default/web")
    assert anti_affinity(ask_of(job_of(count=4)), fleet).tolist() == [0.0, -0.25, -1.0]


def test_affinity_is_the_share_of_the_weights() -> None:
    """Wishes of the job and the group count together, and avoided nodes count against."""
    wishes_of_job = [
        Affinity(Constraint("label.disk", "=", "ssd"), 75),
        Affinity(Constraint("label.rack", "=", "b"), -25),
    ]
    fleet = state_of(
        node(0, labels={"disk": "ssd"}), node(1, labels={"disk": "ssd", "rack": "b"}), node(2, labels={"rack": "b"})
    ).snapshot(REVISION)
    assert affinity(ask_of(job_of(affinities=wishes_of_job)), fleet).tolist() == [0.75, 0.5, -0.25]


def test_nodes_where_the_slot_failed_are_avoided() -> None:
    """However often it failed there."""
    fleet = state_of(node(0), node(1)).snapshot(REVISION)
    ask = ask_of(job_of(count=1), avoid=(NodeId("id-1"), NodeId("id-1"), NodeId("gone")))
    assert failed_before(ask, fleet).tolist() == [0.0, -1.0]


def test_an_even_spread_wants_the_same_number_on_each_value() -> None:
    """Values without copies are at 1, those with their share at 0, and nodes without the attribute at -1."""
    labels = racks("a", "a", "b", "")
    state = state_of(*(node(number, labels=each) for number, each in enumerate(labels)))
    job = job_of(count=4, spreads=[Spread("label.rack")])
    state.add(allocation(0, node(0)), DEMAND)
    fleet = state.snapshot(REVISION, job="default/web")
    assert spread(ask_of(job), fleet).tolist() == [0.5, 0.5, 1.0, -1.0]


def test_targets_are_shares_and_the_rest_is_for_the_others() -> None:
    """60 % for a leaves 40 % for b and c; a value that nothing is left for is at -1."""
    labels = racks("a", "b", "c")
    fleet = state_of(*(node(number, labels=each) for number, each in enumerate(labels))).snapshot(REVISION)
    parts = spread_blocks(ask_of(job_of(count=10, spreads=[Spread("label.rack", targets={"a": 60})])), fleet)
    assert [part.wanted.tolist() for part in parts] == [[6.0, 2.0, 2.0, 0.0]]
    whole = ask_of(job_of(count=10, spreads=[Spread("label.rack", targets={"a": 60, "b": 40})]))
    assert spread(whole, fleet).tolist() == [1.0, 1.0, -1.0]


def test_an_even_spread_counts_values_of_nodes_that_are_possible() -> None:
    """Racks that a constraint rules out get no share; fewer copies than racks means one for each."""
    labels = racks("a", "b", "c", "d")
    fleet = state_of(*(node(number, labels=each) for number, each in enumerate(labels))).snapshot(REVISION)
    job = job_of(count=10, spreads=[Spread("label.rack")], constraints=["label.rack in a,b"])
    assert spread_blocks(ask_of(job), fleet)[0].wanted.tolist() == [5.0, 5.0, 0.0, 0.0, 0.0]
    few = job_of(count=2, spreads=[Spread("label.rack")])
    assert spread_blocks(ask_of(few), fleet)[0].wanted.tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_several_spreads_share_the_weight() -> None:
    """By their weights; one without weight is none."""
    labels = ({"rack": "a", "disk": "x"}, {"rack": "b", "disk": "x"})
    fleet = state_of(*(node(number, labels=each) for number, each in enumerate(labels))).snapshot(REVISION)
    wished = [Spread("label.rack", weight=30), Spread("label.disk", weight=10), Spread("label.none", weight=0)]
    assert [part.weight for part in spread_blocks(ask_of(job_of(spreads=wished)), fleet)] == [0.75, 0.25]
