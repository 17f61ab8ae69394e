from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from khonsu.abc.driver import TaskContext
from khonsu.core.job import Task
from khonsu.errors import DriverError
from khonsu.testing import FakeConfig, FakeDriver, check_driver
from khonsu.testing.simulation.clock import HostClock
from khonsu.testing.simulation.processes import ProcessTable, SimSupervisor, Watchers
from khonsu.testing.simulation.runners import RUNNERS, RunnerName
from tests.simulation.test_transport import env

if TYPE_CHECKING:
    from khonsu.testing.fake_driver import FakeProcess

RUNNING = FakeConfig(stop_seconds=0.1)


class Table:
    """A table of processes, and what it tells."""

    def __init__(self) -> None:
        self.clock = HostClock(random.Random(1))
        self.told: list[str] = []
        self.table = ProcessTable("home", self.clock, Watchers(ended=self._ended))

    def _ended(self, host: str, process: FakeProcess, how: str) -> None:
        self.told.append(f"{process.key} {how}")

    def start(self, key: str, config: FakeConfig, *, exclusive: bool = False) -> FakeProcess:
        """Start a task."""
        task = TaskContext(
            allocation=key,
            task="t",
            attempt=1,
            config=config,
            spec=Task("t", {}, driver="fake", kill_timeout=2.0),
            env={},
            directory=Path(),
            log_directory=Path(),
            run_directory=Path(),
            supervisor=SimSupervisor(Path(), env=env(), table=self.table),
            exclusive=exclusive,
        )
        return self.table.start(key, task, self.clock.monotonic())

    def renew(self, seconds: float) -> None:
        """Give a lease."""
        now = self.clock.monotonic()
        self.table.renew(now + seconds, now)


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_driver_over_a_table_keeps_the_promises_of_the_interface(runner: RunnerName) -> None:
    """It passes the check of every driver, on both event loops."""

    async def check() -> None:
        clock = HostClock(random.Random(1))
        table = ProcessTable("home", clock, Watchers())
        exits = {0: FakeConfig(run_seconds=0.1), 7: FakeConfig(run_seconds=0.1, exit_code=7)}
        await check_driver(lambda: FakeDriver(table), config=RUNNING, exits=exits, env=env())

    RUNNERS[runner]("check", check)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_helper_ends_an_exclusive_task_with_its_lease(runner: RunnerName) -> None:
    """SIGTERM at the end of the lease, SIGKILL at the end of patience; what is renewed in time runs on."""

    async def run() -> tuple[list[str], list[str]]:
        home = Table()
        with pytest.raises(DriverError):
            home.start("too-early", RUNNING, exclusive=True)
        home.renew(10.0)
        async with anyio.create_task_group() as group:
            group.start_soon(home.table.run)
            home.start("obeys", FakeConfig(stop_seconds=1.0), exclusive=True)
            home.start("deaf", FakeConfig(stop_seconds=60.0), exclusive=True)
            home.start("other", FakeConfig())
            await anyio.sleep(9.0)
            home.renew(10.0)
            await anyio.sleep(9.9)
            before = list(home.told)
            await anyio.sleep(0.2)
            home.renew(10.0)  # too late
            await anyio.sleep(5.0)
            assert home.table.running(home.clock.monotonic()) == ["other"]
            group.cancel_scope.cancel()
        return before, home.told

    before, after = RUNNERS[runner]("helper", run)
    assert before == []
    assert after == ["obeys the lease ran out, signal 15", "deaf the lease ran out, signal 9"]


def test_a_power_cut_ends_all(tmp_path: Path) -> None:
    """Nothing runs after a power cut, and each end is told."""

    async def run() -> list[str]:
        home = Table()
        home.start("one", RUNNING)
        home.start("two", RUNNING)
        home.table.crash()
        assert home.table.alive == ()
        return home.told

    assert RUNNERS["trio"]("cut", partial(run)) == ["one lost power", "two lost power"]
