"""Workers: what they do while a disk is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from khonsu.control.plane import WORKERS
from khonsu.stores.memory import MemoryStore
from khonsu.stores.wrapper import StoreWrapper
from tests.control.cluster import cluster, service

if TYPE_CHECKING:
    from collections.abc import Callable

    from khonsu.abc.store import Commit, Transaction

pytestmark = pytest.mark.anyio

JOBS = 3 * WORKERS


class Slow(StoreWrapper):
    """A store whose disk takes its time until it is told to go on."""

    held: anyio.Event | None = None

    async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
        """Wait, then write."""
        if self.held is not None:
            await self.held.wait()
        return await super().write(transaction)


async def test_jobs_are_decided_while_earlier_decisions_are_on_their_way_to_the_disk() -> None:
    """More jobs are placed than there are workers before the disk has taken the first of them, and none is told so."""
    store = Slow(MemoryStore())
    async with cluster(store) as home, anyio.create_task_group() as group:
        await home.running("a")
        before = await home.plane.parts.state.settled()
        store.held = anyio.Event()
        for number in range(JOBS):
            group.start_soon(home.client.submit, service(f"job-{number}", cpu=1))
        with anyio.fail_after(10):
            while home.tables.allocations.live < JOBS:  # noqa: ASYNC110 - nobody is told of what is not on the disk
                await anyio.sleep(0.001)
        assert home.plane.parts.state.durable == before
        store.held.set()
