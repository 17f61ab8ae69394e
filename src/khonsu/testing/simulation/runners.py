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
    import trio
    from trio.testing import MockClock

    clock = MockClock(autojump_threshold=0)
    jump = clock._autojump  # noqa: SLF001
    scope: anyio.CancelScope | None = None

    async def cancellable() -> T:
        nonlocal scope
        with anyio.CancelScope() as scope:
            return await main()
        raise Deadlock

    def jump_or_end() -> None:
        if not math.isinf(trio.lowlevel.current_statistics().seconds_to_next_deadline):
            jump()
        elif scope is not None and not scope.cancel_called:
            scope.cancel()
        else:
            raise Deadlock  # those who wait cannot even be cancelled

    clock._autojump = jump_or_end  # type: ignore[method-assign] # noqa: SLF001
    with _quiet(), _trio_order(random.Random(f"order/{seed}")):
        return anyio.run(cancellable, backend="trio", backend_options={"clock": clock})


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
