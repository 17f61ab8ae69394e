"""An environment on the clock of the event loop: with trio's `MockClock`, minutes pass in no time."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.lowlevel

from khonsu.env import Env, Worker

T = TypeVar("T")
P = ParamSpec("P")

START: Final = 1_767_225_600.0
"""The wall clock at the clock's zero: the first moment of 2026, UTC."""


class VirtualEnv(Env):
    """Time of the event loop, seeded chance, and threads that are waited for.

    A call on a thread is waited for with the event loop standing still. So it takes no time of the event loop, and a
    clock that jumps whenever all tasks wait (`trio.testing.MockClock(autojump_threshold=0)`) does not jump over it.

    Args:
        seed: Of all chance; the tokens are guessable.

    """

    def __init__(self, seed: int = 0) -> None:
        """Begin with a seed."""
        self._chance = random.Random(seed)
        self._thread = threading.local()

    def now(self) -> float:
        """Return the wall clock."""
        return START + self.monotonic()

    def monotonic(self) -> float:
        """Return the clock of the event loop; on a thread, as it was when the call began."""
        frozen: float | None = getattr(self._thread, "now", None)
        return anyio.current_time() if frozen is None else frozen

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop's clock."""
        await anyio.sleep(seconds)

    def random(self) -> float:
        """Return the next number in [0, 1)."""
        return self._chance.random()

    def token_bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        return self._chance.randbytes(count)

    @asynccontextmanager
    async def worker(self, name: str) -> AsyncGenerator[Worker, None]:
        """Own a thread named `khonsu-NAME`."""
        with ThreadPoolExecutor(1, f"khonsu-{name}") as threads:
            yield _Worker(self, threads)

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on a thread of its own."""
        async with self.worker("blocking") as worker:
            return await worker.run(function, *args, **kwargs)

    def freeze(self, now: float) -> None:
        """Have the clock stand still on this thread."""
        self._thread.now = now


class _Worker(Worker):
    def __init__(self, env: VirtualEnv, threads: ThreadPoolExecutor) -> None:
        self._env = env
        self._threads = threads

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the thread."""
        await anyio.lowlevel.checkpoint()
        now = self._env.monotonic()

        def call() -> T:
            self._env.freeze(now)
            return function(*args, **kwargs)

        return self._threads.submit(call).result()
