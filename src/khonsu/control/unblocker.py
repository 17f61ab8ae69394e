"""The unblocker: wakes blocked evaluations when capacity appears that they may need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from attrs import evolve

from khonsu.control.broker import Broker
from khonsu.control.state import Moves, State
from khonsu.core.records import Allocation, Evaluation, Node
from khonsu.core.states import EVALUATION, EvaluationStatus
from khonsu.errors import StoreError

if TYPE_CHECKING:
    from khonsu.core.fleet import Fleet

EVALUATIONS_PER_TURN = 64
"""After so many the event loop gets a turn."""


class Unblocker:
    """Follows the state; what a batch freed is looked at once, together with what came meanwhile."""

    def __init__(self, state: State, broker: Broker) -> None:
        """Follow a state; the broker knows which evaluations are being looked at."""
        self._state = state
        self._broker = broker
        self._freed: set[str] = set()
        self._changed: set[str] = set()
        self._outdated: set[str] = set()
        """Evaluations that were being looked at when something changed: their look may be older than the change."""
        self._again: set[str] = set()
        """Of those, the ones that were blocked since."""
        self._anywhere = True
        """Whether it is not known what was freed: at the start, and after a rebuild."""
        self._work = anyio.Event()
        self._work.set()
        state.listeners.append(self._follow)
        state.rebuilt.append(self._restart)

    def _restart(self) -> None:
        self._anywhere = True
        self._work.set()

    def _follow(self, moves: Moves) -> None:
        appeared = False
        for before, after in moves:
            match before, after:
                case (Allocation(live=True) as was, Allocation(live=False) | None):
                    self._freed.add(was.node_id)
                    appeared = True
                case (_, Node(schedulable=True) as node) if before is None or _offer(before) != _offer(node):
                    self._changed.add(node.id)
                    appeared = True
                case (_, Evaluation(status=EvaluationStatus.BLOCKED) as blocked) if blocked.id in self._outdated:
                    self._outdated.discard(blocked.id)
                    self._again.add(blocked.id)
                case _:
                    continue
            self._work.set()
        if appeared:
            self._outdated = set(self._broker.taken)

    async def run(self) -> None:
        """Wake evaluations for ever."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            try:
                await self._wake()
            except StoreError:
                # What was freed is forgotten with this attempt: the next one looks everywhere.
                self._anywhere = True
                await self._state.env.sleep(1.0)
                self._work.set()

    async def _wake(self) -> None:
        tables = self._state.tables
        freed, changed, again = self._freed, self._changed, self._again
        self._freed, self._changed, self._again = set(), set(), set()
        anywhere, self._anywhere = self._anywhere, False
        blocked = [e for e in tables.evaluations.values() if e.status is EvaluationStatus.BLOCKED]
        if not blocked:
            return
        import numpy as np

        there = self._state.columns.fleet.snapshot(self._state.closed)
        if not anywhere:
            there = there[np.array([row for row, node in enumerate(there.ids) if node in freed], np.int64)]
        helped = []
        for count, evaluation in enumerate(blocked):
            if count % EVALUATIONS_PER_TURN == EVALUATIONS_PER_TURN - 1:
                await anyio.lowlevel.checkpoint()
            if changed or evaluation.id in again or self._helps(evaluation, there):
                helped.append(evaluation.id)
        batch = self._state.batch()
        for key in helped:
            present = tables.evaluations.get(key)
            if present is not None and present.status is EvaluationStatus.BLOCKED:
                batch.put(evolve(present, status=EVALUATION.step(present.status, "wake"), trigger="capacity"))
        if batch.changes:
            await self._state.commit(batch)

    def _helps(self, evaluation: Evaluation, there: Fleet) -> bool:
        """Return whether a copy of a group that was not placed may now fit where something ended."""
        from khonsu.core.ask import make_ask
        from khonsu.core.feasible import feasible

        record = self._state.tables.jobs.get(evaluation.job)
        if record is None:
            return True
        spec = self._state.tables.spec(record.key, record.version)
        groups = [spec.group(failure.group) for failure in evaluation.failures]
        return any(group is None or feasible(make_ask(spec, group, (0,)), there).fits.any() for group in groups)


def _offer(node: object) -> object:
    """Return what a node offers to jobs."""
    if not isinstance(node, Node):
        return None
    return (node.schedulable, node.labels, node.attributes, node.resources, node.drivers, node.pool)
