"""A driver without processes: tasks that live in memory, on the clock of the `Env`."""

from __future__ import annotations

import signal as signals
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import ClassVar, Final, Literal

import anyio
from attrs import define, evolve, field, frozen

from khonsu.abc.driver import Driver, DriverHost, Fingerprint, Handle, TaskContext, TaskExit
from khonsu.core.about import about
from khonsu.env import Env
from khonsu.errors import DriverError, ensure
from khonsu.scopes import first

FIRST_PID: Final = 1000


@frozen(kw_only=True)
class FakeConfig:
    """What a task without a process does."""

    driver: ClassVar[str] = "fake"

    run_seconds: float | None = field(default=None, metadata=about("How long it runs; none: until it is stopped."))
    exit_code: int = field(default=0, metadata=about("How it ends by itself."))
    stop_seconds: float = field(default=0.0, metadata=about("How long it takes to obey a signal."))
    prepare_seconds: float = field(default=0.0, metadata=about("How long its preparation takes."))
    fails: Literal["", "prepare", "start"] = field(default="", metadata=about("Which verb is refused, if any."))
    retryable: bool = field(default=False, metadata=about("Whether the refusal says that it may help to try again."))


@define(eq=False)
class FakeProcess:
    """A task that runs, or has run."""

    key: str
    pid: int
    config: FakeConfig
    ends: float | None
    """When it ends, on the clock that never steps; None: when it is stopped."""
    exit: TaskExit
    """How it ends then, or has ended."""
    moved: anyio.Event = field(factory=anyio.Event)
    """Set when `ends` changes."""


class FakeMachine:
    """The tasks of a machine: they outlive drivers and agents.

    `started` are the keys (`ALLOCATION/TASK/ATTEMPT`) of all that were ever started, in order.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.processes: dict[str, FakeProcess] = {}
        self.started: list[str] = []

    def running(self, now: float) -> list[str]:
        """Return the keys of the tasks that run at a time of the clock that never steps."""
        return [one.key for one in self.processes.values() if one.ends is None or one.ends > now]

    def crash(self) -> None:
        """Lose everything at once, as by a power cut; whoever waits is not told."""
        self.processes.clear()

    def start(self, key: str, config: FakeConfig, now: float) -> FakeProcess:
        """Start a task."""
        self.started.append(key)
        ends = None if config.run_seconds is None else now + config.run_seconds
        made = FakeProcess(key, FIRST_PID + len(self.started), config, ends, TaskExit(code=config.exit_code))
        self.processes[key] = made
        return made

    def end(self, process: FakeProcess, at: float, exit_: TaskExit) -> None:
        """Have a task end at a time, unless it ends before."""
        if process.ends is None or at < process.ends:
            process.ends, process.exit = at, exit_
            process.moved.set()
            process.moved = anyio.Event()


class FakeDriver(Driver[FakeConfig]):
    """Runs tasks in memory. Several drivers with one machine see the same tasks."""

    name: ClassVar[str] = "fake"
    config_type = FakeConfig

    def __init__(self, machine: FakeMachine | None = None) -> None:
        """Run tasks on a machine, or on one of its own."""
        self.machine = machine if machine is not None else FakeMachine()
        self._env: Env | None = None

    @asynccontextmanager
    async def opened(self, host: DriverHost, /) -> AsyncGenerator[None, None]:
        """Use the clock of an agent."""
        self._env = host.env
        yield

    @property
    def env(self) -> Env:
        """Return the clock of the agent."""
        ensure(self._env is not None, "the driver is open")
        return self._env  # type: ignore[return-value]

    async def fingerprint(self) -> Fingerprint:
        """Say that it can always run."""
        return Fingerprint(version="1")

    async def prepare(self, task: TaskContext[FakeConfig], /) -> None:
        """Take the time that the config says."""
        await self.env.sleep(task.config.prepare_seconds)
        self._refuse(task, "prepare")

    async def start(self, task: TaskContext[FakeConfig], /) -> Handle:
        """Start a task, or return the handle of the one that was."""
        await anyio.lowlevel.checkpoint()
        self._refuse(task, "start")
        key = _key(task)
        found = self.machine.processes.get(key) or self.machine.start(key, task.config, self.env.monotonic())
        return {"process": key, "pid": found.pid}

    def _refuse(self, task: TaskContext[FakeConfig], verb: str) -> None:
        if task.config.fails == verb:
            error = DriverError(f"the fake driver does not {verb} {task.task}")
            error.retryable = task.config.retryable
            raise error

    async def wait(self, handle: Handle, /) -> TaskExit:
        """Wait for the end."""
        process = self._process(handle)
        if process is None:
            return TaskExit(signal=int(signals.SIGKILL), finished_at=self.env.now(), message="it is gone")
        while process.ends is None or process.ends > self.env.monotonic():
            await self._until_moved(process)
        await anyio.lowlevel.checkpoint()
        if not process.exit.finished_at:
            finished_at = self.env.now() - (self.env.monotonic() - process.ends)
            process.exit = evolve(process.exit, finished_at=finished_at)
        return process.exit

    async def _until_moved(self, process: FakeProcess) -> None:
        """Wait until a task's end has come, or has changed."""
        if process.ends is None:
            await process.moved.wait()
        else:
            await first(process.moved, self.env.sleep, max(0.0, process.ends - self.env.monotonic()))

    async def stop(self, handle: Handle, /, *, signal: str, grace_seconds: float) -> None:
        """Have the task end: when it obeys the signal, and by force after the grace."""
        process = self._process(handle)
        if process is None:
            return
        obeys = process.config.stop_seconds <= grace_seconds
        number = signals.Signals[signal] if obeys else signals.SIGKILL
        after = min(process.config.stop_seconds, grace_seconds)
        self.machine.end(process, self.env.monotonic() + after, TaskExit(signal=int(number)))
        await self.wait(handle)

    async def reattach(self, handle: Handle, /) -> bool:
        """Return whether the task is on the machine, running or ended."""
        return self._process(handle) is not None

    async def remove(self, task: TaskContext[FakeConfig], /) -> None:
        """Remove a task from the machine; whoever waits for it is told that it was killed."""
        process = self.machine.processes.pop(_key(task), None)
        if process is not None:
            self.machine.end(process, self.env.monotonic(), TaskExit(signal=int(signals.SIGKILL)))

    def _process(self, handle: Handle) -> FakeProcess | None:
        found = self.machine.processes.get(str(handle["process"]))
        return found if found is not None and found.pid == handle["pid"] else None


def _key(task: TaskContext[FakeConfig]) -> str:
    return f"{task.allocation}/{task.task}/{task.attempt}"
