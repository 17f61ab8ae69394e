"""A control plane that is killed at every step of a job's life, with an agent that goes on."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from attrs import evolve

from khonsu.agent.agent import Agent
from khonsu.core.job import Job, Update
from khonsu.core.states import AllocationStatus, NodeStatus
from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.transports.http import HTTPTransport
from tests.faults.program import Eager
from tests.faults.running import Kept, a_client, again, alive, until, words

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from khonsu.client.client import Client
    from tests.faults.running import Forks

pytestmark = [pytest.mark.anyio, pytest.mark.end_to_end, pytest.mark.timeout(180)]

A = AllocationStatus
NAMED = ("before job.submit", "after job.submit", "before job.stop", "after job.stop", "before node.sync")


def a_job(name: str, folder: Path) -> Job:
    """Return a service of two copies, each of which says who it is in a file of the folder when it starts."""
    script = f'echo $KHONSU_SLOT $$ >> "{folder}/{name}"; exec sleep 1000'
    config = BinaryConfig("sh", args=["-c", script])
    return Job.single(name, config, count=2, update=Update(healthy_for=0.0), disk="1MiB")


async def live(client: Client, name: str, folder: Path) -> None:
    """Let a job run and stop it, whatever becomes of the control plane; then see that all was done once."""
    job = a_job(name, folder)
    submission = await again(partial(client.submit, job, idempotency_key=name))
    assert (submission.outcome, submission.version) == ("created", 1)
    result = await again(partial(client.wait, name, timeout="40s"))
    assert result.status == "healthy", result
    told = await words(folder / name, 4)
    started = [told[at : at + 2] for at in range(0, len(told), 2)]
    running = {str(one.slot): str(one.tasks[0].pid) for one in result.allocations}
    assert len(started) == 2
    assert sorted(started) == sorted([slot, pid] for slot, pid in running.items())
    assert {(one.status, one.tasks[0].attempt) for one in result.allocations} == {(A.RUNNING, 1)}
    info = await again(partial(client.stop, name))
    assert info.stopped
    await stopped(client, name)
    copies = await again(partial(client.allocations, job=name))
    assert [(one.slot, one.version) for one in sorted(copies, key=lambda one: one.slot)] == [(0, 1), (1, 1)]
    assert len((folder / name).read_text().splitlines()) == 2
    assert not any(alive(int(pid)) for pid in running.values())


async def stopped(client: Client, name: str) -> None:
    """Wait until every copy of a job has stopped."""

    async def look() -> bool:
        return {one.status for one in await client.allocations(job=name)} == {A.STOPPED}

    await until(partial(again, look))


@asynccontextmanager
async def a_cluster(forked: Forks, folder: Path, *named: str) -> AsyncGenerator[tuple[Kept, Client], None]:
    """Own a control plane that is killed now and then, and an agent that is not."""
    server = folder / "server"
    kept = Kept(forked, *named, run="control", folder=str(server), listen="127.0.0.1:0")
    async with anyio.create_task_group() as group:
        await group.start(kept.run)
        async with a_client(server, kept.address) as client:
            token = (await client.invite_node(name="one")).token
            transport = HTTPTransport(kept.address)
            settings: dict[str, Any] = {"transport": transport, "drivers": [BinaryDriver()], "join_token": token}
            async with Agent("one", data_dir=folder / "agent", on_exit="stop", env=Eager(), **settings):
                yield kept, client
        group.cancel_scope.cancel()


async def test_killed_at_every_step_of_a_jobs_life(forked: Forks, tmp_path: Path) -> None:
    """Wherever it dies, the job is submitted once, each copy runs once and undisturbed, and it ends when it should."""
    async with a_cluster(forked, tmp_path, *NAMED) as (kept, client):
        async for name in kept.lives():
            await live(client, name, tmp_path)
        (node,) = await again(client.nodes)
        assert node.status is NodeStatus.READY
    assert {*NAMED, "before a commit", "after a commit", "after node.sync"} <= set(kept.killed)


async def replace(client: Client, key: str, version: int, folder: Path) -> None:
    """Submit another version, and see that in the end each slot has one copy of it and nothing else runs."""
    job = evolve(a_job("rolls", folder), meta={"version": str(version)})
    submission = await again(partial(client.submit, job, idempotency_key=key))
    assert submission.version == version
    result = await again(partial(client.wait, submission, timeout="40s"))
    assert result.status == "healthy", result
    assert [(one.slot, one.version) for one in result.allocations] == [(0, version), (1, version)]

    async def settled() -> bool:
        told = await words(folder / "rolls", 4 * version)
        running = [pid for pid in told[1::2] if alive(int(pid))]
        copies = [one for one in await again(partial(client.allocations, job="rolls")) if one.live]
        return sorted(running) == sorted(str(one.tasks[0].pid) for one in copies) and len(copies) == 2

    await until(settled)
    assert len((folder / "rolls").read_text().split()) == 4 * version


async def test_killed_at_every_step_of_a_replacement(forked: Forks, tmp_path: Path) -> None:
    """Wherever it dies, each slot has one copy of the new version in the end, started once, and none of the old one."""
    async with a_cluster(forked, tmp_path) as (kept, client):
        await replace(client, "first", 1, tmp_path)
        version = 1
        async for key in kept.lives():
            version += 1
            await replace(client, key, version, tmp_path)
    assert {"before a commit", "after a commit", "after node.sync"} <= set(kept.killed)
