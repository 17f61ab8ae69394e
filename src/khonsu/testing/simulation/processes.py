"""The processes of a host: they outlive its agent, and a helper of each exclusive one minds the lease.

The helper does what `khonsu.supervisor` does: SIGTERM when the lease runs out, SIGKILL of what is left after the task's
kill timeout, whatever has become of the agent.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
from attrs import define

from khonsu.abc.driver import TaskContext, TaskExit
from khonsu.drivers.cgroups import CgroupSupport
from khonsu.drivers.supervisor import Supervisor
from khonsu.env import Env
from khonsu.testing.fake_driver import FakeConfig, FakeMachine, FakeProcess
from khonsu.testing.simulation.clock import RESOLUTION_SECONDS, HostClock


@define(eq=False, kw_only=True)
class Watchers:
    """Who is told of starts and ends: the host, by its name, and the process."""

    started: Callable[[str, FakeProcess], None] = lambda *_: None
    ended: Callable[[str, FakeProcess, str], None] = lambda *_: None


class ProcessTable(FakeMachine):
    """The processes of a host.

    Args:
        host: Its name.
        clock: Its clocks.
        watchers: Who is told.

    """

    def __init__(self, host: str, clock: HostClock, watchers: Watchers) -> None:
        """Begin with none, and without a lease."""
        super().__init__()
        self.host = host
        self.lease = -math.inf
        self._clock = clock
        self._watchers = watchers
        self._alive: dict[int, FakeProcess] = {}
        self._changed = anyio.Event()

    @property
    def alive(self) -> tuple[FakeProcess, ...]:
        """Return what runs now, in the order of the starts."""
        now = self._clock.monotonic()
        return tuple(process for process in self._alive.values() if process.end > now)

    def start(self, key: str, task: TaskContext[FakeConfig], now: float) -> FakeProcess:
        """Start a task, and tell of it."""
        process = super().start(key, task, now)
        self._watchers.started(self.host, process)
        self._alive[process.pid] = process
        self._changed.set()
        return process

    def end(self, process: FakeProcess, at: float, exit_: TaskExit) -> None:
        """Have a task end at a time."""
        super().end(process, at, exit_)
        self._changed.set()

    def crash(self) -> None:
        """Lose all processes, as by a power cut."""
        for process in self.alive:
            self._watchers.ended(self.host, process, "lost power")
        self._alive.clear()
        self.lease = -math.inf
        super().crash()

    async def run(self) -> None:
        """Tell of each end when it comes, for ever."""
        while True:
            self._changed = anyio.Event()
            now = self._clock.monotonic()
            for process in [process for process in self._alive.values() if process.end <= now]:
                del self._alive[process.pid]
                self._watchers.ended(self.host, process, _how(process))
            soonest = min((process.end for process in self._alive.values()), default=math.inf)
            with anyio.move_on_after(self._clock.true_seconds(soonest - now) + RESOLUTION_SECONDS):
                await self._changed.wait()


def _how(process: FakeProcess) -> str:
    end = process.exit
    why = "the lease ran out, " if end.lease_expired else ""
    return why + (f"signal {end.signal}" if end.signal is not None else f"code {end.code}")


class SimSupervisor(Supervisor):
    """What an agent on a simulated host has instead of its supervisor: nothing but the lease, for the helpers."""

    def __init__(self, directory: Path, *, env: Env, table: ProcessTable) -> None:
        """Start nothing."""
        super().__init__(directory, env=env)
        self._table = table

    def _prepare(self) -> CgroupSupport:
        return CgroupSupport(message="simulated")

    def _write_lease(self, deadline: float) -> None:
        self._table.renew(deadline, self._env.monotonic())

    async def remove(self, directory: str, /) -> None:
        """Remove what is left of an attempt that nobody knows: its process."""
        await self._env.run_blocking(self._remove, Path(directory))

    def _remove(self, directory: Path) -> None:
        attempt, task, allocation = directory.name, directory.parent.name, directory.parent.parent.parent.name
        self._table.remove(f"{allocation}/{task}/{attempt}", self._env.monotonic())
        shutil.rmtree(directory, ignore_errors=True)
