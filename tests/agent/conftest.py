"""Nodes for the tests of the agent."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from khonsu.agent.agent import Agent
from khonsu.core.states import JobType
from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.env import SystemEnv
from khonsu.testing import FakeConfig, FakeDriver, FakeMachine
from tests.agent.desk import Desk
from tests.agent.samples import a_group, a_task, an_assignment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator


class Hasty(SystemEnv):
    """A clock on which a minute passes in a second."""

    HASTE = 60.0

    def monotonic(self) -> float:
        return super().monotonic() * self.HASTE

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / self.HASTE)


class Home:
    """A node: its folder, its machine, its control plane, and agents on it, one after the other."""

    def __init__(self, folder: Path, desk: Desk) -> None:
        self.folder = folder
        self.machine = FakeMachine()
        self.desk = desk

    def agent(self, **changes: Any) -> Agent:
        """Return an agent; another one on the same folder is the same node."""
        settings: dict[str, Any] = {
            "transport": self.desk.transport(),
            "drivers": [FakeDriver(self.machine), BinaryDriver()],
            "data_dir": self.folder,
            **changes,
        }
        return Agent("home", **settings)

    def want(
        self,
        key: str,
        config: FakeConfig | BinaryConfig | None = None,
        *,
        type: JobType = JobType.SERVICE,
        task: dict[str, Any] | None = None,
        assignment: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """Want a copy of a group of one task; `fields` are the group's."""
        config = config if config is not None else FakeConfig()
        group = a_group(a_task(config=config, driver=config.driver, **(task or {})), **fields)
        self.desk.assign(an_assignment(key, type=type, group=f"default/{key}/1/main", **(assignment or {})), group)


@pytest.fixture
async def home(data_dir: Path) -> AsyncGenerator[Home, None]:
    """Return a node."""
    async with anyio.create_task_group() as group:
        yield Home(data_dir, Desk(group))
        group.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def no_task_left(data_dir: Path) -> Iterator[None]:
    """Fail a test that leaves a task running."""
    yield
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            if str((process / "cwd").readlink()).startswith(str(data_dir)) and (process / "cmdline").read_bytes():
                left.append((process / "cmdline").read_bytes())
                os.kill(int(process.name), signal.SIGKILL)
    assert left == []
