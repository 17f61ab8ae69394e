"""The terms of a score: what speaks for and against a node, each a column of numbers from -1 to 1.

Every number is a multiple of 2^-40, so that sums of terms are exact: they do not depend on the order of addition, and
two nodes that differ in one term still differ after another term is added to both.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import frozen

from khonsu.core.arrays import FloatArray, IntArray
from khonsu.core.ask import Ask
from khonsu.core.feasible import distinct_attributes, eligible
from khonsu.core.fleet import Fleet
from khonsu.core.job import Spread

SCORED = ("cpu", "memory")
"""The resources whose use counts for how well a copy fits."""
STEPS = 2.0**40


def on_grid(values: FloatArray) -> FloatArray:
    """Return numbers rounded to multiples of 2^-40."""
    return np.rint(values * STEPS) / STEPS


def best_fit(ask: Ask, fleet: Fleet) -> FloatArray:
    """Return how full each node would be with the copy: 0 if empty, 1 if full in every resource.

    With f the free share of each of m resources after the placement it is (10 m - sum of 10^f) / 9 m.
    """
    after = fleet.after(ask)
    powers = np.zeros(len(fleet))
    for resource in SCORED:
        powers += np.power(10.0, 1.0 - after.share(resource))
    return on_grid((10.0 * len(SCORED) - powers) / (9.0 * len(SCORED)))


def worst_fit(ask: Ask, fleet: Fleet) -> FloatArray:
    """Return how empty each node would be with the copy: 1 - `best_fit`."""
    return np.subtract(1.0, best_fit(ask, fleet))


def anti_affinity(ask: Ask, fleet: Fleet) -> FloatArray:
    """Return minus the share of the group's copies that each node already has."""
    return on_grid(-np.minimum(np.divide(fleet.copies(ask), max(ask.group.count, 1)), 1.0))


def affinity(ask: Ask, fleet: Fleet) -> FloatArray:
    """Return the weights of the wishes that hold on each node, as a share of all weights."""
    every = (*ask.job.affinities, *ask.group.affinities)
    found = np.zeros(len(fleet))
    for wish in every:
        found += wish.weight * fleet.where(wish.where.attribute, wish.where.operator, wish.where.value)
    return on_grid(found / max(float(sum(abs(wish.weight) for wish in every)), 1.0))


def failed_before(ask: Ask, fleet: Fleet) -> FloatArray:
    """Return -1 for nodes where the slot failed before."""
    return np.where(fleet.failures(ask) > 0, -1.0, 0.0)


def spread(ask: Ask, fleet: Fleet) -> FloatArray:
    """Return how far the values of the nodes are from their share of the copies: 1 without copies, 0 at the share.

    Depends on the copies of all nodes of the fleet that have the same value.
    """
    found = np.zeros(len(fleet))
    for block in spread_blocks(ask, fleet):
        found += block.gain(block.codes, block.counts[block.codes])
    return found


def own_wishes(ask: Ask, fleet: Fleet) -> dict[str, FloatArray]:
    """Return the terms that a job asks for and that depend on each node alone, without those that are 0 everywhere."""
    terms = {}
    if ask.count > 1 or fleet.copies(ask).any():
        terms["anti_affinity"] = anti_affinity(ask, fleet)
    if ask.job.affinities or ask.group.affinities:
        terms["affinity"] = affinity(ask, fleet)
    if ask.avoid:
        terms["failed_before"] = failed_before(ask, fleet)
    return terms


def wishes(ask: Ask, fleet: Fleet) -> dict[str, FloatArray]:
    """Return all terms that a job asks for: to keep copies apart, affinities, spreads, not where a slot failed."""
    terms = own_wishes(ask, fleet)
    if ask.job.spreads or ask.group.spreads:
        terms["spread"] = spread(ask, fleet)
    return terms


# ------------------------------------------------------------------------------------------------------------- blocks


@frozen(kw_only=True, eq=False)
class Block:
    """A part of the score that depends on how many copies the node's value of an attribute has.

    Args:
        codes: The value of each node, by position; those without one have the last position.
        counts: The copies that each value has.
        wanted: How many copies each value should have, 0 where it should have none.
        weight: The part's greatest value.
        limit: How many copies a value may have.

    """

    codes: IntArray
    counts: IntArray
    wanted: FloatArray
    weight: float = 1.0
    limit: int | None = None

    def gain(self, values: IntArray, counts: IntArray) -> FloatArray:
        """Return this part of the score for nodes with these values, which have so many copies."""
        if self.limit is not None:
            return np.where(counts < self.limit, 0.0, -np.inf)
        wanted = self.wanted[values]
        missing = np.divide(wanted - counts, wanted, out=np.full(len(values), -1.0), where=wanted > 0)
        return on_grid(np.maximum(missing, -1.0) * self.weight)


def spread_blocks(ask: Ask, fleet: Fleet) -> tuple[Block, ...]:
    """Return the spreads that a group asks for, its own and the job's."""
    spreads = [each for each in (*ask.job.spreads, *ask.group.spreads) if each.weight]
    weights = sum(each.weight for each in spreads)
    return tuple(_spread_block(ask, fleet, each, each.weight / weights) for each in spreads)


def distinct_blocks(ask: Ask, fleet: Fleet) -> tuple[Block, ...]:
    """Return the attributes of which no two copies may share a value."""
    return tuple(_distinct_blocks(ask, fleet))


def _distinct_blocks(ask: Ask, fleet: Fleet) -> Iterator[Block]:
    for attribute in distinct_attributes(ask):
        codes, counts = _counted(ask, fleet, attribute)
        yield Block(codes=codes, counts=counts, wanted=np.ones(len(counts)), limit=1)


def _counted(ask: Ask, fleet: Fleet, attribute: str) -> tuple[IntArray, IntArray]:
    """Return the value of each node and the copies of each value, with nodes without one at the last position."""
    column = fleet.attribute(attribute)
    absent = len(column.values)
    codes = np.where(column.codes < 0, absent, column.codes)
    counts = np.zeros(absent + 1, np.int64)
    np.add.at(counts, codes, fleet.copies(ask))
    return codes, counts


def _spread_block(ask: Ask, fleet: Fleet, wish: Spread, weight: float) -> Block:
    codes, counts = _counted(ask, fleet, wish.attribute)
    values = fleet.attribute(wish.attribute).values
    present = np.zeros(len(values) + 1, np.bool_)
    present[codes[eligible(ask, fleet)]] = True
    named = np.array([text in wish.targets for text in values] + [True], np.bool_)
    shares = np.array([wish.targets.get(text, 0) / 100.0 for text in values] + [0.0])
    # What the targets leave, or everything without targets, is for the other values in equal parts.
    others = present & ~named
    if others.any():
        shares[others] = max(1.0 - sum(wish.targets.values()) / 100.0, 0.0) / np.count_nonzero(others)
    wanted = shares * ask.group.count
    # Fewer copies than values: one for each is as even as can be.
    wanted[others & (wanted > 0)] = np.maximum(wanted[others & (wanted > 0)], 1.0)
    return Block(codes=codes, counts=counts, wanted=wanted, weight=weight)
