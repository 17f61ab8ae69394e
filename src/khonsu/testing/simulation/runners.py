"""Running a program on a virtual clock, in an order that the seed decides: on trio, and on asyncio."""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, Protocol, TypeVar

import anyio

from khonsu.testing.simulation.loop import Deadlock, SimulatedLoop

T = TypeVar("T")
IDLE_MAX: Final = 1000
RunnerName = Literal["trio", "asyncio"]


class Run(Protocol):
    """What runs a program."""

    def __call__(self, seed: str, main: Callable[[], Awaitable[T]], /) -> T:
        """Run a program to its end, and return what it returns."""


def run_trio(seed: str, main: Callable[[], Awaitable[T]], /) -> T:
    """Run a program on trio. Its clock jumps whenever everybody waits.

    Raises:
        Deadlock: Everybody waits, and not for the clock.

    """
    from trio.abc import Clock

    scope: anyio.CancelScope | None = None

    class JumpingClock(Clock):
        """A clock that stands still while anybody runs."""

        def __init__(self) -> None:
            self._now = 0.0
            self._idle = 0

        def start_clock(self) -> None:
            """Begin at time zero."""

        def current_time(self) -> float:
            return self._now

        def deadline_to_sleep_time(self, deadline: float) -> float:
            """Jump to a deadline; trio asks when nothing is ready, and there are no threads that could change that."""
            if not math.isinf(deadline):
                self._now = max(self._now, deadline)
            elif scope is not None and not scope.cancel_called:
                scope.cancel()
            else:
                self._idle += 1  # trio itself waits for its own socket now and then
                if self._idle > IDLE_MAX:
                    raise Deadlock  # those who wait cannot even be cancelled
            return 0.0

    async def cancellable() -> T:
        nonlocal scope
        with anyio.CancelScope() as scope:
            return await main()
        raise Deadlock

    with _quiet(), _trio_order(random.Random(f"order/{seed}")):
        return anyio.run(cancellable, backend="trio", backend_options={"clock": JumpingClock()})


def run_asyncio(seed: str, main: Callable[[], Awaitable[T]], /) -> T:
    """Run a program on a loop of our own for asyncio. Its clock jumps whenever everybody waits.

    Raises:
        Deadlock: Everybody waits, and not for the clock.

    """
    chance = random.Random(f"order/{seed}")
    with _quiet():
        return anyio.run(main, backend="asyncio", backend_options={"loop_factory": lambda: SimulatedLoop(chance)})


RUNNERS: Final[dict[RunnerName, Run]] = {"trio": run_trio, "asyncio": run_asyncio}


@contextmanager
def _trio_order(chance: random.Random) -> Iterator[None]:
    """Have trio sort what is ready by its age, and shuffle it by our chance."""
    from trio._core import _run

    internals: Any = _run
    before = internals._r, internals._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001
    internals._r, internals._ALLOW_DETERMINISTIC_SCHEDULING = chance, True  # noqa: SLF001
    try:
        yield
    finally:
        internals._r, internals._ALLOW_DETERMINISTIC_SCHEDULING = before  # noqa: SLF001


@contextmanager
def _quiet() -> Iterator[None]:
    """Let no garbage be collected in between: a finalizer would run at some moment or other."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
