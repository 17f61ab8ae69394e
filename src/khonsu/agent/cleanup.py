"""Clearing up: what is left of allocations that have ended is kept for its logs, for a while."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import anyio
from attrs import frozen

from khonsu.agent.journal import Journal
from khonsu.agent.layout import Layout
from khonsu.agent.limits import Limits
from khonsu.agent.runner import Runner
from khonsu.agent.state import AllocationState
from khonsu.agent.workload import Workload
from khonsu.drivers.supervisor import Supervisor
from khonsu.env import Env
from khonsu.errors import DriverError
from khonsu.scopes import bare_task_group, first
from khonsu.security.trees import disk_bytes, remove_tree

LOOK_SECONDS: Final = 60.0
DELAY_SECONDS: Final = 1.0
STRANGERS_SECONDS_MAX: Final = 30.0
_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Remains:
    """The folder of an allocation that has ended."""

    key: str
    ended_at: float
    """On the wall clock."""
    size_bytes: int


def doomed(remains: Iterable[Remains], limits: Limits, now: float) -> Iterator[Remains]:
    """Yield what is to go, the oldest first: what is too old, too many, or too large altogether."""
    kept = sorted(remains, key=lambda one: (one.ended_at, one.key))
    count, size_bytes = len(kept), sum(one.size_bytes for one in kept)
    for one in kept:
        old = now - one.ended_at > limits.ended_seconds
        if not old and count <= limits.ended_count and size_bytes <= limits.ended_bytes:
            return
        count -= 1
        size_bytes -= one.size_bytes
        yield one


class Cleaner:
    """Clears up behind allocations that were forgotten, one after the other. For the event loop only."""

    def __init__(
        self,
        layout: Layout,
        *,
        journal: Journal,
        runner: Runner,
        supervisor: Supervisor,
        workload: Workload,
        limits: Limits,
        env: Env,
    ) -> None:
        """Begin with nothing to do."""
        self._layout = layout
        self._journal = journal
        self._runner = runner
        self._supervisor = supervisor
        self._workload = workload
        self._limits = limits
        self._env = env
        self._remains: dict[str, Remains] = {}
        self._forgotten: deque[AllocationState] = deque()
        self._work = anyio.Event()
        self._busy = anyio.Lock()

    def take(self, state: AllocationState) -> None:
        """Clear up behind an allocation, soon."""
        self._forgotten.append(state)
        self._work.set()

    async def end_strangers(self) -> None:
        """Make sure that nothing runs of allocations that have ended, or that only a lost journal knew.

        To be called before the control plane is told what this node has. What cannot be ended holds up no start.
        """
        with anyio.move_on_after(STRANGERS_SECONDS_MAX) as patience:
            async with bare_task_group() as group:
                for folder in await self._env.run_blocking(self._strange_attempts):
                    group.start_soon(self._end_stranger, folder)
        if patience.cancelled_caught:
            _log.error("there are tasks of earlier allocations that do not end")

    def _strange_attempts(self) -> list[Path]:
        found: list[Path] = []
        for key in self._layout.kept():
            if self._workload.get(key) is None:
                try:
                    found += self._layout.attempts(key)
                except OSError as error:
                    _log.error("it cannot be seen what may still run of allocation %s: %s", key, error)
        return found

    async def _end_stranger(self, folder: Path) -> None:
        try:
            await self._supervisor.remove(str(folder))
        except (OSError, DriverError) as error:
            _log.error("it cannot be seen what may still run for %s: %s", folder, error)

    async def run(self) -> None:
        """Clear up, for ever; after a while, so that what is urgent goes first."""
        for key in await self._kept():
            if self._workload.get(key) is None:
                await self._keep(key)
        while True:
            await self._make_room()
            if not self._forgotten:
                self._work = anyio.Event()
                await first(self._work, self._env.sleep, LOOK_SECONDS)
                await self._env.sleep(DELAY_SECONDS)
            # The records of attempts go only when the journal does not need them any more. While the disk is full it
            # cannot be written; then room is made all the same.
            with anyio.move_on_after(LOOK_SECONDS) as patience:
                await self._journal.durable()
            while self._forgotten and not patience.cancelled_caught:
                async with self._busy:
                    await self._clear_next()

    async def _kept(self) -> tuple[str, ...]:
        try:
            return await self._env.run_blocking(self._layout.kept)
        except OSError as error:
            _log.warning("it cannot be seen what is kept of ended allocations: %s", error)
            return ()

    async def clear_all(self) -> None:
        """Clear everything away at once; nothing lives any more."""
        await self._journal.durable()
        async with self._busy:
            while self._forgotten:
                await self._clear_next()
            for key in await self._kept():
                await self._remove(key)

    async def _clear_next(self) -> None:
        if self._forgotten:
            state = self._forgotten.popleft()
            await self._runner.remove(state)
            self._workload.drop(state.assignment.id)
            await self._keep(state.assignment.id)

    async def _keep(self, key: str) -> None:
        remains = await self._env.run_blocking(self._look, key)
        if remains is None:
            self._workload.clear(key)
        else:
            self._remains[key] = remains

    def _look(self, key: str) -> Remains | None:
        """Return what is left of an allocation. Blocks."""
        try:
            size_bytes = disk_bytes(self._layout.allocation(key), enough_bytes=self._limits.ended_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("it cannot be seen how large %s is: %s", self._layout.allocation(key), error)
            size_bytes = 0
        try:
            ended_at = self._layout.inner(key).stat().st_mtime
        except OSError:
            ended_at = self._env.now()
        return Remains(key=key, ended_at=ended_at, size_bytes=size_bytes)

    async def _make_room(self) -> None:
        for one in list(doomed(self._remains.values(), self._limits, self._env.now())):
            await self._remove(one.key)

    async def _remove(self, key: str) -> None:
        """Remove the folder of an allocation, as far as that is possible."""
        folder = self._layout.allocation(key)
        try:
            await self._env.run_blocking(remove_tree, folder)
        except OSError as error:
            _log.warning("%s cannot be removed (%s); remove it by hand", folder, error)
        self._remains.pop(key, None)
        self._workload.clear(key)
