from __future__ import annotations

import anyio
import pytest

from khonsu.testing.simulation.loop import Deadlock
from khonsu.testing.simulation.runners import RUNNERS, RunnerName

pytestmark = pytest.mark.parametrize("runner", RUNNERS)


async def race() -> tuple[list[int], float]:
    """Return in which order tasks came by, and how late it is."""
    order: list[int] = []

    async def run(number: int) -> None:
        for _ in range(3):
            await anyio.sleep(60.0 * (number % 3))
            order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(run, number)
    with anyio.move_on_after(3600.0):
        await anyio.sleep_forever()
    return order, anyio.current_time()


def test_a_seed_gives_one_order(runner: RunnerName) -> None:
    """The same seed gives the same order, and another one another; time is virtual."""
    run = RUNNERS[runner]
    assert run("1", race) == run("1", race)
    assert len({tuple(run(str(seed), race)[0]) for seed in range(5)}) > 1
    assert run("1", race)[1] == pytest.approx(360.0 + 3600.0)


async def cancelled() -> list[int]:
    """Return in which order tasks of one scope hear that it is cancelled."""
    order: list[int] = []

    async def wait(number: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(wait, number)
        await anyio.sleep(1.0)
        # Things of many sizes in between: where the tasks are in memory must not matter.
        _ = [bytearray(size) for size in range(1000)]
        group.cancel_scope.cancel()
    return order


def test_a_cancelled_group_ends_in_the_order_of_the_seed(runner: RunnerName) -> None:
    """A scope that is cancelled tells its tasks in an order that depends on the seed only."""
    run = RUNNERS[runner]
    assert run("1", cancelled) == run("1", cancelled)
    assert run("1", cancelled) != run("2", cancelled)


def test_who_waits_for_nothing_is_told(runner: RunnerName) -> None:
    """A program that can never go on ends with an error, and not never."""

    async def wait() -> None:
        await anyio.Event().wait()

    with pytest.raises(Deadlock):
        RUNNERS[runner]("1", wait)
