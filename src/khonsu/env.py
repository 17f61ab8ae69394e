"""The environment: the only source of time, chance and worker threads.

Everything that is not a pure function takes an `Env`. The system's is `SystemEnv`; a simulation passes its own,
with a virtual clock, seeded chance and threads that run inline.
"""

from __future__ import annotations

import fcntl
import gc
import os
import random
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar, cast

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")
P = ParamSpec("P")

LEAVE_SECONDS = 0.2
"""How long a call that is left may still take to end."""

COLLECTOR_THRESHOLDS = (50_000, 10, 10)
"""Of Python's garbage collector, in objects and in collections of the generation below."""


class Worker(ABC):
    """A thread of its own: calls run there one after the other, in the order of their arrival."""

    @abstractmethod
    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the worker and return its result; once begun it is not cancelled."""

    async def run_within(self, seconds: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function of a stranger on the worker, and leave it to itself if it takes too long or is cancelled.

        A worker that was left takes no more calls, and nobody waits for it at the end of its block. One whose calls
        cannot be left runs them to their end.

        Raises:
            TimeoutError: It took longer than so many seconds; the worker is left.

        """
        del seconds
        return await self.run(function, *args, **kwargs)

    @property
    def left(self) -> bool:
        """Return whether the worker was left with a call that did not end."""
        return False


class Env(ABC):
    """Time, chance, ids and threads."""

    @abstractmethod
    def now(self) -> float:
        """Return the wall clock, in seconds since 1970 UTC; it may step."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return a clock in seconds that never steps and also runs while the machine is suspended."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Sleep."""

    @abstractmethod
    def random(self) -> float:
        """Return a number in [0, 1)."""

    @abstractmethod
    def token_bytes(self, count: int) -> bytes:
        """Return unguessable bytes."""

    @abstractmethod
    def worker(self, name: str) -> AbstractAsyncContextManager[Worker]:
        """Own a worker thread for the length of a block."""

    @abstractmethod
    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that blocks on some thread and return its result; once begun it is not cancelled."""

    def fsync(self, descriptor: int) -> None:
        """Wait until what was written to a file, or what a folder lists, survives a power cut. Blocks.

        Raises:
            OSError: The disk does not say so.

        """
        sync(descriptor)

    def utc_now(self) -> datetime:
        """Return the wall clock as an aware datetime."""
        return datetime.fromtimestamp(self.now(), UTC)

    def jittered(self, seconds: float, share: float = 0.2) -> float:
        """Return a duration moved by up to `share` of itself in either direction."""
        return seconds * (1.0 + share * (2.0 * self.random() - 1.0))


class _Call(Generic[T]):
    """One call on its way to a worker thread and back."""

    __slots__ = ("done", "error", "function", "value")

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.done = anyio.Event()
        self.value: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the function and keep what came of it."""
        try:
            self.value = self.function()
        except BaseException as error:  # noqa: BLE001 - carried to the caller, whatever it is
            self.error = error

    def result(self) -> T:
        """Return what the function returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


class _ThreadWorker(Worker):
    """A real thread, fed by a queue."""

    def __init__(self, token: anyio.lowlevel.EventLoopToken) -> None:
        self._token = token
        self._calls: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._left = False

    @property
    def left(self) -> bool:
        """Return whether the thread was left with a call that did not end."""
        return self._left

    def serve(self) -> None:
        """Run calls until told to end."""
        while (call := self._calls.get()) is not None:
            call.run()
            try:
                anyio.from_thread.run_sync(call.done.set, token=self._token)
            except RuntimeError:  # the event loop has ended: nobody waits for what was left
                if not self._left:
                    raise

    def end(self) -> None:
        """Let the thread end after the calls before this one."""
        self._calls.put(None)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the thread."""
        call = _Call(lambda: function(*args, **kwargs))
        with anyio.CancelScope(shield=True):
            self._calls.put(call)
            await call.done.wait()
        return call.result()

    async def run_within(self, seconds: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the thread, or leave the thread to it."""
        call = _Call(lambda: function(*args, **kwargs))
        self._calls.put(call)
        try:
            with anyio.move_on_after(seconds):
                await call.done.wait()
        finally:
            if not call.done.is_set():
                # What is nearly done may end, so that seldom anything runs on behind a block that was left.
                with anyio.move_on_after(LEAVE_SECONDS, shield=True):
                    await call.done.wait()
            self._left = not call.done.is_set()
        if self._left:
            raise TimeoutError(f"a call took longer than {seconds:g} s")
        return call.result()


class SystemEnv(Env):
    """The machine's own clocks, chance and threads."""

    def __init__(self) -> None:
        """Choose the clock that runs during suspend."""
        # macOS: CLOCK_MONOTONIC_RAW stands still in sleep, CLOCK_MONOTONIC there does not.
        self._clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._chance = random.Random(secrets.randbits(64))

    def now(self) -> float:
        """Return the wall clock."""
        return time.time()

    def monotonic(self) -> float:
        """Return the clock that also runs during suspend."""
        return time.clock_gettime(self._clock)

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop's clock."""
        await anyio.sleep(seconds)

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return self._chance.random()

    def token_bytes(self, count: int) -> bytes:
        """Return bytes of the operating system's generator."""
        return secrets.token_bytes(count)

    @asynccontextmanager
    async def worker(self, name: str) -> AsyncGenerator[Worker, None]:
        """Own a thread named `khonsu-NAME`."""
        worker = _ThreadWorker(anyio.lowlevel.current_token())
        thread = threading.Thread(target=worker.serve, name=f"khonsu-{name}", daemon=True)
        thread.start()
        try:
            yield worker
        finally:
            worker.end()
            if not worker.left:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(thread.join)

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on a pooled thread."""
        return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs))


def sync(descriptor: int) -> None:
    """Wait for the disk; on macOS `fsync` alone does not."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def boot_id() -> str:
    """Return what changes with every boot of this machine: the kernel's boot id, else its boot time."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - not a user's path
            return file.read().strip()
    except OSError:
        return str(int(time.time() - time.clock_gettime(time.CLOCK_MONOTONIC))) + f"-{os.uname().nodename}"


def calm_collector() -> None:
    """Have Python look for garbage seldom, and never again among what is there now.

    Hundreds of requests are held at a time, and each looks like garbage to come: the collector would stop everything
    for a tenth of a second, every second or two, and find none. This is for processes that are Khonsu's own, as those
    of the command line are; the library leaves the collector to the user.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
