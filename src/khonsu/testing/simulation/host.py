"""A host: clocks, a disk, an address, processes, and one program of ours that runs on it, again and again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup
from attrs import frozen

from khonsu.errors import KhonsuError
from khonsu.scopes import bare
from khonsu.testing.simulation.clock import HostClock
from khonsu.testing.simulation.database import SimDatabaseDisk
from khonsu.testing.simulation.env import BLOCKING_SECONDS, SimEnv
from khonsu.testing.simulation.files import FileDisk, Folder
from khonsu.testing.simulation.network import Network
from khonsu.testing.simulation.processes import ProcessTable, Watchers

RESTART_SECONDS: Final = 1.0
"""After how long a program that ended is started again."""

Streams = Callable[[str], random.Random]
"""Makes a stream of chance by its name."""


@frozen
class Copy:
    """A copy of a disk."""

    files: Folder
    databases: Mapping[str, bytes]


class Disk:
    """The disk of a host: files, and databases."""

    def __init__(self, root: Path, chance: Streams) -> None:
        """Begin empty, with files below a folder of this machine."""
        self.files = FileDisk(root, chance("files"))
        self.databases = SimDatabaseDisk(chance("databases"))

    def power_cut(self) -> None:
        """Lose what was not waited for, or some of it."""
        self.files.power_cut()
        self.databases.power_cut()

    def copy(self) -> Copy:
        """Return a copy of all that is on it."""
        return Copy(self.files.copy(), self.databases.copy())

    def put_back(self, copy: Copy) -> None:
        """Hold a copy instead of what is on it."""
        self.files.put_back(copy.files)
        self.databases.put_back(copy.databases)


class Host:
    """A host.

    Args:
        name: Its name, which is also its address.
        program: What runs on it: is given the host and the environment of this run. It is started again when it ends.
        root: A folder for its files.
        network: The network.
        chance: Makes its streams of chance.
        watchers: Are told of its processes.
        note: Is told what happens to it.
        failed: Is told of a program that ended as none should.

    """

    def __init__(
        self,
        name: str,
        program: Callable[[Host, SimEnv], Awaitable[None]],
        *,
        root: Path,
        network: Network,
        chance: Streams,
        watchers: Watchers,
        note: Callable[[str, str], None],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        """Be switched off."""
        self.name = name
        self.labels: dict[str, str] = {}
        self.refused = False
        """Whether its agent was told that its node is not known any more: an operator sees it, and invites it anew."""
        self.term: int | None = None
        """The term that its control plane is to begin, if its database was put back from a copy."""
        self.network = network
        self.clock = HostClock(chance("clock"))
        self.disk = Disk(root, chance)
        self.table = ProcessTable(name, self.clock, watchers)
        self._program = program
        self._chance = chance
        self._note = note
        self._failed = failed
        self._runs = 0
        self._boots = 0
        self._scope: anyio.CancelScope | None = None
        self._env: SimEnv | None = None
        self._powered = False
        self._blocking_seconds = BLOCKING_SECONDS
        self._over = anyio.Event()
        """Set when the last run has ended."""
        self._over.set()

    @property
    def boot_id(self) -> str:
        """Return what changes with every boot."""
        return f"{self.name}-boot-{self._boots}"

    @property
    def up(self) -> bool:
        """Return whether its program runs, be it that it is paused."""
        return self._env is not None and self._env.alive

    @property
    def env(self) -> SimEnv | None:
        """Return the environment of the present run, if there is one."""
        return self._env

    def start(self, group: TaskGroup) -> None:
        """Switch it on, if it is off, and start the program, unless it runs."""
        if not self._powered:
            self._powered = True
            self._boots += 1
            self.network.dark.discard(self.name)
            self.clock.boot()
            self._note(self.name, "boots")
        if not self.up:
            self._runs += 1
            env = SimEnv(
                self.clock,
                self.disk.files,
                chance=self._chance(f"program/{self._runs}"),
                delays=self._chance(f"threads/{self._runs}"),
            )
            env.blocking_seconds = self._blocking_seconds
            self._env, self._scope = env, anyio.CancelScope()
            group.start_soon(self._run, group, env, self._scope)

    async def _run(self, group: TaskGroup, env: SimEnv, scope: anyio.CancelScope) -> None:
        """Run the program, and start it again when it ends by itself."""
        # A kernel lets go of the locks of a dead process at once; here it takes some steps until it has ended.
        before, self._over = self._over, anyio.Event()
        over = self._over
        await before.wait()
        try:
            error = await self._run_once(env, scope)
        finally:
            over.set()
        if not env.alive:  # it was crashed; what it still did had no effect
            return
        env.fence()
        self.disk.databases.fence()
        if error is not None and not isinstance(error, KhonsuError):
            self._failed(self.name, error)
        # Without its text, which may name a folder or a process of the machine that simulates.
        self._note(self.name, f"ends: {type(error).__name__}" if error is not None else "ends")
        await anyio.sleep(RESTART_SECONDS)
        if self._env is env and self._powered:
            self.start(group)

    async def _run_once(self, env: SimEnv, scope: anyio.CancelScope) -> BaseException | None:
        """Run the program once, and return what it ended with."""
        error: BaseException | None = None
        if not env.alive:
            return None
        self._note(self.name, "starts")
        with scope:
            try:
                await self._program(self, env)
            except BaseException as raised:  # noqa: BLE001 - whatever ends it is told to the world
                cancelled, error = _parts(raised)
                if cancelled is not None:
                    raise cancelled from None
        return error

    def crash(self) -> None:
        """Kill the program, as by SIGKILL; its files and its tasks stay."""
        env, scope = self._env, self._scope
        if env is None or scope is None or not env.alive:
            return
        self._note(self.name, "crashes")
        self._fence(env)
        scope.cancel()

    def power_cut(self) -> None:
        """Switch it off: tasks are gone, and so is some of what was not waited for."""
        if not self._powered:
            return
        self._note(self.name, "loses power")
        self._powered = False
        self.network.dark.add(self.name)
        if self._env is not None:
            self._fence(self._env)
        self.table.crash()
        self.disk.power_cut()
        if self._scope is not None:
            self._scope.cancel()

    def _fence(self, env: SimEnv) -> None:
        """Take everything out of the hands of a run before it is told: what it does at its end has no effect."""
        env.fence()
        self.disk.databases.fence()
        self._env = None

    def put_back(self, copy: Copy, *, term: int | None) -> None:
        """Have it hold a copy of a disk instead of what it holds; it must not run.

        Args:
            copy: What it holds then, safely.
            term: The term that its control plane begins then; None for a copy that goes on as it was.

        """
        self._note(self.name, "has its disk put back" if term is None else f"has its disk put back, for term {term}")
        self.disk.put_back(copy)
        self.term = term

    def switch_off(self) -> None:
        """Switch it off for good, and with it what its answers are."""
        if self._powered:
            self.power_cut()

    def slow(self, seconds: float) -> None:
        """Have calls on the threads of its program take so long on average, as on a slow disk."""
        self._blocking_seconds = seconds
        if self._env is not None:
            self._env.blocking_seconds = seconds

    def pause(self) -> None:
        """Stop the program, as by SIGSTOP."""
        if self._env is not None and not self._env.paused:
            self._note(self.name, "is paused")
            self._env.pause()

    def resume(self) -> None:
        """Let the program go on."""
        if self._env is not None and self._env.paused:
            self._note(self.name, "goes on")
            self._env.resume()


def _parts(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return what of an error is the cancellation of its scope, and what else there is."""
    kind = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        cancelled, others = error.split(kind)
        return cancelled, None if others is None else bare(others)
    return (error, None) if isinstance(error, kind) else (None, error)
