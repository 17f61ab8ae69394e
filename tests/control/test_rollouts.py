"""On a clock that jumps, so that an update that takes minutes costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from trio.testing import MockClock

from khonsu.core.job import Update
from khonsu.core.states import AllocationStatus
from khonsu.testing import VirtualEnv
from tests.control.cluster import Cluster, Node, cluster, service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

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


async def updated(home: Cluster, cpu: int = 500, **update: object) -> tuple[Node, str]:
    """Run two copies of a service, submit another version of it, and return the node and how the update ended."""
    [node] = await home.running("a")
    policy = Update(healthy_for=0.0, **update)  # type: ignore[arg-type]
    first = await home.client.submit(service(count=2, cpu=cpu, update=policy, command="one"))
    assert (await home.client.wait(first)).status == "healthy"
    node.most = 0
    second = await home.client.submit(service(count=2, cpu=cpu, update=policy, command="two"))
    return node, (await home.client.wait(second, timeout="1h")).status


async def test_start_first_keeps_all_copies_up(home: Cluster) -> None:
    """A new copy runs beside the old one before that stops."""
    node, status = await updated(home)
    assert status == "healthy"
    await home.until(lambda: len(home.copies("web", A.STOPPED)) == 2)
    assert node.most == 3
    assert {one.version for one in home.copies()} == {2}
    assert (await home.client.job("web")).stable_version == 2


async def test_stop_first_never_runs_more(home: Cluster) -> None:
    """The old copy of a slot stops before the new one starts."""
    node, status = await updated(home, start_first=False)
    assert status == "healthy"
    assert node.most == 2
    assert {one.version for one in home.copies()} == {2}


async def test_without_room_the_old_copy_stops_first(home: Cluster) -> None:
    """A full cluster is updated all the same."""
    node, status = await updated(home, cpu=2000)
    assert status == "healthy"
    assert node.most == 2
    assert {one.version for one in home.copies()} == {2}


@pytest.mark.parametrize("start_first", [True, False])
async def test_a_failed_update_goes_back(home: Cluster, start_first: bool) -> None:
    """The last stable version is made the present one again, as a new version, and all copies do its work."""
    [node] = await home.running("a")
    policy = Update(healthy_for=0.0, start_first=start_first)
    await home.client.wait(await home.client.submit(service(count=2, cpu=500, update=policy)))
    node.act = lambda one: "sick" if one.version == 2 else "run"
    bad = await home.client.submit(service(count=2, cpu=500, update=policy, command="bad"))
    assert (await home.client.wait(bad, timeout="1h")).status == "reverted"
    await home.until(
        lambda: [one.version for one in home.copies("web", A.RUNNING)] == [3, 3] and len(home.copies()) == 2,
        seconds=600.0,
    )
    info = await home.client.job("web")
    assert info.version == 3
    assert info.spec is not None
    assert info.spec.groups[0].tasks[0].env == {"COMMAND": "serve"}
    [version, *_] = await home.client.history("web")
    assert (version.origin, version.failed_version) == ("revert", 2)
    await anyio.sleep(60.0)
    assert (await home.client.job("web")).version == 3


async def test_a_failed_update_may_stay_failed(home: Cluster) -> None:
    """Without `auto_revert` the update stops, and the old copies that are left run on."""
    [node] = await home.running("a")
    policy = Update(healthy_for=0.0, auto_revert=False)
    await home.client.wait(await home.client.submit(service(count=2, cpu=500, update=policy)))
    node.act = lambda one: "sick" if one.version == 2 else "run"
    bad = await home.client.submit(service(count=2, cpu=500, update=policy, command="bad"))
    result = await home.client.wait(bad, timeout="1h")
    assert result.status == "failed"
    assert sum(one.version == 1 for one in home.copies("web", A.RUNNING)) == 2
    info = await home.client.job("web")
    assert (info.version, info.rollout is not None and info.rollout.status) == (2, "failed")


async def test_an_update_is_bounded_by_max_parallel(home: Cluster) -> None:
    """No more slots are between two copies than the job allows."""
    [node] = await home.running("a")
    policy = Update(healthy_for=0.0, max_parallel=2)
    await home.client.wait(await home.client.submit(service(count=4, cpu=500, update=policy)))
    node.act = lambda one: "starts" if one.version == 2 else "run"
    await home.client.submit(service(count=4, cpu=500, update=policy, command="two"))
    await home.until(lambda: len(home.copies("web", A.STARTING)) == 2)
    await anyio.sleep(30.0)
    assert len(home.copies("web", A.STARTING)) == 2
    assert len(home.copies("web", A.RUNNING)) == 4


async def test_what_does_the_same_work_is_not_replaced(home: Cluster) -> None:
    """A change that no copy can see labels them anew and stops nothing."""
    [node] = await home.running("a")
    await home.client.wait(await home.client.submit(service(count=2)))
    started = set(node.wanted)
    await home.client.wait(await home.client.submit(service(count=2, priority=80)))
    await home.until(lambda: {one.version for one in home.copies()} == {2})
    assert {one.id for one in home.copies()} == started
