from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.arrays import FloatArray
from khonsu.core.feasible import feasible
from khonsu.core.fleet import Fleet
from khonsu.core.placement import Judge, Picks, all_at_once, by_blocks, one_by_one
from khonsu.core.terms import best_fit, distinct_blocks, own_wishes, spread_blocks, worst_fit
from khonsu.errors import PluginError
from tests.core.worlds import SPREAD, World, ask_of, job_of, node, state_of, worlds
from tests.effort import examples

EXAMPLES = 120


def same(left: Picks, right: Picks) -> bool:
    """Return whether two ways of placement did the same, bit for bit."""
    return np.array_equal(left.rows, right.rows) and np.array_equal(left.scores, right.scores, equal_nan=True)


def judge_of(world: World, fit: str) -> Judge:
    """Return the score of a shipped scheduler without spreads."""
    term = {"best": best_fit, "worst": worst_fit}[fit]

    def score(fleet: Fleet) -> FloatArray:
        total = term(world.ask, fleet)
        for wish in own_wishes(world.ask, fleet).values():
            total = total + wish
        return total

    return Judge(fit, score)


@examples(EXAMPLES)
@given(worlds(), st.sampled_from(["best", "worst"]))
def test_many_copies_at_once_are_placed_as_one_after_the_other(world: World, fit: str) -> None:
    """The merge gives the same nodes in the same order with the same scores, to the last bit."""
    judge = judge_of(world, fit)
    fits = feasible(world.ask, world.fleet).fits
    expected = one_by_one(world.ask, world.fleet, judge, fits)
    assert same(expected, all_at_once(world.ask, world.fleet, judge, fits))


@examples(EXAMPLES)
@given(worlds(), st.data())
def test_the_merge_holds_for_scores_of_any_shape(world: World, data: st.DataObject) -> None:
    """Scores that rise, fall, jump, tie and refuse are merged as one after the other would."""
    values = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5, 1.0, 3.0])
    copies = int(world.fleet.copies(world.ask).max(initial=0)) + world.ask.count
    width = min(copies + 1, 12)
    table = np.array(
        data.draw(
            st.lists(
                st.lists(values, min_size=width, max_size=width), min_size=len(world.fleet), max_size=len(world.fleet)
            )
        )
    )

    def score(fleet: Fleet) -> FloatArray:
        scores: FloatArray = table[fleet.rank, fleet.copies(world.ask) % width]
        return scores

    judge = Judge("table", score)
    fits = feasible(world.ask, world.fleet).fits
    expected = one_by_one(world.ask, world.fleet, judge, fits)
    assert same(expected, all_at_once(world.ask, world.fleet, judge, fits))


@examples(EXAMPLES)
@given(worlds(spreads=True), st.sampled_from(["best", "worst"]))
def test_spreads_are_placed_as_one_after_the_other(world: World, fit: str) -> None:
    """Moving only what a copy changes gives the same as scoring the whole fleet for each copy."""
    judge = judge_of(world, fit)
    fits = feasible(world.ask, world.fleet).fits
    blocks = spread_blocks(world.ask, world.fleet)

    def whole(fleet: Fleet) -> FloatArray:
        total = judge.score(fleet)
        for block in spread_blocks(world.ask, fleet):
            total = total + block.gain(block.codes, block.counts[block.codes])
        return total

    expected = one_by_one(world.ask, world.fleet, Judge("whole", whole), fits)
    assert same(expected, by_blocks(world.ask, world.fleet, judge, fits, blocks))


@examples(EXAMPLES)
@given(worlds(spreads=True, distinct=True))
def test_distinct_values_are_placed_as_one_after_the_other(world: World) -> None:
    """Together with spreads too, and never are two copies on nodes of the same value."""
    judge = judge_of(world, "best")
    fits = feasible(world.ask, world.fleet).fits
    distinct = distinct_blocks(world.ask, world.fleet)
    blocks = (*spread_blocks(world.ask, world.fleet), *distinct)
    picks = by_blocks(world.ask, world.fleet, judge, fits, blocks)
    assert same(one_by_one(world.ask, world.fleet, judge, fits, blocks), picks)
    chosen = picks.rows[picks.rows >= 0]
    for block in distinct:
        assert len(set(block.codes[chosen].tolist())) == len(chosen)
        assert not block.counts[block.codes[chosen]].any()


@given(worlds())
def test_no_node_gets_more_than_fits(world: World) -> None:
    """Copies are placed while there is room, and no further."""
    fits = feasible(world.ask, world.fleet).fits
    picks = all_at_once(world.ask, world.fleet, judge_of(world, "best"), fits)
    placed = np.bincount(picks.rows[picks.rows >= 0], minlength=len(fits))
    assert (placed <= fits).all()
    assert min(world.ask.count, int(fits.sum())) == int(placed.sum())
    assert np.isnan(picks.scores[picks.rows < 0]).all()


def test_equals_go_to_the_lowest_rank() -> None:
    """Among nodes that are equally good the seeded order decides, and the same node is not filled first by chance."""
    world = World(state_of(*(node(number) for number in range(6)), seed=3), ask_of(job_of(count=2)))
    fits = feasible(world.ask, world.fleet).fits
    picks = all_at_once(world.ask, world.fleet, Judge("flat", lambda fleet: np.zeros(len(fleet))), fits)
    assert world.fleet.rank[picks.rows].tolist() == [0, 0]


def test_scores_are_made_for_few_pairs() -> None:
    """Work grows with the nodes and with the copies, not with their product."""
    world = World(
        state_of(*(node(number) for number in range(500))),
        ask_of(job_of(count=400, demand={"cpu": 40, "memory": 4, "disk": 4})),
    )
    judge = judge_of(world, "best")
    scored = 0

    def counting(fleet: Fleet) -> FloatArray:
        nonlocal scored
        scored += len(fleet)
        return judge.score(fleet)

    fits = feasible(world.ask, world.fleet).fits
    all_at_once(world.ask, world.fleet, Judge("counting", counting), fits)
    assert scored <= 500 + 8 * 400  # a score for every node and number of copies would be 50,000


def test_scores_for_spreads_are_made_ahead_in_few_calls() -> None:
    """A copy does not cost a call of the score of its own."""
    nodes = [node(number, labels={"rack": f"r{number % 5}"}) for number in range(100)]
    job = job_of(count=200, demand={"cpu": 40, "memory": 4, "disk": 4}, spreads=[])
    world = World(state_of(*nodes), ask_of(job))
    judge = judge_of(world, "best")
    calls = 0

    def counting(fleet: Fleet) -> FloatArray:
        nonlocal calls
        calls += 1
        return judge.score(fleet)

    distinct = distinct_blocks(world.ask, world.fleet)
    blocks = spread_blocks(ask_of(job_of(count=200, spreads=[SPREAD])), world.fleet)
    fits = feasible(world.ask, world.fleet).fits
    by_blocks(world.ask, world.fleet, Judge("counting", counting), fits, (*distinct, *blocks))
    assert calls <= 40


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_finite_number_is_refused(value: float) -> None:
    """The error names the scheduler and the node; nodes without room may have any score."""
    state = state_of(node(0), node(1, cpu=0))
    world = World(state, ask_of(job_of(count=1)))
    fits = feasible(world.ask, world.fleet).fits
    picks = one_by_one(world.ask, world.fleet, Judge("odd", lambda _: np.array([0.0, value])), fits)
    assert picks.rows.tolist() == [0]
    with pytest.raises(PluginError, match=r"scheduler odd: the score of node node-0 is (nan|inf)"):
        one_by_one(world.ask, world.fleet, Judge("odd", lambda _: np.array([value, 0.0])), fits)


def test_nothing_is_placed_on_an_empty_fleet() -> None:
    """Every way of placement copes with no nodes."""
    world = World(state_of(), ask_of(job_of(count=2)))
    fits = feasible(world.ask, world.fleet).fits
    flat = Judge("flat", lambda fleet: np.zeros(len(fleet)))
    for picks in (
        one_by_one(world.ask, world.fleet, flat, fits),
        all_at_once(world.ask, world.fleet, flat, fits),
        by_blocks(world.ask, world.fleet, flat, fits, distinct_blocks(world.ask, world.fleet)),
    ):
        assert picks.rows.tolist() == [-1, -1]
