"""Schedulers: where copies run. A pure function of an evaluation, a snapshot, and the changes that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias

import numpy as np

from khonsu.core.arrays import BoolArray, FloatArray, IntArray
from khonsu.core.ask import Ask
from khonsu.core.changes import Changes
from khonsu.core.draft import Draft
from khonsu.core.explain import total_of
from khonsu.core.feasible import feasible
from khonsu.core.fleet import Fleet
from khonsu.core.placement import Judge, Picks, all_at_once, by_blocks, one_by_one
from khonsu.core.plan import Outcome, Plan, Snapshot
from khonsu.core.records import Evaluation
from khonsu.core.terms import Block, distinct_blocks, wishes
from khonsu.errors import PluginError

Scores: TypeAlias = FloatArray | Mapping[str, FloatArray]


class Scheduler:
    """Where copies run. Override what you need; the smallest scheduler is a `name` and a `score`.

    Between two calls of `observe` a scheduler is pure: the same arguments give the same answer. Fleets are read-only.
    Several threads may call one instance at the same time.

    Attributes:
        name: What jobs call it by: `scheduler = "NAME"`.
        independent: The author's promise that a node's score depends on that node's own row only (and on the ask), and
            not on what other nodes hold. Then many copies are placed in a few calls of `score`, with exactly the result
            of one call per copy. `khonsu.testing.check_scheduler` tests the promise.

    """

    name: ClassVar[str] = ""
    independent: ClassVar[bool] = False

    def filters(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, BoolArray]:
        """Return which nodes may be used, by reason: True keeps a node. Only nodes that all reasons keep are used.

        These come on top of what Khonsu checks by itself: constraints, drivers, resources, ports.
        """
        return {}

    def score(self, ask: Ask, fleet: Fleet, /) -> Scores:
        """Return how good each node is for the next copy: the highest wins, -inf refuses.

        Args:
            ask: What is placed.
            fleet: The nodes as they are *before* this copy. It may be a part of the nodes, and may have one several
                times with more copies each time, if the scheduler is `independent`.

        Returns:
            A number for each node, or several terms by name, which are added up from left to right. Unless overridden,
            the job's own wishes (`khonsu.core.terms.wishes`).

        """
        return wishes(ask, fleet)

    def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
        """Return the position in the fleet of the node of each copy, -1 for copies that are not placed."""
        return self._pick(ask, fleet).rows

    def schedule(self, evaluation: Evaluation, snapshot: Snapshot, changes: Changes, /) -> Plan:
        """Return a plan for all changes that a job needs, one call of `place` for each group.

        Slots that failed on some nodes are placed singly, first. Copies that no node takes are counted in
        `Plan.unplaced`, with the reasons.
        """
        draft = Draft(self, evaluation, snapshot, changes)
        draft.place_all()
        return draft.plan()

    def reset(self, seed: int, /) -> None:
        """Forget everything; called before each run of a simulation."""

    def observe(self, outcome: Outcome, /) -> None:
        """Learn what became of a plan; called after each commit, in the order of revisions."""

    # ------------------------------------------------------------------------------------ what placement is made of

    def terms(self, ask: Ask, fleet: Fleet, /) -> dict[str, FloatArray]:
        """Return the terms of the score by name, after a check of their form.

        Raises:
            PluginError: One is not an array with a number for each node.

        """
        return self._checked_terms(self.score(ask, fleet), fleet)

    def own_terms(self, ask: Ask, fleet: Fleet, /) -> dict[str, FloatArray]:
        """Return the terms of `own` by name, after the same check."""
        return self._checked_terms(self.own(ask, fleet), fleet)

    def picks(self, ask: Ask, fleet: Fleet, /) -> Picks:
        """Return the node of each copy, as `place` does, and the score with which it won (0 if `place` is overridden).

        Raises:
            PluginError: `place`, `score` or `filters` returned something else than they promise.

        """
        if type(self).place is Scheduler.place:
            return self._pick(ask, fleet)
        rows = np.asarray(self.place(ask, fleet))
        if rows.shape != (ask.count,) or rows.dtype.kind not in "iu" or not ((rows >= -1) & (rows < len(fleet))).all():
            wanted = f"{ask.count} positions below {len(fleet)}, or -1"
            raise PluginError(f"scheduler {self.name}: place returned {_form(rows)}, not {wanted}")
        return Picks(rows.astype(np.int64), np.zeros(ask.count))

    def blocks(self, ask: Ask, fleet: Fleet, /) -> tuple[Block, ...]:
        """Return parts of the score that depend on the copies of an attribute's value, where `own` leaves them out."""
        return ()

    def own(self, ask: Ask, fleet: Fleet, /) -> Scores:
        """Return the score without `blocks`: what an `independent` scheduler promises to depend on one row only."""
        return self.score(ask, fleet)

    def _pick(self, ask: Ask, fleet: Fleet) -> Picks:
        fits = feasible(ask, fleet).fits
        distinct = distinct_blocks(ask, fleet)
        if not self.independent:
            return one_by_one(ask, fleet, self._judge(ask, self.terms), fits, distinct)
        blocks = (*self.blocks(ask, fleet), *distinct)
        judge = self._judge(ask, self.own_terms)
        return by_blocks(ask, fleet, judge, fits, blocks) if blocks else all_at_once(ask, fleet, judge, fits)

    def _judge(self, ask: Ask, terms: Callable[[Ask, Fleet], Mapping[str, FloatArray]]) -> Judge:
        def judged(fleet: Fleet) -> FloatArray:
            total = total_of(terms(ask, fleet), fleet)
            for reason, keep in self.filters(ask, fleet).items():
                self._check_form(f"filter {reason!r}", keep, fleet, "b")
                total = np.where(keep, total, -np.inf)
            return total

        return Judge(self.name, judged)

    def _checked_terms(self, scores: Scores, fleet: Fleet) -> dict[str, FloatArray]:
        terms = dict(scores) if isinstance(scores, Mapping) else {"score": scores}
        for name, term in terms.items():
            self._check_form(f"score {name!r}" if name != "score" else "score", term, fleet, "fiu")
            if term.dtype != np.float64:
                terms[name] = term.astype(np.float64)
        return terms

    def _check_form(self, what: str, column: object, fleet: Fleet, kinds: str) -> None:
        if not isinstance(column, np.ndarray) or column.shape != (len(fleet),) or column.dtype.kind not in kinds:
            wanted = f"an array with {'True or False' if kinds == 'b' else 'a number'} for each of {len(fleet)} nodes"
            raise PluginError(f"scheduler {self.name}: {what} is {_form(column)}, not {wanted}")


def _form(thing: object) -> str:
    """Return what a wrong answer is, in short."""
    if isinstance(thing, np.ndarray):
        return f"an array of {thing.dtype} with shape {thing.shape}"
    return f"a {type(thing).__name__}"


def scheduler(name: str, /, *, independent: bool = False) -> Callable[[Callable[[Ask, Fleet], FloatArray]], Scheduler]:
    """Make a scheduler of a function that scores nodes; see `Scheduler.score`.

    Args:
        name: What jobs call it by.
        independent: Whether the score of a node depends on that node only; see `Scheduler.independent`.

    """

    def make(function: Callable[[Ask, Fleet], FloatArray]) -> Scheduler:
        def score(_: Scheduler, ask: Ask, fleet: Fleet, /) -> FloatArray:
            return function(ask, fleet)

        members = {
            "name": name,
            "independent": independent,
            "score": score,
            "__doc__": function.__doc__,
            "__module__": function.__module__,
        }
        made: Scheduler = type(function.__name__, (Scheduler,), members)()
        return made

    return make
