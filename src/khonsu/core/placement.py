"""Placing many copies of a group, with exactly the result of placing them one after the other.

Greedy placement gives each copy to the node with the highest score, the lowest rank among equals. When a node's score
depends on that node only, greedy is a merge: let s(n, j) be the score of the j-th copy on node n, and p(n, j) the
smallest of s(n, 1) to s(n, j). A node that wins with a value below all its earlier ones goes on winning until it falls
below that value, because no other node's next score is better. So greedy takes the first K pairs (n, j) by p
descending, then by rank, then by j: no condition on the shape of s, and pairs that cannot be among them need no score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from attrs import frozen

from khonsu.core.arrays import BoolArray, FloatArray, IntArray
from khonsu.core.ask import Ask
from khonsu.core.fleet import Fleet
from khonsu.core.terms import Block
from khonsu.errors import PluginError

AHEAD_NODES_MAX = 128
AHEAD_COPIES_MAX = 64
"""For how many nodes, and how many copies on each, scores are made in one call before they are needed."""


@frozen(eq=False)
class Picks:
    """The node of each copy by row, -1 for those without a place, and the score with which it won."""

    rows: IntArray
    scores: FloatArray


@frozen
class Judge:
    """The score of the next copy on each node, and the name of the scheduler that it is from."""

    name: str
    score: Callable[[Fleet], FloatArray]

    def __call__(self, fleet: Fleet, needed: BoolArray | None = None) -> FloatArray:
        """Return the scores of a fleet.

        Raises:
            PluginError: One that is needed is no number, or is infinitely high.

        """
        scores = self.score(fleet)
        wrong = ~(scores < np.inf)  # also where it is no number
        if needed is not None:
            wrong &= needed
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise PluginError(
                f"scheduler {self.name}: the score of node {fleet.names[row]} is {scores[row]}, no finite number",
                hint="Return -inf to refuse a node",
            )
        return scores


def one_by_one(ask: Ask, fleet: Fleet, judge: Judge, fits: IntArray, blocks: Sequence[Block] = ()) -> Picks:
    """Place copies with one look at the whole fleet for each: right for every score, and slow.

    Args:
        ask: What to place.
        fleet: Where.
        judge: Scores a fleet in which the copies placed so far are counted.
        fits: How many copies fit on each node.
        blocks: What is added to the score by the values of attributes.

    """
    order = np.argsort(fleet.rank)
    counts = np.zeros(len(fleet), np.int64)
    in_blocks = [block.counts.copy() for block in blocks]
    picks = _no_picks(ask.count)
    for copy in range(ask.count if len(fleet) else 0):
        left = counts < fits
        total = np.where(left, judge(fleet.after(ask, counts), left), -np.inf)
        for block, in_block in zip(blocks, in_blocks, strict=True):
            total = total + block.gain(block.codes, in_block[block.codes])
        row = int(order[total[order].argmax()])
        if total[row] == -np.inf:
            break
        picks.rows[copy], picks.scores[copy] = row, total[row]
        counts[row] += 1
        for block, in_block in zip(blocks, in_blocks, strict=True):
            in_block[block.codes[row]] += 1
    return picks


def all_at_once(ask: Ask, fleet: Fleet, judge: Judge, fits: IntArray) -> Picks:
    """Place copies where a node's score depends on that node only: the merge described above.

    Args:
        ask: What to place.
        fleet: Where.
        judge: Scores any selection of nodes, each as it is before its next copy.
        fits: How many copies fit on each node.

    """
    rows = np.flatnonzero(fits > 0)
    nodes = _Candidates(ask, fleet[rows], judge)
    room = np.minimum(fits[rows], ask.count)
    rank = nodes.fleet.rank
    first = judge(nodes.fleet)
    lowest = first.copy()
    every = np.arange(len(rows))
    known = np.ones(len(rows), np.int64)
    pairs = _Pairs(every, np.zeros(len(rows), np.int64), first, first)
    while True:
        value, last_rank = pairs.cut(ask.count, rank)
        before = (lowest > value) | ((lowest == value) & (rank < last_rank))
        active = np.flatnonzero(before & (known < room))
        if not len(active):
            break
        width = np.minimum(known[active], room[active] - known[active])
        copy, scores, inside = nodes.next_scores(active, known[active], width)
        table = np.full(inside.shape, np.inf)
        table[inside] = scores
        table[:, 0] = np.minimum(table[:, 0], lowest[active])
        table = np.minimum.accumulate(table, axis=1)
        lowest[active] = table[:, -1]
        known[active] += width
        pairs = pairs.with_more(_Pairs(np.repeat(active, width), copy, scores, table[inside]))
    order = np.lexsort((pairs.copy, rank[pairs.node], -pairs.lowest))
    order = order[: min(ask.count, int(np.count_nonzero(pairs.lowest > -np.inf)))]
    picks = _no_picks(ask.count)
    picks.rows[: len(order)] = rows[pairs.node[order]]
    picks.scores[: len(order)] = pairs.score[order]
    return picks


@frozen(eq=False)
class _Candidates:
    """The nodes that copies may go to."""

    ask: Ask
    fleet: Fleet
    judge: Judge

    def next_scores(self, which: IntArray, known: IntArray, width: IntArray) -> tuple[IntArray, FloatArray, BoolArray]:
        """Score the next copies of some nodes, node by node.

        Args:
            which: The nodes.
            known: How many copies of each have been scored.
            width: How many more to score of each.

        Returns:
            How many copies are there before each one scored, their scores, and their places in a table with a line per
            node.

        """
        inside = np.arange(int(width.max())) < width[:, None]
        copy = (known[:, None] + np.arange(inside.shape[1]))[inside]
        return copy, self.judge(self.fleet[np.repeat(which, width)].after(self.ask, copy)), inside


@frozen(eq=False)
class _Pairs:
    """Pairs (node, copy) with the copy's score and the lowest up to it."""

    node: IntArray
    copy: IntArray
    score: FloatArray
    lowest: FloatArray

    @classmethod
    def none(cls) -> _Pairs:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))

    def with_more(self, other: _Pairs) -> _Pairs:
        return _Pairs(
            np.concatenate((self.node, other.node)),
            np.concatenate((self.copy, other.copy)),
            np.concatenate((self.score, other.score)),
            np.concatenate((self.lowest, other.lowest)),
        )

    def cut(self, count: int, rank: IntArray) -> tuple[float, float]:
        """Return value and rank of the last of the first `count` pairs; below everything if there are not so many."""
        finite = self.lowest[self.lowest > -np.inf]
        if len(finite) < count:
            return -np.inf, -1.0
        value = np.partition(finite, len(finite) - count)[len(finite) - count]
        ties = rank[self.node[self.lowest == value]]
        place = count - int(np.count_nonzero(finite > value)) - 1
        return float(value), float(np.partition(ties, place)[place])


def by_blocks(ask: Ask, fleet: Fleet, judge: Judge, fits: IntArray, blocks: Sequence[Block]) -> Picks:
    """Place copies where a score is the node's own and a part that depends on the copies of a value of an attribute.

    One step for each copy, which moves only what the copy changes.

    Args:
        ask: What to place.
        fleet: Where.
        judge: Scores any selection of nodes, each as it is before its next copy, without the blocks.
        fits: How many copies fit on each node.
        blocks: What is added to the score by the values of attributes; at least one.

    """
    rows = np.flatnonzero(fits > 0)
    rows = rows[np.argsort(fleet.rank[rows])]  # so that the first of the highest is the one that wins
    picks = _no_picks(ask.count)
    if not len(rows):
        return picks
    ahead = _Ahead(_Candidates(ask, fleet[rows], judge), np.minimum(fits[rows], ask.count))
    own = ahead.heads.copy()
    parts = [_Part(block, rows) for block in blocks]
    total = sum((part.gains for part in parts), own)
    for copy in range(ask.count):
        place = int(total.argmax())
        if total[place] == -np.inf:
            break
        picks.rows[copy], picks.scores[copy] = rows[place], total[place]
        own[place] = ahead.next(place, total)
        for moved in [part.add(place) for part in parts]:
            total[moved] = sum((part.gains[moved] for part in parts), own[moved])
    return picks


class _Part:
    """A block on the way: the gain of each node, moved on with every copy."""

    def __init__(self, block: Block, rows: IntArray) -> None:
        self.block = block
        self.codes = block.codes[rows]
        self.counts = block.counts.copy()
        self.gains = block.gain(self.codes, self.counts[self.codes])
        self.members: dict[int, IntArray] = {}

    def add(self, place: int) -> IntArray:
        """Count a copy, and return the nodes whose gain it changed."""
        value = int(self.codes[place])
        members = self.members.get(value)
        if members is None:
            members = self.members[value] = np.flatnonzero(self.codes == value)
        self.counts[value] += 1
        self.gains[members] = self.block.gain(np.array([value]), self.counts[value : value + 1])[0]
        return members


class _Ahead:
    """The scores of each node's next copies, made for many nodes at once before they are needed."""

    def __init__(self, nodes: _Candidates, room: IntArray) -> None:
        self.nodes = nodes
        self.room = room
        self.heads = nodes.judge(nodes.fleet)
        self.known = np.ones(len(room), np.int64)
        self.taken = np.zeros(len(room), np.int64)
        self.scores: dict[int, list[float]] = {}

    def next(self, place: int, total: FloatArray) -> float:
        """Return the score of the copy after the one that a node was just given, -inf if there is no room for it."""
        self.taken[place] += 1
        taken = int(self.taken[place])
        if taken >= self.room[place]:
            return -np.inf
        if taken >= self.known[place]:
            self._make(place, total)
        return self.scores[place][taken - 1]

    def _make(self, place: int, total: FloatArray) -> None:
        """Make more scores for a node, and for those that are likely to need them next."""
        short = np.flatnonzero((self.known <= self.taken + 1) & (self.known < self.room))
        if len(short) > AHEAD_NODES_MAX:
            best = np.argpartition(-total[short], AHEAD_NODES_MAX)[:AHEAD_NODES_MAX]
            short = np.union1d(short[best], [place])
        known = self.known[short]
        width = np.minimum(np.minimum(known, AHEAD_COPIES_MAX), self.room[short] - known)
        _, made, _ = self.nodes.next_scores(short, known, width)
        ends = np.cumsum(width)
        for node, end, count in zip(short.tolist(), ends.tolist(), width.tolist(), strict=True):
            self.scores.setdefault(node, []).extend(made[end - count : end].tolist())
        self.known[short] += width


def _no_picks(count: int) -> Picks:
    return Picks(np.full(count, -1, np.int64), np.full(count, np.nan))
