"""Schedulers that add how well a copy fits to what its job wishes for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from khonsu.abc.scheduler import Scheduler
from khonsu.core.arrays import FloatArray
from khonsu.core.ask import Ask
from khonsu.core.fleet import Fleet
from khonsu.core.terms import Block, best_fit, own_wishes, spread_blocks, wishes, worst_fit


class Fitting(Scheduler):
    """A score of one term of the scheduler's own, `fit`, and the job's wishes, each from -1 to 1.

    `score` is the whole of it. Spreads depend on more than one node, so for many copies at once they are kept apart:
    `own` is the score without them, and `blocks` are the spreads.
    """

    independent = True
    term: ClassVar[str]

    def fit(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        """Return how well the next copy fits on each node, from 0 to 1."""
        raise NotImplementedError

    def score(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, FloatArray]:
        """Return the fit and the job's wishes."""
        return {self.term: self.fit(ask, fleet), **wishes(ask, fleet)}

    def own(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, FloatArray]:
        """Return the score without the spreads."""
        return {self.term: self.fit(ask, fleet), **own_wishes(ask, fleet)}

    def blocks(self, ask: Ask, fleet: Fleet, /) -> tuple[Block, ...]:
        """Return the spreads."""
        return spread_blocks(ask, fleet)


class BinPack(Fitting):
    """Prefer the node that is the fullest with the copy: whole nodes stay free for what needs one. The default."""

    name = "binpack"
    term = "best_fit"

    def fit(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        """Return how full each node would be."""
        return best_fit(ask, fleet)


class SpreadOut(Fitting):
    """Prefer the node that is the emptiest with the copy: all have room to grow, and a lost node takes little along."""

    name = "spread"
    term = "worst_fit"

    def fit(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        """Return how empty each node would be."""
        return worst_fit(ask, fleet)
