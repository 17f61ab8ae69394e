"""A driver of a platform builder: tasks that are timers of the process, checked and run."""

# pyright: strict

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import ClassVar

import anyio
from attrs import frozen

import khonsu
from khonsu.abc import DriverHost
from khonsu.testing import check_driver


@frozen(kw_only=True)
class TimerConfig:
    """What a timer does."""

    driver: ClassVar[str] = "timer"

    seconds: float | None = None
    """How long it runs; none: until it is stopped."""
    code: int = 0


class Timer:
    """A timer that runs, or has run."""

    def __init__(self) -> None:
        self.exit: khonsu.TaskExit | None = None
        self.ended = anyio.Event()

    def end(self, how: khonsu.TaskExit) -> None:
        """End, once."""
        if self.exit is None:
            self.exit = how
            self.ended.set()


TIMERS: dict[str, Timer] = {}


class TimerDriver(khonsu.Driver[TimerConfig]):
    """Runs timers. They outlive the driver, and not the process."""

    name = "timer"
    config_type = TimerConfig

    @asynccontextmanager
    async def opened(self, host: DriverHost, /) -> AsyncGenerator[None, None]:
        """Own what runs them."""
        self._env = host.env
        async with anyio.create_task_group() as self._group:
            yield
            self._group.cancel_scope.cancel()

    async def fingerprint(self) -> khonsu.Fingerprint:
        """Say that it can always run."""
        return khonsu.Fingerprint(version="1")

    async def prepare(self, task: khonsu.TaskContext[TimerConfig], /) -> None:
        """Fetch nothing."""

    async def start(self, task: khonsu.TaskContext[TimerConfig], /) -> khonsu.Handle:
        """Start a timer."""
        key = self._key(task)
        if key not in TIMERS:
            timer = TIMERS[key] = Timer()
            if task.config.seconds is not None:
                self._group.start_soon(self._run, timer, task.config.seconds, task.config.code)
        return {"key": key}

    async def wait(self, handle: khonsu.Handle, /) -> khonsu.TaskExit:
        """Wait for its end."""
        timer = TIMERS.get(str(handle["key"]))
        if timer is None:
            return khonsu.TaskExit(signal=9, finished_at=self._env.now())
        await timer.ended.wait()
        assert timer.exit is not None
        return timer.exit

    async def stop(self, handle: khonsu.Handle, /, *, signal: str, grace_seconds: float) -> None:
        """End it; a timer always obeys."""
        if timer := TIMERS.get(str(handle["key"])):
            timer.end(khonsu.TaskExit(signal=15, finished_at=self._env.now()))

    async def reattach(self, handle: khonsu.Handle, /) -> bool:
        """Return whether it is known."""
        return str(handle["key"]) in TIMERS

    async def remove(self, task: khonsu.TaskContext[TimerConfig], /) -> None:
        """Forget it; whoever waits is told."""
        if timer := TIMERS.pop(self._key(task), None):
            timer.end(khonsu.TaskExit(signal=9, finished_at=self._env.now()))

    async def _run(self, timer: Timer, seconds: float, code: int) -> None:
        await self._env.sleep(seconds)
        timer.end(khonsu.TaskExit(code=code, finished_at=self._env.now()))

    @staticmethod
    def _key(task: khonsu.TaskContext[TimerConfig]) -> str:
        return f"{task.allocation}/{task.task}/{task.attempt}"


async def check() -> None:
    """Check the driver as its author would."""
    exits = {code: TimerConfig(seconds=0.01, code=code) for code in (0, 3)}
    await check_driver(TimerDriver, config=TimerConfig(), exits=exits)


def main() -> int | None:
    """Check the driver, run a job of it, and return its exit code."""
    anyio.run(check)
    with khonsu.LocalCluster(drivers=[TimerDriver]) as cluster:
        never = khonsu.Restart(attempts=0)
        config = TimerConfig(seconds=0.01, code=4)
        job = khonsu.Job.single("tick", config, type="batch", restart=never, reschedule=khonsu.Reschedule(attempts=0))
        return cluster.client.run(job, timeout="20s").exit_code
