"""Which nodes can take copies of a group, how many, and why the others cannot.

The one function of feasibility: schedulers choose by it, the planner checks plans with it, explanations are made from
it. What stays as it is comes first (pool, drivers, constraints), then what changes (state, copies, resources), so that
the first reason that refuses a node is the one to wait for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from khonsu.core.arrays import BoolArray, IntArray

if TYPE_CHECKING:
    from khonsu.core.ask import Ask
    from khonsu.core.fleet import Fleet

STATE = "state"
MAX_PER_NODE = "max_per_node"

_NO_LIMIT = np.iinfo(np.int64).max


@frozen(kw_only=True, eq=False)
class Feasibility:
    """What stands against copies of a group, node by node.

    Args:
        refused: By reason, in the order of the checks, the nodes that it refuses. Reasons are "pool", "driver NAME",
            "constraint TEXT", "distinct ATTRIBUTE", "state", "max_per_node", "port NUMBER", and the names of resources.
        fits: How many copies fit on each node, 0 where it is refused.

    """

    refused: Mapping[str, BoolArray]
    fits: IntArray

    def first_reasons(self) -> dict[str, int]:
        """Return how many nodes each reason refuses, each node counted at its first reason only."""
        counts = {}
        left = np.ones(len(self.fits), np.bool_)
        for reason, refused in self.refused.items():
            if count := int(np.count_nonzero(refused & left)):
                counts[reason] = count
                left &= ~refused
        return counts

    def reasons(self, row: int) -> tuple[str, ...]:
        """Return every reason that refuses a node."""
        return tuple(reason for reason, refused in self.refused.items() if refused[row])


def feasible(ask: Ask, fleet: Fleet) -> Feasibility:
    """Return what stands against copies of a group on each node of a fleet.

    The copies of the ask are not counted yet; those in the fleet are. Distinct values are counted over the fleet as it
    is given, so that a part of a fleet may allow what the whole does not.
    """
    refused = dict(static_refusals(ask, fleet))
    copies = fleet.copies(ask)
    fits = np.full(len(fleet), _NO_LIMIT, np.int64)
    for attribute in distinct_attributes(ask):
        column = fleet.attribute(attribute)
        used = np.zeros(len(column.values) + 1, np.bool_)
        used[column.codes[copies > 0]] = True
        used[-1] = False  # where nodes without the attribute count; they are refused for that
        refused[f"distinct {attribute}"] = used[column.codes]
        np.minimum(fits, 1, out=fits)
    refused[STATE] = ~fleet.ready
    if ask.group.max_per_node is not None:
        left = ask.group.max_per_node - copies
        refused[MAX_PER_NODE] = left <= 0
        np.minimum(fits, left, out=fits)
    for port in ask.static_ports:
        refused[f"port {port}"] = fleet.taken(port)
        np.minimum(fits, 1, out=fits)
    for name, amount in ask.resources.items():
        if amount > 0:
            free = fleet.free[name]
            refused[name] = free < amount
            np.minimum(fits, free // amount, out=fits)
    for mask in refused.values():
        fits[mask] = 0
    return Feasibility(refused=refused, fits=fits)


def static_refusals(ask: Ask, fleet: Fleet) -> Iterator[tuple[str, BoolArray]]:
    """Find the nodes refused by what only a new registration of a node changes: pool, drivers, constraints."""
    yield "pool", ~fleet.where("node.pool", "=", ask.job.pool)
    for driver in sorted({task.driver for task in ask.group.tasks}):
        column = fleet.driver(driver)
        healthy = np.array([*(text == "healthy" for text in column.values), False], np.bool_)
        yield f"driver {driver}", ~healthy[column.codes]
    for constraint in dict.fromkeys((*ask.job.constraints, *ask.group.constraints)):
        yield f"constraint {constraint}", ~fleet.where(constraint.attribute, constraint.operator, constraint.value)


def distinct_attributes(ask: Ask) -> tuple[str, ...]:
    """Return the attributes of which no two copies may share a value."""
    constraints = (*ask.job.constraints, *ask.group.constraints)
    return tuple(dict.fromkeys(each.attribute for each in constraints if each.operator == "distinct"))


def eligible(ask: Ask, fleet: Fleet) -> BoolArray:
    """Return the nodes that nothing static stands against, whatever they have left now."""
    keep = np.ones(len(fleet), np.bool_)
    for _, refused in static_refusals(ask, fleet):
        keep &= ~refused
    return keep
