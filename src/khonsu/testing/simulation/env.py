"""The environment of one run of a program on a simulated host: fenced when the host is dead, late when it is paused."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

import anyio
import anyio.lowlevel

from khonsu.env import Env, Worker
from khonsu.testing.simulation.clock import RESOLUTION_SECONDS, HostClock

T = TypeVar("T")
P = ParamSpec("P")

BLOCKING_SECONDS = 0.0005
"""How long a call on a thread takes on average, with the way there and back."""


class HostDown(Exception):
    """A program asks something of a host on which it does not run any more."""


class Syncs(Protocol):
    """A disk that takes note of what is safe."""

    def fsync(self, descriptor: int) -> None:
        """Take note that what is written there survives a power cut."""


class SimEnv(Env):
    """Time, chance and threads of one run of a program; calls on threads run inline, after a delay.

    Args:
        clock: The clocks of the host.
        disk: Where its files are.
        chance: Of the program. Its tokens are guessable.
        delays: Of the threads.

    """

    def __init__(self, clock: HostClock, disk: Syncs, *, chance: random.Random, delays: random.Random) -> None:
        """Begin a run."""
        self._clock = clock
        self._disk = disk
        self._chance = chance
        self._delays = delays
        self._resumed: anyio.Event | None = None
        self.alive = True
        """Whether what is asked for has an effect."""
        self.blocking_seconds = BLOCKING_SECONDS
        """How long a call on a thread takes on average."""

    # What the host does with the program.

    def fence(self) -> None:
        """Let nothing that the program does have an effect any more."""
        self.alive = False
        self.resume()

    def pause(self) -> None:
        """Stop the program, as by SIGSTOP."""
        if self._resumed is None:
            self._resumed = anyio.Event()

    def resume(self) -> None:
        """Let the program go on."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.set()

    @property
    def paused(self) -> bool:
        """Return whether the program is stopped."""
        return self._resumed is not None

    def check(self) -> None:
        """Raise `HostDown` if the program does not run any more."""
        if not self.alive:
            raise HostDown

    async def awake(self) -> None:
        """Wait until the program runs: what it does next has an effect now.

        Raises:
            HostDown: It does not run any more.

        """
        while self._resumed is not None:
            await self._resumed.wait()
        self.check()

    # What the program asks for.

    def now(self) -> float:
        """Return the wall clock of the host."""
        return self._clock.wall()

    def monotonic(self) -> float:
        """Return the clock of the host that only goes forward."""
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep for some seconds of the host's clock."""
        self.check()
        await anyio.sleep(self._clock.true_seconds(seconds) + RESOLUTION_SECONDS if seconds > 0 else 0.0)
        await self.awake()

    def random(self) -> float:
        """Return the next number in [0, 1)."""
        return self._chance.random()

    def token_bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        return self._chance.randbytes(count)

    def fsync(self, descriptor: int) -> None:
        """Have the disk take note."""
        self.check()
        self._disk.fsync(descriptor)

    @asynccontextmanager
    async def worker(self, name: str) -> AsyncGenerator[Worker, None]:
        """Own a worker; its calls run one after the other."""
        self.check()
        yield _InlineWorker(self)

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function after a delay."""
        await anyio.lowlevel.checkpoint()
        with anyio.CancelScope(shield=True):
            value = await self.act(partial(function, *args, **kwargs))
        return value  # noqa: RET504 - what a scope may swallow mypy does not take for a return

    async def act(self, function: Callable[[], T]) -> T:
        """Run a function after a delay, if the program still runs by then.

        Raises:
            HostDown: It does not.

        """
        self.check()
        await anyio.sleep(self._delays.expovariate(1.0 / self.blocking_seconds))
        await self.awake()
        return function()


class _InlineWorker(Worker):
    def __init__(self, env: SimEnv) -> None:
        self._env = env
        self._turn = anyio.Lock()

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function when those before it are done."""
        with anyio.CancelScope(shield=True):
            async with self._turn:
                value = await self._env.act(partial(function, *args, **kwargs))
        return value
