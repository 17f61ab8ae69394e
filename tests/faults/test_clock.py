"""Wall clocks that somebody sets, under a control plane and an agent with real tasks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from khonsu.agent.agent import Agent
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Job, Restart, Update
from khonsu.core.states import AllocationStatus, NodeStatus
from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.env import SystemEnv
from khonsu.stores.sqlite import SQLiteStore
from tests.faults.running import until

if TYPE_CHECKING:
    from pathlib import Path

    from khonsu.client.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.end_to_end]

A = AllocationStatus
DAY = 86_400.0


class Settable(SystemEnv):
    """A wall clock that can be set; the other clock does not step."""

    stepped_seconds = 0.0

    def now(self) -> float:
        """Return the wall clock as it was set."""
        return super().now() + self.stepped_seconds


async def ended(client: Client, job: str) -> bool:
    """Return whether the copy of a job has ended."""
    return any(one.status.terminal for one in await client.allocations(job=job))


@pytest.mark.parametrize("step", [DAY, -DAY], ids=["forward", "back"])
async def test_a_clock_that_steps_by_a_day(step: float, tmp_path: Path) -> None:
    """No lease ends and no invitation runs out, nothing is started again, and no task ends before it began."""
    env = Settable()
    settings: dict[str, Any] = {"drivers": [BinaryDriver()], "data_dir": tmp_path / "agent", "env": env}
    async with (
        ControlPlane(store=SQLiteStore(tmp_path / "state.db"), env=env) as plane,
        plane.client() as client,
        Agent("one", transport=plane.transport(), on_exit="stop", **settings),
    ):
        service = Job.single("stays", BinaryConfig("sleep", args=["1000"]), update=Update(healthy_for=0.0), disk="1MiB")
        before = await client.run(service, timeout="30s")
        (node,) = await client.nodes()
        token = await plane.invite(name="two")
        env.stepped_seconds = step
        for name in ("first", "second"):
            work = Job.single(name, BinaryConfig("true"), type="batch", restart=Restart(attempts=0), disk="1MiB")
            result = await client.run(work, timeout="30s")
            await until(partial(ended, client, name))
            (task,) = (await client.allocation(result.allocations[0].id)).tasks
            assert result.status == "complete"
            assert task.started_at is not None
            assert task.finished_at is not None
            assert task.started_at <= task.finished_at
        (same,) = await client.nodes()
        assert (same.status, same.status_at) == (NodeStatus.READY, node.status_at)
        (copy,) = await client.allocations(job="stays")
        assert (copy.id, copy.status, copy.tasks) == (
            before.allocations[0].id,
            A.RUNNING,
            before.allocations[0].tasks,
        )
        async with client.events(follow=False) as events:
            told = [event.at async for event in events]
        assert told == sorted(told)
        assert told[-1] - told[0] < DAY / 2
        second = {**settings, "data_dir": tmp_path / "two"}
        async with Agent("two", transport=plane.transport(), join_token=token, on_exit="stop", **second):
            assert len(await client.wait_for_nodes(2)) == 2
