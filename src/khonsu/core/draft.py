"""A plan in the making: the groups of a job are placed one after the other, each on what the ones before it left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from attrs import frozen

from khonsu.core.arrays import FloatArray, IntArray, occurrence
from khonsu.core.ask import Ask, make_ask, seed_of
from khonsu.core.changes import Changes, Place
from khonsu.core.explain import Scoring, judged, placement_failure, total_of
from khonsu.core.feasible import eligible
from khonsu.core.fleet import Fleet
from khonsu.core.job import Group
from khonsu.core.placement import Picks
from khonsu.core.plan import Placements, Plan, Snapshot
from khonsu.core.records import Evaluation, PlacementFailure
from khonsu.errors import ensure


class Placing(Scoring, Protocol):
    """What a plan needs of a scheduler."""

    def picks(self, ask: Ask, fleet: Fleet, /) -> Picks:
        """Return the node of each copy, and its score."""


class Draft:
    """The placements chosen so far, and the fleet with them."""

    def __init__(self, scheduler: Placing, evaluation: Evaluation, snapshot: Snapshot, changes: Changes) -> None:
        """Begin with nothing placed."""
        self._scheduler = scheduler
        self._evaluation = evaluation
        self._snapshot = snapshot
        self._changes = changes
        self._spec = snapshot.specs[changes.version]
        self._fleet = snapshot.fleet
        self._groups: list[Group] = []
        self._placed: list[_Placed] = []
        self._unplaced: list[PlacementFailure] = []

    def place_all(self) -> None:
        """Place what the changes want, group by group."""
        by_group: defaultdict[str, list[Place]] = defaultdict(list)
        for place in self._changes.place:
            by_group[place.group].append(place)
        groups = {group.name: group for group in self._spec.groups}
        for name, places in by_group.items():
            ensure(name in groups, f"{self._spec.name} version {self._changes.version} has a group {name}")
            self._place_group(groups[name], places)

    def plan(self) -> Plan:
        """Return the plan."""
        placed = self._placed
        return Plan(
            evaluation=self._evaluation.id,
            revision=self._snapshot.revision,
            scheduler=self._scheduler.name,
            version=self._changes.version,
            groups=tuple(group.name for group in self._groups),
            placements=Placements(
                group=np.concatenate([np.full(len(each.slots), each.group) for each in placed]) if placed else (),
                slot=np.concatenate([each.slots for each in placed]) if placed else (),
                node=np.concatenate([each.rows for each in placed]) if placed else (),
            ),
            score=np.concatenate([each.scores for each in placed]) if placed else (),
            nodes=self._snapshot.fleet.ids,
            stops=self._changes.stop,
            unplaced=tuple(self._unplaced),
            all_or_nothing=tuple(group.name for group in self._groups if group.gang),
        )

    def _place_group(self, group: Group, places: Sequence[Place]) -> None:
        seed = seed_of(self._evaluation.id, group.name)
        before = self._fleet = self._fleet.next_group(seed)
        placed: list[_Placed] = []
        wanted = 0
        lacking: tuple[Ask, IntArray | None] | None = None
        for part in _parts(places):
            slots = tuple(place.slot for place in part)
            previous = tuple(place.previous for place in part)
            ask = make_ask(self._spec, group, slots, previous=previous, seed=seed, avoid=part[0].avoid)
            fixed = None
            if part[0].node is None:
                picks = self._scheduler.picks(ask, self._fleet)
                wanted += len(part)
            else:
                fixed, picks = self._pick_fixed(ask, part)
                wanted += len(fixed)
            found = picks.rows >= 0
            rows = picks.rows[found]
            if len(rows):
                self._fleet = self._fleet.after(ask, np.bincount(rows, minlength=len(self._fleet)))
                placed.append(_Placed(len(self._groups), np.array(slots)[found], rows, picks.scores[found]))
            if fixed is not None and len(rows) < len(fixed):
                lacking = ask, np.setdiff1d(fixed, rows)
            elif fixed is None and not found.all():
                lacking = ask, None
        if lacking is not None:
            count = 0 if group.gang else sum(len(each.slots) for each in placed)
            fleet = self._fleet if lacking[1] is None else self._fleet[lacking[1]]
            failure = placement_failure(self._scheduler, lacking[0], fleet, wanted=wanted, placed=count)
            self._unplaced.append(failure)
            if group.gang:
                self._fleet, placed = before, []
        if placed:
            self._groups.append(group)
            self._placed.extend(placed)

    def _pick_fixed(self, ask: Ask, places: Sequence[Place]) -> tuple[IntArray, Picks]:
        """Place copies each of which has only one node that will do; return also the nodes that are for this group.

        A copy for a node that something static stands against is not wanted after all.
        """
        fleet = self._fleet
        rows = np.array([fleet.table.rows.get(place.node, -1) if place.node else -1 for place in places], np.int64)
        found = judged(self._scheduler, ask, fleet)
        scores = total_of(self._scheduler.terms(ask, fleet), fleet)
        taken = occurrence(rows) < np.append(found.fits, 0)[rows]
        wanted = np.append(eligible(ask, fleet), np.False_)[rows]
        return np.unique(rows[wanted]), Picks(np.where(taken, rows, -1), np.append(scores, 0.0)[rows])


@frozen(eq=False)
class _Placed:
    """Copies of one group that have a place."""

    group: int
    slots: IntArray
    rows: IntArray
    scores: FloatArray


def _parts(places: Sequence[Place]) -> list[list[Place]]:
    """Return what is asked for at once: slots with a penalty singly, first; then fixed nodes; then the rest."""
    single = [[place] for place in places if place.avoid and place.node is None]
    fixed = [place for place in places if place.node is not None]
    rest = [place for place in places if not place.avoid and place.node is None]
    return [*single, *([fixed] if fixed else []), *([rest] if rest else [])]
