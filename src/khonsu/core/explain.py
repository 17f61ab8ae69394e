"""Why copies are where they are: node by node for people, and in short for the record of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Protocol

import numpy as np

from khonsu.core.arrays import BoolArray, FloatArray, IntArray
from khonsu.core.ask import PORTS, Ask, make_ask
from khonsu.core.feasible import Feasibility, feasible
from khonsu.core.fleet import Fleet
from khonsu.core.job import Group, Job
from khonsu.core.plan import Plan, Snapshot
from khonsu.core.records import PlacementFailure
from khonsu.core.results import Explanation, GroupExplanation, NodeExplanation, Refusal, Score
from khonsu.core.units import format_cpu, format_size

SCORE = "score"
"""The reason for nodes to which the scheduler gave the score -inf."""
TERMS_MAX = 100
"""For how many nodes with copies the terms are worked out one by one, where they depend on other nodes."""


NODES_MAX = 20_000
"""How many nodes an explanation of a job has, over all of its groups."""


class Scoring(Protocol):
    """What explanations need of a scheduler."""

    name: ClassVar[str]
    independent: ClassVar[bool]

    def filters(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, BoolArray]:
        """Return which nodes may be used, by reason."""

    def terms(self, ask: Ask, fleet: Fleet, /) -> dict[str, FloatArray]:
        """Return the terms of the score."""


def judged(scheduler: Scoring, ask: Ask, fleet: Fleet) -> Feasibility:
    """Return what stands against copies on each node, the scheduler's own reasons included."""
    found = feasible(ask, fleet)
    refused = dict(found.refused)
    for reason, keep in scheduler.filters(ask, fleet).items():
        refused[f"filter {reason}"] = ~keep
    refused[SCORE] = total_of(scheduler.terms(ask, fleet), fleet) == -np.inf
    fits = found.fits.copy()
    for reason in refused.keys() - found.refused.keys():
        fits[refused[reason]] = 0
    return Feasibility(refused=refused, fits=fits)


def total_of(terms: Mapping[str, FloatArray], fleet: Fleet) -> FloatArray:
    """Return the sum of terms, from left to right."""
    columns = list(terms.values())
    return sum(columns[1:], columns[0]) if columns else np.zeros(len(fleet))


def placement_failure(scheduler: Scoring, ask: Ask, fleet: Fleet, *, wanted: int, placed: int) -> PlacementFailure:
    """Return in short why copies have no place.

    Args:
        scheduler: Who looked for one.
        ask: What was to be placed.
        fleet: The nodes, with the copies that did find one.
        wanted: How many copies were to be placed.
        placed: How many are placed.

    """
    reasons = judged(scheduler, ask, fleet).first_reasons()
    return PlacementFailure(group=ask.group.name, wanted=wanted, placed=placed, nodes=len(fleet), reasons=reasons)


def explain(scheduler: Scoring, snapshot: Snapshot, plan: Plan | None = None) -> Explanation:
    """Explain where the copies of a job are or would be, group by group and node by node.

    Args:
        scheduler: The scheduler of the job.
        snapshot: The state; the live copies in it count as placed.
        plan: What is about to be placed on top, or None to explain what there is.

    """
    version = snapshot.job.version if plan is None else plan.version
    spec = snapshot.specs[version]
    fleet = snapshot.fleet
    rows = {plan.groups[group]: plan.placements.node[places] for group, places in plan.by_group()} if plan else {}
    for group, ask in _asks(spec):
        fleet = fleet.next_group(ask.seed)
        if group.name in rows:
            fleet = fleet.after(ask, np.bincount(rows[group.name], minlength=len(fleet)))
    lacking = {each.group: each.wanted - each.placed for each in plan.unplaced} if plan else {}
    nodes_max = max(NODES_MAX // max(len(spec.groups), 1), 1)
    groups = []
    for group, ask in _asks(spec):
        there = fleet.next_group(ask.seed)
        if group.name in rows:
            there = there.counting(ask, np.bincount(rows[group.name], minlength=len(fleet)))
        wanted = group.count
        if spec.type.everywhere:
            wanted = int(there.copies(ask).sum()) + lacking.get(group.name, 0)
        groups.append(explain_group(scheduler, ask, there, wanted=wanted, nodes_max=nodes_max))
    return Explanation(
        namespace=spec.namespace,
        job=spec.name,
        version=version,
        scheduler=scheduler.name,
        revision=snapshot.revision,
        groups=tuple(groups),
        message=f"of each group the {nodes_max} nearest nodes" if nodes_max < len(fleet) else "",
    )


def _asks(spec: Job) -> Iterator[tuple[Group, Ask]]:
    """Yield the groups of a job, and the ask for all of their copies."""
    return ((group, make_ask(spec, group, tuple(range(group.count)))) for group in spec.groups)


def explain_group(
    scheduler: Scoring, ask: Ask, fleet: Fleet, *, wanted: int, nodes_max: int | None = None
) -> GroupExplanation:
    """Explain a group on a fleet that has its copies: what each node was to it, those with copies first.

    The score of a node with copies is that of its last one, as it was before that copy came and with all others there.
    Nodes with room lost by the difference to the lowest of these. Then come the refused, by the number of reasons.
    """
    copies = fleet.copies(ask)
    hosts = np.flatnonzero(copies)
    won = _terms_of_hosts(scheduler, ask, fleet, hosts)
    scores = total_of(won, fleet[hosts])
    lowest = int(np.nanargmin(scores)) if np.isfinite(scores).any() else None
    before = fleet if lowest is None else fleet.after(ask, -_one(fleet, int(hosts[lowest])))
    now = scheduler.terms(ask, before)
    totals = total_of(now, before)
    found = judged(scheduler, ask, fleet)
    placed = [
        _node(fleet, int(hosts[place]), won, place, placed=int(copies[hosts[place]]))
        for place in np.argsort(-scores, kind="stable")[:nodes_max].tolist()
    ]
    left = None if nodes_max is None else nodes_max - len(placed)
    others = np.flatnonzero((copies == 0) & (found.fits > 0))
    others = others[np.lexsort((fleet.rank[others], -totals[others]))][:left]
    lost = [
        _node(fleet, row, now, row, lost_by=None if lowest is None else float(scores[lowest] - totals[row]))
        for row in others.tolist()
    ]
    left = None if left is None else left - len(lost)
    refused = np.flatnonzero((copies == 0) & (found.fits <= 0))
    number = sum((mask[refused].astype(np.int64) for mask in found.refused.values()), np.zeros(len(refused), np.int64))
    refused = refused[np.lexsort((fleet.rank[refused], number))][:left]
    out = [
        NodeExplanation(
            node=fleet.names[row],
            refusals=tuple(_refusal(ask, fleet, reason, row) for reason in found.reasons(row)),
        )
        for row in refused.tolist()
    ]
    return GroupExplanation(group=ask.group.name, wanted=wanted, placed=int(copies.sum()), nodes=(*placed, *lost, *out))


def _terms_of_hosts(scheduler: Scoring, ask: Ask, fleet: Fleet, hosts: IntArray) -> dict[str, FloatArray]:
    """Return the terms of each node with copies as it was before its last one; NaN beyond `TERMS_MAX`."""
    if not len(hosts):
        return {}
    if scheduler.independent and not (ask.job.spreads or ask.group.spreads):
        return scheduler.terms(ask, fleet[hosts].after(ask, -1))
    columns: dict[str, FloatArray] = {}
    for place, host in enumerate(hosts[:TERMS_MAX].tolist()):
        for name, term in scheduler.terms(ask, fleet.after(ask, -_one(fleet, host))).items():
            columns.setdefault(name, np.full(len(hosts), np.nan))[place] = term[host]
    return columns


def _one(fleet: Fleet, row: int) -> IntArray:
    column = np.zeros(len(fleet), np.int64)
    column[row] = 1
    return column


def _node(
    fleet: Fleet,
    row: int,
    terms: Mapping[str, FloatArray],
    place: int,
    *,
    placed: int = 0,
    lost_by: float | None = None,
) -> NodeExplanation:
    values = tuple(Score(name=name, value=float(term[place])) for name, term in terms.items())
    known = all(np.isfinite(each.value) for each in values)
    return NodeExplanation(
        node=fleet.names[row],
        placed=placed,
        score=sum(each.value for each in values) if known else None,
        terms=values if known else (),
        lost_by=lost_by,
    )


def _refusal(ask: Ask, fleet: Fleet, reason: str, row: int) -> Refusal:
    """Return why one reason refuses a node: what is wanted, and what is there."""
    kind, _, about = reason.partition(" ")
    if reason in ask.resources:
        amount, free = ask.resources[reason], max(int(fleet.free[reason][row]), 0)
        return Refusal(reason=reason, wanted=f"asks {_amount(reason, amount)}", present=f"free {_amount(reason, free)}")
    if kind == "constraint":
        attribute = about.split(" ", 1)[0]
        return Refusal(reason=kind, wanted=about, present=_is(fleet.attribute(attribute).text(row)))
    if kind == "distinct":
        value = fleet.attribute(about).text(row)
        present = _is(None) if value is None else f"{value} has a copy"
        return Refusal(reason=kind, wanted=about, present=present)
    if kind == "driver":
        return Refusal(reason=reason, present=fleet.driver(about).text(row) or "is not there")
    if kind == "port":
        return Refusal(reason=reason, present="is taken")
    plain: Mapping[str, tuple[str, str]] = {
        "pool": (ask.job.pool, _is(fleet.attribute("node.pool").text(row))),
        "state": ("ready", f"is {fleet.state(row)}"),
        "max_per_node": (f"at most {ask.group.max_per_node}", f"has {int(fleet.copies(ask)[row])}"),
    }
    wanted, present = plain.get(reason, ("", ""))
    return Refusal(reason=reason, wanted=wanted, present=present)


def _is(value: str | None) -> str:
    return "is not set" if value is None else f"is {value}"


def _amount(resource: str, amount: int) -> str:
    if resource == "cpu":
        return format_cpu(amount)
    return str(amount) if resource == PORTS else format_size(amount)
