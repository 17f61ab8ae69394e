from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from khonsu.testing import Counterpart, check_transport
from khonsu.testing.simulation.clock import HostClock
from khonsu.testing.simulation.env import SimEnv
from khonsu.testing.simulation.network import Network
from khonsu.testing.simulation.runners import RUNNERS, RunnerName
from khonsu.testing.simulation.transport import SimListener, SimTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class NoDisk:
    def fsync(self, descriptor: int) -> None:
        """Forget."""


def env() -> SimEnv:
    """Return the environment of a program that uses no disk."""
    return SimEnv(HostClock(random.Random(1)), NoDisk(), chance=random.Random(2), delays=random.Random(3))


async def check() -> None:
    """Check the transport on a network of its own."""
    async with anyio.create_task_group() as group:
        network = Network(random.Random(4), group, lambda *_: None)

        @asynccontextmanager
        async def served(handler: Counterpart) -> AsyncGenerator[SimTransport, None]:
            async with SimListener(network, "control", env()).serve(handler):
                yield SimTransport(network, "somebody", "control", env())

        await check_transport(served)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_simulated_transport_keeps_the_promises_of_the_interface(runner: RunnerName) -> None:
    """It passes the check of every transport, on both event loops."""
    RUNNERS[runner]("check", check)
