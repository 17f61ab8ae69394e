"""An event loop of asyncio on a virtual clock, in which the seed decides who is next.

It has no selector, no threads and no files: whoever waits for something from outside waits for ever. Handles that are
ready together run in an order that depends on the seed and on nothing else. They are first sorted by when their tasks
were made, because a cancel scope of anyio goes over a set of tasks, whose order depends on where they are in memory.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Coroutine, Generator
from contextvars import Context
from itertools import count
from typing import Any, Final

CLOCK_RESOLUTION_SECONDS: Final = 1e-9


class Deadlock(Exception):
    """Nobody can run any more, and no timer is left that would change that."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("nothing can run any more")


class NumberedTask(asyncio.Task[Any]):
    """A task that knows which one it is."""

    number = 0


class SimulatedLoop(asyncio.BaseEventLoop):
    """The event loop.

    Args:
        chance: Decides the order.

    """

    # What of asyncio's own loop is used here is private, and the same since Python 3.7.
    _ready: Any
    _scheduled: list[Any]
    _timer_cancelled_count: int

    def __init__(self, chance: random.Random) -> None:
        """Begin at time zero."""
        super().__init__()
        self._chance = chance
        self._now = 0.0
        self._numbers = count(1)
        self._clock_resolution = CLOCK_RESOLUTION_SECONDS
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        context: Context | None = None,
    ) -> NumberedTask:  # fmt: skip
        task = NumberedTask(coroutine, loop=loop, context=context)
        task.number = next(self._numbers)
        return task

    def _run_once(self) -> None:
        """Run all that is ready, in the order of the seed; if nothing is, let time pass first."""
        self._let_pass()
        batch = self._ordered(list(self._ready))
        self._ready.clear()
        batch.reverse()
        try:
            while batch:
                handle = batch.pop()
                if not handle.cancelled():
                    handle._run()  # noqa: SLF001 - what asyncio's own loop does
        finally:
            self._ready.extendleft(batch)

    def _let_pass(self) -> None:
        while True:
            while self._scheduled and (self._scheduled[0].cancelled() or self._scheduled[0].when() <= self._now):
                handle = heapq.heappop(self._scheduled)
                handle._scheduled = False  # noqa: SLF001
                if handle.cancelled():
                    self._timer_cancelled_count -= 1
                else:
                    self._ready.append(handle)
            if self._ready:
                return
            if not self._scheduled:
                raise Deadlock
            self._now = self._scheduled[0].when()

    def _ordered(self, handles: list[Any]) -> list[Any]:
        """Return what belongs to no task first, in its order, and then the tasks shuffled."""
        if len(handles) < 2:
            return handles
        others: list[Any] = []
        tasks: list[tuple[int, int, Any]] = []
        for place, handle in enumerate(handles):
            owner = getattr(handle._callback, "__self__", None)  # noqa: SLF001
            if isinstance(owner, NumberedTask):
                tasks.append((owner.number, place, handle))
            else:
                others.append(handle)
        tasks.sort(key=_by_task)
        self._chance.shuffle(tasks)
        return [*others, *(handle for _, _, handle in tasks)]

    def _write_to_self(self) -> None:
        """Wake nobody: there is no other thread."""

    def _process_events(self, event_list: list[Any]) -> None:
        """Process none: there is no selector."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: there are no threads."""


def _by_task(entry: tuple[int, int, Any]) -> tuple[int, int]:
    return entry[0], entry[1]
