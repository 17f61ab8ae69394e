"""The driver for programs: a command of the node or an artifact, as a process of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from attrs import field, frozen

from khonsu.abc.driver import (
    Driver,
    DriverHost,
    Fingerprint,
    Handle,
    ProcessSupervisor,
    SpawnSpec,
    TaskContext,
    TaskExit,
)
from khonsu.core.about import about
from khonsu.drivers.programs import find_command
from khonsu.errors import DriverError


def _as_words(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ValueError(f"{values!r} is one text; args is a list of them")
    return tuple(values)


@frozen
class BinaryConfig:
    """A command and its arguments."""

    driver: ClassVar[str] = "binary"

    command: str = field(
        metadata=about("A name on the task's `PATH`, an absolute path, or a path in the task's directory.")
    )
    args: tuple[str, ...] = field(
        default=(), converter=_as_words, kw_only=True, metadata=about("What the command is given, word by word.")
    )


class BinaryDriver(Driver[BinaryConfig]):
    """Runs a command as a process that lives without the agent."""

    name: ClassVar[str] = "binary"
    config_type = BinaryConfig

    def __init__(self) -> None:
        """Do nothing before an agent opens it."""
        self._supervisor: ProcessSupervisor | None = None
        # By the attempt's folder, from its preparation to its start: a look at the disk may wait for others.
        self._found: dict[Path, str] = {}

    @asynccontextmanager
    async def opened(self, host: DriverHost, /) -> AsyncGenerator[None, None]:
        """Own what the driver needs for as long as an agent runs."""
        self._supervisor = host.supervisor
        try:
            yield
        finally:
            self._supervisor = None

    async def fingerprint(self) -> Fingerprint:
        """Say what this driver can do on this node."""
        return Fingerprint(version=version("khonsu"))

    async def prepare(self, task: TaskContext[BinaryConfig], /) -> None:
        """Look for the command.

        Raises:
            DriverError: It is not there, or is not executable.

        """
        self._found[task.run_directory] = self._find(task)

    async def start(self, task: TaskContext[BinaryConfig], /) -> Handle:
        """Start the command.

        Raises:
            DriverError: It cannot be started; the message says why.

        """
        spec, resources = task.spec, task.spec.resources
        found = self._found.pop(task.run_directory, None)
        return await task.supervisor.spawn(
            SpawnSpec(
                # The name as it was written, as a shell passes it: some programs go by it.
                argv=(task.config.command, *task.config.args),
                executable=found if found is not None else self._find(task),
                env=task.env,
                cwd=str(task.directory),
                directory=str(task.run_directory),
                user=spec.user,
                memory_bytes=resources.memory_bytes,
                memory_max_bytes=resources.memory_max_bytes,
                cpu_millis=resources.cpu_millis,
                cpu_max_millis=resources.cpu_max_millis,
                log_directory=str(task.log_directory),
                log_files=spec.logs.files,
                log_file_bytes=spec.logs.file_size_bytes,
                exclusive=task.exclusive,
                kill_timeout_seconds=spec.kill_timeout_seconds,
            )
        )

    async def wait(self, handle: Handle, /) -> TaskExit:
        """Wait for the end of the process."""
        return await self._keeper().wait(handle)

    async def stop(self, handle: Handle, /, *, signal: str, grace_seconds: float) -> None:
        """Send a signal to the whole process group, and SIGKILL after the grace."""
        await self._keeper().stop(handle, signal=signal, grace_seconds=grace_seconds)

    async def reattach(self, handle: Handle, /) -> bool:
        """Return whether the process, or the record of its end, is still there."""
        return await self._keeper().reattach(handle)

    async def remove(self, task: TaskContext[BinaryConfig], /) -> None:
        """Kill what may still run of this attempt, and forget it; its logs stay."""
        self._found.pop(task.run_directory, None)
        await task.supervisor.remove(str(task.run_directory))

    def _find(self, task: TaskContext[BinaryConfig]) -> str:
        return find_command(task.config.command, directory=task.directory, env=task.env)

    def _keeper(self) -> ProcessSupervisor:
        if self._supervisor is None:
            raise DriverError("the driver is not open", hint="Use it within `opened`, as an agent does")
        return self._supervisor
