"""Things to do later: many timers, one sleeper."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count

import anyio

from khonsu.env import Env
from khonsu.scopes import first


class Timers:
    """Calls functions when their time has come, on the clock that never steps. For the event loop only."""

    def __init__(self, env: Env) -> None:
        """Know of nothing to do."""
        self._env = env
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._sooner = anyio.Event()

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Call a function at a time, or soon if that is over."""
        if not self._due or when < self._due[0][0]:
            self._sooner.set()
        heapq.heappush(self._due, (when, next(self._numbers), do))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Call a function after a while."""
        self.at(self._env.monotonic() + seconds, do)

    async def run(self) -> None:
        """Keep time, for ever."""
        while True:
            self._sooner = anyio.Event()
            while self._due and self._due[0][0] <= self._env.monotonic():
                heapq.heappop(self._due)[2]()
            wait = self._due[0][0] - self._env.monotonic() if self._due else math.inf
            if wait == math.inf:
                await self._sooner.wait()
            else:
                await first(self._sooner, self._env.sleep, max(0.0, wait))
