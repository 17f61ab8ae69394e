"""A driver without processes: tasks that live in memory, on the clock of the `Env`."""

from __future__ import annotations

import math
import signal as signals
from collections.abc import AsyncGenerator, Mapping
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
    own_end: float
    """When it ends by itself or by a signal, on the clock that never steps."""
    own_exit: TaskExit
    """How it ends then."""
    lease: float = math.inf
    """When the lease runs out that an exclusive task needs."""
    kill_timeout_seconds: float = 0.0
    env: Mapping[str, str] = field(factory=dict)
    moved: anyio.Event = field(factory=anyio.Event)
    """Set when `ends` changes."""

    @property
    def ends(self) -> float | None:
        """Return when it ends, or has ended; None: when somebody ends it."""
        return self.end if self.end < math.inf else None

    @property
    def end(self) -> float:
        """Return when it ends, or has ended; infinite: when somebody ends it."""
        return min(self.own_end, self._lease_end)

    @property
    def exit(self) -> TaskExit:
        """Return how it ends then."""
        if self.own_end <= self._lease_end:
            return self.own_exit
        obeys = self.config.stop_seconds <= self.kill_timeout_seconds
        return TaskExit(signal=int(signals.SIGTERM if obeys else signals.SIGKILL), lease_expired=True)

    @property
    def _lease_end(self) -> float:
        return self.lease + min(self.config.stop_seconds, self.kill_timeout_seconds)

    def move(self) -> None:
        """Tell those who wait that it ends at another time."""
        self.moved.set()
        self.moved = anyio.Event()


class FakeMachine:
    """The tasks of a machine: they outlive drivers and agents.

    `started` are the keys (`ALLOCATION/TASK/ATTEMPT`) of all that were ever started, in order.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.processes: dict[str, FakeProcess] = {}
        self.started: list[str] = []
        self.lease = math.inf
        """Until when exclusive tasks may run, on the clock that never steps; without end where nobody minds leases."""

    def running(self, now: float) -> list[str]:
        """Return the keys of the tasks that run at a time of the clock that never steps."""
        return [one.key for one in self.processes.values() if one.end > now]

    def crash(self) -> None:
        """Lose everything at once, as by a power cut; whoever waits is not told."""
        self.processes.clear()

    def start(self, key: str, task: TaskContext[FakeConfig], now: float) -> FakeProcess:
        """Start a task.

        Raises:
            DriverError: It needs a lease, and there is none.

        """
        config = task.config
        if task.exclusive and self.lease <= now:
            raise DriverError(f"{task.task} cannot be started: the lease has run out")
        self.started.append(key)
        made = FakeProcess(
            key,
            FIRST_PID + len(self.started),
            config,
            math.inf if config.run_seconds is None else now + config.run_seconds,
            TaskExit(code=config.exit_code),
            lease=self.lease if task.exclusive else math.inf,
            kill_timeout_seconds=task.spec.kill_timeout_seconds,
            env=task.env,
        )
        self.processes[key] = made
        return made

    def end(self, process: FakeProcess, at: float, exit_: TaskExit) -> None:
        """Have a task end at a time, unless it ends before."""
        if at < process.end:
            process.own_end, process.own_exit = at, exit_
            process.move()

    def remove(self, key: str, now: float) -> None:
        """Remove a task; whoever waits for it is told that it was killed."""
        process = self.processes.pop(key, None)
        if process is not None:
            self.end(process, now, TaskExit(signal=int(signals.SIGKILL)))

    def renew(self, deadline: float, now: float) -> None:
        """Let exclusive tasks run until then; those whose lease has run out are ended all the same."""
        self.lease = max(self.lease, deadline)
        for process in self.processes.values():
            if now < process.lease < self.lease:
                process.lease = self.lease  # who waits for its end looks again when the old one has come


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
        await self.env.sleep(0.0)
        self._refuse(task, "start")
        key = _key(task)
        found = self.machine.processes.get(key) or self.machine.start(key, task, self.env.monotonic())
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
        while process.end > self.env.monotonic():
            await self._until_moved(process)
        await anyio.lowlevel.checkpoint()
        if not process.exit.finished_at:
            finished_at = self.env.now() - (self.env.monotonic() - process.end)
            process.own_end, process.own_exit = process.end, evolve(process.exit, finished_at=finished_at)
        return process.exit

    async def _until_moved(self, process: FakeProcess) -> None:
        """Wait until a task's end has come, or has changed."""
        if process.ends is None:
            await process.moved.wait()
        else:
            await first(process.moved, self.env.sleep, max(0.0, process.ends - self.env.monotonic()))

    async def stop(self, handle: Handle, /, *, signal: str, grace_seconds: float) -> None:
        """Have the task end: when it obeys the signal, and by force after the grace."""
        await self.env.sleep(0.0)
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
        await self.env.sleep(0.0)
        self.machine.remove(_key(task), self.env.monotonic())

    def _process(self, handle: Handle) -> FakeProcess | None:
        found = self.machine.processes.get(str(handle["process"]))
        return found if found is not None and found.pid == handle["pid"] else None


def _key(task: TaskContext[FakeConfig]) -> str:
    return f"{task.allocation}/{task.task}/{task.attempt}"
