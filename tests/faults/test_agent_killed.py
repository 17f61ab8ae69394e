"""An agent that is killed at every step of a task's life, with a control plane that goes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from khonsu.api.listener import HTTPListener
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Job, Reschedule, Restart, Update
from khonsu.core.states import AllocationStatus, JobType
from khonsu.drivers.binary import BinaryConfig
from khonsu.stores.memory import MemoryStore
from tests.faults.running import Kept, alive, words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from khonsu.client.client import Client
    from tests.faults.running import Forks

pytestmark = [pytest.mark.anyio, pytest.mark.end_to_end, pytest.mark.timeout(180)]

A = AllocationStatus
ONCE: dict[str, Any] = {"restart": Restart(attempts=0), "reschedule": Reschedule(attempts=0)}
ANY = ("before the journal", "after the journal", "before a request", "after a request")
START = ("before it hears Begin", "before it hears Prepared", "before spawn", "after spawn", "before it hears Started")
STOP = ("before it hears Ended", "before stop", "after stop")
END = ("before it hears Exited",)


def a_job(name: str, folder: Path, *, type: JobType) -> Job:
    """Return a job whose copy says its pid in a file, and ends with code 7 when somebody writes into a FIFO."""
    os.mkfifo(folder / f"{name}.fifo")
    script = f'echo $$ >> "{folder}/{name}"; read line < "{folder}/{name}.fifo"; exit 7'
    config = BinaryConfig("sh", args=["-c", script])
    more: dict[str, Any] = {"update": Update(healthy_for=0.0)} if type is JobType.SERVICE else {}
    return Job.single(name, config, type=type, disk="1MiB", **ONCE, **more)


async def until(client: Client, name: str, *statuses: AllocationStatus) -> int:
    """Wait until the one copy of a job has a status; return the pid that it was reported with.

    A copy of which the agent had noted nothing when it was killed is lost: it was not started, and another one is.
    """
    while True:
        copies = await client.allocations(job=name)
        assert not any(task.pid for one in copies if one.status is A.LOST for task in one.tasks)
        there = [one for one in copies if one.status is not A.LOST]
        assert len(there) <= 1
        if there and there[0].status in statuses:
            assert there[0].tasks[0].attempt == 1
            return there[0].tasks[0].pid or 0
        assert not any(one.status.terminal for one in there), there
        await anyio.sleep(0.02)


async def a_task_ends(client: Client, folder: Path, name: str) -> None:
    """Let a task run and end by itself."""
    await client.submit(a_job(name, folder, type=JobType.BATCH))
    pid = await until(client, name, A.RUNNING)
    await anyio.to_thread.run_sync((folder / f"{name}.fifo").write_text, "go\n")
    result = await client.wait(name)
    (copy,) = [one for one in result.allocations if one.status is not A.LOST]
    assert (result.status, copy.status, copy.tasks[0].exit_code, copy.tasks[0].signal) == ("failed", A.FAILED, 7, None)
    assert (folder / name).read_text().split() == [str(pid)]
    assert not alive(pid)


async def a_task_is_stopped(client: Client, folder: Path, name: str) -> None:
    """Let a task run and stop it."""
    await client.submit(a_job(name, folder, type=JobType.SERVICE))
    await client.wait(name)
    pid = await until(client, name, A.RUNNING)
    await words(folder / name, 1)
    await client.stop(name)
    await until(client, name, A.STOPPED)
    assert (folder / name).read_text().split() == [str(pid)]
    assert not alive(pid)


async def killed(
    forked: Forks, live: Callable[[Client, Path, str], Awaitable[None]], folder: Path, *named: str
) -> set[str]:
    """Live the lives of jobs until one is over before the agent dies; return the steps at which it did."""
    jobs = folder / "jobs"
    jobs.mkdir()
    async with (
        ControlPlane(store=MemoryStore(), listeners=[HTTPListener("127.0.0.1:0")]) as plane,
        plane.client() as client,
        anyio.create_task_group() as group,
    ):
        token = (await plane.invite(name="one")).reveal()
        kept = Kept(forked, *named, run="agent", folder=str(folder / "agent"), server=plane.addresses[0], token=token)
        await group.start(kept.run)
        async for name in kept.lives():
            with anyio.fail_after(40):
                await live(client, jobs, name)
        group.cancel_scope.cancel()
    return set(kept.killed)


async def test_killed_while_a_task_starts_runs_and_ends(forked: Forks, tmp_path: Path) -> None:
    """Wherever the agent dies, the task is started once, is the same process, and its exit code is told."""
    steps = await killed(forked, a_task_ends, tmp_path, *ANY, *START, *END)
    assert {*ANY, *START, *END} <= steps


async def test_killed_while_a_task_is_stopped(forked: Forks, tmp_path: Path) -> None:
    """Wherever the agent dies, the task is started once, and stopped when it is to be; nothing is left of it."""
    steps = await killed(forked, a_task_is_stopped, tmp_path, *ANY, *STOP, *END)
    assert {*ANY, *STOP, *END} <= steps
