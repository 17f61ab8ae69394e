"""Drivers: verbs on the outside world that make tasks real."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from attrs import field, frozen

from khonsu.core.job import JSON, Artifact, Task
from khonsu.env import Env

ConfigT = TypeVar("ConfigT")

Handle: TypeAlias = Mapping[str, JSON]
"""What is needed to find a started task again: a JSON mapping, kept by the agent on disk."""


@frozen(kw_only=True)
class Fingerprint:
    """What a driver says of itself on this node. `attributes` are shown as `driver.NAME.ATTRIBUTE`."""

    healthy: bool = True
    version: str = ""
    message: str = ""
    attributes: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class TaskExit:
    """How a task ended: a code or a signal, never both."""

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    finished_at: float = 0.0
    lease_expired: bool = False
    """Whether it was stopped because the node's lease ran out; for exclusive tasks only."""
    message: str = ""

    @property
    def ok(self) -> bool:
        """Return whether it ended well."""
        return self.code == 0


@frozen(kw_only=True)
class SpawnSpec:
    """A process to be started and kept without the agent. Sizes in bytes, CPU in thousandths of a core."""

    argv: tuple[str, ...]
    executable: str
    env: Mapping[str, str]
    cwd: str
    directory: str
    """Where the helper keeps its own files: one per (allocation, task, attempt)."""
    user: str | None = None
    memory_bytes: int | None = None
    memory_max_bytes: int | None = None
    cpu_millis: int | None = None
    cpu_max_millis: int | None = None
    log_directory: str
    log_files: int = 10
    log_file_bytes: int = 10 * 2**20
    exclusive: bool = False
    """Whether the helper stops the task when the agent's lease has run out."""
    kill_timeout_seconds: float = 10.0


class ProcessSupervisor(Protocol):
    """What keeps processes alive without the agent."""

    @abstractmethod
    async def spawn(self, spec: SpawnSpec, /) -> Handle:
        """Start a process, or return the handle of the one already started for `spec.directory`.

        Raises:
            DriverError: It cannot be started; the message says why.

        """

    @abstractmethod
    async def wait(self, handle: Handle, /) -> TaskExit:
        """Wait for its end; cancellable."""

    @abstractmethod
    async def stop(self, handle: Handle, /, *, signal: str, grace_seconds: float) -> None:
        """Send a signal to the whole process group, and SIGKILL after the grace; returns when it has ended."""

    @abstractmethod
    async def signal(self, handle: Handle, /, signal: str) -> None:
        """Send a signal to the whole process group."""

    @abstractmethod
    async def reattach(self, handle: Handle, /) -> bool:
        """Return whether the process (by pid and start time) or the record of its end is still there."""

    @abstractmethod
    async def remove(self, directory: str, /) -> None:
        """Kill what may still run for this directory; also when spawn never returned."""


@frozen(kw_only=True)
class TaskContext(Generic[ConfigT]):
    """All that a driver needs to know of one attempt of one task."""

    allocation: str
    task: str
    attempt: int
    config: ConfigT
    """The driver's config, with every `${...}` replaced."""
    spec: Task
    """The task's spec, as submitted."""
    artifacts: tuple[Artifact, ...] = ()
    """With every `${...}` replaced."""
    env: Mapping[str, str]
    """The whole environment of the task."""
    directory: Path
    """The task's working directory, below the allocation's."""
    log_directory: Path
    run_directory: Path
    """Where the helper's files of this attempt go."""
    supervisor: ProcessSupervisor
    exclusive: bool = False


@frozen(kw_only=True)
class DriverHost:
    """What an agent has for its drivers for as long as it runs."""

    supervisor: ProcessSupervisor
    env: Env
    directory: Path
    """For what a driver keeps between runs; its own, below the agent's data. Made by the driver if it needs one."""


class Driver(ABC, Generic[ConfigT]):
    """How a task runs. Verbs on the outside world: no retries, no state machine, no store.

    Every verb may be called again after a crash of the agent. Verbs of different tasks may run concurrently.
    A task's artifacts are in its directory before `prepare` is called.
    """

    name: ClassVar[str]
    config_type: type[ConfigT]

    def opened(self, host: DriverHost, /) -> AbstractAsyncContextManager[None]:
        """Own what the driver needs for as long as an agent runs; the agent enters it before it uses any verb."""
        del host
        return nullcontext()

    @abstractmethod
    async def fingerprint(self) -> Fingerprint:
        """Say what this driver can do on this node; called at start and every minute."""

    @abstractmethod
    async def prepare(self, task: TaskContext[ConfigT], /) -> None:
        """Fetch and lay out what the task needs; idempotent.

        Raises:
            DriverError: It cannot be had; `retryable` says whether trying again may help.

        """

    @abstractmethod
    async def start(self, task: TaskContext[ConfigT], /) -> Handle:
        """Start the task; the same (allocation, task, attempt) gives the same handle.

        Raises:
            DriverError: It cannot be started.

        """

    @abstractmethod
    async def wait(self, handle: Handle, /) -> TaskExit:
        """Wait for the task's end; cancellable, and may be called again."""

    @abstractmethod
    async def stop(self, handle: Handle, /, *, signal: str, grace_seconds: float) -> None:
        """Stop the task: the signal first, and by force after the grace; returns when it has ended."""

    @abstractmethod
    async def reattach(self, handle: Handle, /) -> bool:
        """Return whether the task, or the record of its end, is still there."""

    @abstractmethod
    async def remove(self, task: TaskContext[ConfigT], /) -> None:
        """Remove everything of this attempt; also when start never returned. Idempotent."""


AnyDriver: TypeAlias = Driver[Any]
