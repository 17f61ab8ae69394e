from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from trio.testing import MockClock

from khonsu.abc.scheduler import scheduler
from khonsu.agent.agent import Agent
from khonsu.core.arrays import FloatArray
from khonsu.core.ask import Ask
from khonsu.core.fleet import Fleet
from khonsu.core.leases import TTL_SECONDS
from khonsu.core.states import AllocationStatus
from khonsu.testing import FakeDriver, FakeMachine, VirtualEnv
from tests.control.cluster import Cluster, cluster, service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = pytest.mark.anyio

A = AllocationStatus


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Run on a clock that jumps to the next thing that happens."""
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture
async def home() -> AsyncGenerator[Cluster, None]:
    """Return a cluster on the virtual clock."""
    async with cluster(env=VirtualEnv()) as made:
        yield made


async def test_the_copies_of_a_killed_node_run_elsewhere_in_time(home: Cluster, tmp_path: Path) -> None:
    """A node is killed with its agent: its copies run elsewhere within the time to live and two seconds."""
    machines = {name: FakeMachine() for name in ("a", "b")}
    scopes = {name: anyio.CancelScope() for name in machines}

    async def host(name: str) -> None:
        with scopes[name]:
            agent = Agent(
                name,
                transport=home.plane.transport(),
                drivers=[FakeDriver(machines[name])],
                data_dir=tmp_path / name,
                env=VirtualEnv(),
            )
            async with agent:
                await anyio.sleep_forever()

    for name in machines:
        home.group.start_soon(host, name)
    await home.client.wait_for_nodes(2)
    await home.client.wait(await home.client.submit(service(count=4, cpu=10)))
    victim = next(one.node for one in home.copies())
    survivor = next(name for name in machines if name != victim)
    killed_at = anyio.current_time()
    scopes[victim].cancel()
    machines[victim].crash()
    await home.until(lambda: sum(one.node == survivor for one in home.copies("web", A.RUNNING)) == 4, seconds=60.0)
    assert anyio.current_time() - killed_at <= TTL_SECONDS + 2.0


@scheduler("broken")
def broken(ask: Ask, fleet: Fleet) -> FloatArray:
    """Fail."""
    raise ZeroDivisionError("a stranger's mistake")


async def test_a_job_that_cannot_be_decided_is_looked_at_less_and_less_often() -> None:
    """An hour of failures is a handful of tries and not seven hundred; a fault that passes begins anew."""
    async with cluster(env=VirtualEnv(), schedulers=[broken]) as home:
        await home.running("a")
        await home.client.submit(service(scheduler="broken"))
        await anyio.sleep(3600.0)
        assert 10 <= len(await home.events("evaluation-failed")) <= 25
        await home.client.submit(service())
        assert (await home.client.wait("web")).status == "healthy"
