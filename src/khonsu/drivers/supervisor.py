"""The agent's side of what keeps tasks alive: start them, wait for them, stop them, find them again."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import pwd
import signal as signals
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import anyio
from attrs import frozen

from khonsu.abc.driver import Handle, SpawnSpec, TaskExit
from khonsu.drivers.cgroups import CgroupSupport, cgroup_support, digest
from khonsu.drivers.faults import passing
from khonsu.drivers.forkserver import ForkServerClient, start_error
from khonsu.env import Env
from khonsu.errors import DriverError
from khonsu.security.trees import remove_tree
from khonsu.supervisor import records
from khonsu.supervisor.leftovers import kill_leftovers
from khonsu.supervisor.processes import boot_id, look, send_signal

P = ParamSpec("P")
T = TypeVar("T")

_POLL_SECONDS_MIN = 0.01
_POLL_SECONDS_MAX = 1.0
_BUSY_TRIES = 500
_UNHEARD_SECONDS_MIN = 2.0
_LEFTOVER_LOOKS = 200


@frozen
class _Person:
    uid: int
    gid: int
    groups: list[int]


class Supervisor:
    """Keeps processes alive without the agent: an async context manager, and a `ProcessSupervisor` for drivers.

    Leaving the block stops nothing. Every method may be called concurrently, and again after a crash of the agent.
    """

    def __init__(self, directory: Path, *, env: Env, idle_seconds: float = 30.0) -> None:
        """Note where the fork server lives; it is started with the first task.

        Args:
            directory: A folder for this agent alone; made private when it is made.
            env: Time and threads.
            idle_seconds: How long a fork server stays that has neither tasks nor an agent.

        """
        self._directory = directory
        self._env = env
        self._server = ForkServerClient(directory, env=env, idle_seconds=idle_seconds)
        self._lease_path = directory / "lease"
        self._lease_lock = anyio.Lock()
        self._lease_until = -math.inf
        self.cgroups = CgroupSupport(message="not looked for yet")

    async def __aenter__(self) -> Self:
        self.cgroups = await self._env.run_blocking(self._prepare)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.aclose()

    def _prepare(self) -> CgroupSupport:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cgroup_support(f"khonsu-{digest(str(self._directory.resolve()))}")

    async def spawn(self, spec: SpawnSpec, /) -> Handle:
        """Start a process, or return the handle of the one already started for `spec.directory`.

        Raises:
            DriverError: It cannot be started; the message says why. Nothing of it is left.

        """
        request = await self._env.run_blocking(self._request, spec)
        for _ in range(_BUSY_TRIES):
            answer = await self._server.spawn(request)
            if "handle" in answer:
                return {"directory": spec.directory, **answer["handle"]}
            step, number, _ = answer["error"]
            if (step, number) != ("directory", errno.EAGAIN):
                break
            await self._env.sleep(_POLL_SECONDS_MIN)  # a helper of a fork server that died is giving up
        raise start_error(answer["error"], request)

    def _request(self, spec: SpawnSpec) -> dict[str, Any]:
        """Look everything up, and make the folders."""
        person = _look_up(spec.user)
        try:
            for folder in (spec.directory, spec.log_directory):
                Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            failure = DriverError(f"cannot make {error.filename}: {error.strerror}")
            failure.retryable = error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise failure from error
        return {
            "directory": spec.directory,
            "log_directory": spec.log_directory,
            "executable": spec.executable,
            "argv": list(spec.argv),
            "env": dict(spec.env),
            "cwd": spec.cwd,
            "uid": person.uid if person else None,
            "gid": person.gid if person else None,
            "groups": person.groups if person else None,
            "log_files": spec.log_files,
            "log_file_bytes": spec.log_file_bytes,
            "cgroup": self.cgroups.task_group(spec),
            "lease_path": str(self._lease_path) if spec.exclusive else None,
            "kill_timeout_seconds": spec.kill_timeout_seconds,
        }

    async def wait(self, handle: Handle, /) -> TaskExit:
        """Wait for its end; cancellable, and may be called again.

        A helper that was killed took its task with it; then the signal is SIGKILL, and the message says so.
        """
        directory = str(handle["directory"])
        pid, started = _number(handle, "helper_pid"), _number(handle, "helper_started")
        if handle.get("boot") == boot_id():
            await self._wait_for_process(pid, started)
        ended = await self._ended(directory)
        if ended is not None:
            return _task_exit(ended)
        if handle.get("boot") != boot_id():
            return TaskExit(
                finished_at=self._env.now(), message="the machine was restarted, and the task did not survive it"
            )
        await self._clear_up(handle)
        return TaskExit(
            signal=signals.SIGKILL,
            finished_at=self._env.now(),
            message="the task's helper was killed, and its task with it",
        )

    async def _wait_for_process(self, pid: int, started: int) -> None:
        """Wait until a process is gone."""
        descriptor = _open_process(pid)
        if descriptor is None:
            pause = _POLL_SECONDS_MIN
            while _may_run(pid, started):
                await self._env.sleep(pause)
                pause = min(2 * pause, _POLL_SECONDS_MAX)
            return
        try:
            if _may_run(pid, started):  # looked at after it is held, so that it cannot be another one
                await anyio.wait_readable(descriptor)
        finally:
            os.close(descriptor)

    async def _clear_up(self, record: Mapping[str, Any]) -> None:
        """Kill what a dead helper left behind, until nothing is left."""
        for _ in range(_LEFTOVER_LOOKS):
            if not await self._env.run_blocking(kill_leftovers, record):
                return
            await self._env.sleep(_POLL_SECONDS_MIN)

    async def stop(self, handle: Handle, /, *, signal: str, grace_seconds: float) -> None:
        """Send a signal to everything of the task, and SIGKILL after the grace; returns when it has ended.

        Raises:
            DriverError: There is no such signal.

        """
        number = _signal_number(signal)
        if not await self._command(handle, {"command": "stop", "signal": number, "grace_seconds": grace_seconds}):
            await self._stop_unheard(handle, number, grace_seconds)
        await self.wait(handle)

    async def _stop_unheard(self, record: Mapping[str, Any], number: int, grace_seconds: float) -> None:
        """Stop a task whose helper cannot be told, since somebody removed its FIFO: by the end of the helper."""
        ended = await self._ended(str(record["directory"]))
        if ended is not None or not _is_helper_running(record):
            return
        for each in (number, int(signals.SIGCONT)):
            send_signal(_number(record, "pid"), _number(record, "started"), each)
        helper, started = _number(record, "helper_pid"), _number(record, "helper_started")
        with anyio.move_on_after(max(grace_seconds, _UNHEARD_SECONDS_MIN)):
            await self._wait_for_process(helper, started)
        send_signal(helper, started, signals.SIGKILL)

    async def signal(self, handle: Handle, /, signal: str) -> None:
        """Send a signal to the whole process group; nothing happens if it has ended.

        Raises:
            DriverError: There is no such signal.

        """
        await self._command(handle, {"command": "signal", "signal": _signal_number(signal)})

    async def _command(self, handle: Handle, command: Mapping[str, Any]) -> bool:
        """Tell a helper what to do; False if it has ended."""
        line = json.dumps(command).encode() + b"\n"
        while True:
            try:
                # By the FIFO in its own directory, whose only reader is the helper: nobody else can be meant.
                descriptor = os.open(
                    f"{handle['directory']}/{records.CONTROL}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
                )
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.ENXIO, errno.ENOTDIR}:
                    return False
                if error.errno not in records.NO_DESCRIPTOR:
                    raise
                await self._env.sleep(_POLL_SECONDS_MAX)
                continue
            try:
                os.write(descriptor, line)
            except BlockingIOError:
                await self._env.sleep(_POLL_SECONDS_MIN)  # many commands are waiting
            except BrokenPipeError:
                return False
            else:
                return True
            finally:
                os.close(descriptor)

    async def reattach(self, handle: Handle, /) -> bool:
        """Return whether the helper (by pid, start time and boot) or the record of the task's end is still there."""
        directory = str(handle.get("directory", ""))
        return _is_helper_running(handle) or await self._ended(directory) is not None

    async def _ended(self, directory: str) -> dict[str, Any] | None:
        """Return the record of an end."""
        return await self._patiently(records.read_record, directory, records.ENDED)

    async def _patiently(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that blocks, again where no descriptor is left: what it looks for is there all the same."""
        while True:
            try:
                return await self._env.run_blocking(function, *args, **kwargs)
            except OSError as error:
                if error.errno not in records.NO_DESCRIPTOR:
                    raise
            await self._env.sleep(_POLL_SECONDS_MAX)

    async def remove(self, directory: str, /) -> None:
        """Kill what may still run for this directory, and remove it; also when spawn never returned."""
        pause = _POLL_SECONDS_MIN
        while not await self._patiently(_remove_unclaimed, directory):
            # By the same FIFO as `stop`; a helper that is just starting has no record yet, and is asked again.
            stop = {"command": "stop", "signal": int(signals.SIGKILL), "grace_seconds": 0.0}
            heard = await self._command({"directory": directory}, stop)
            if not heard and pause >= _POLL_SECONDS_MAX:
                record = await self._patiently(records.read_record, directory, records.STARTED)
                await self._stop_unheard({**(record or {}), "directory": directory}, int(signals.SIGKILL), 0.0)
            await self._env.sleep(pause)
            pause = min(2 * pause, _POLL_SECONDS_MAX)

    async def set_lease(self, deadline: float, /) -> None:
        """Let exclusive tasks run until then, and no longer.

        Args:
            deadline: In seconds of `env.monotonic()`; counted from when the request was sent that renewed the lease.

        Raises:
            DriverError: It cannot be written now.

        """
        # One at a time: two would write the same file, and the older could come last.
        async with self._lease_lock:
            if deadline > self._lease_until:
                try:
                    await self._env.run_blocking(self._write_lease, deadline)
                except OSError as error:
                    raise passing(f"the lease cannot be written for the tasks: {error}") from error
                self._lease_until = deadline

    def _write_lease(self, deadline: float) -> None:
        temporary = self._lease_path.with_suffix(".new")
        temporary.write_text(f"{deadline!r} {boot_id()}", "ascii")
        temporary.replace(self._lease_path)


def _look_up(user: str | None) -> _Person | None:
    """Return the ids of a user; None for the agent's own."""
    if user is None:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise DriverError(f"there is no user {user!r} on this node") from None
    if entry.pw_uid == os.getuid():
        return None
    if os.getuid() != 0:
        raise DriverError(
            f"the agent may not run a task as {user!r}",
            hint="Run the agent as root, or as that user, or leave `user` out",
        )
    return _Person(entry.pw_uid, entry.pw_gid, os.getgrouplist(user, entry.pw_gid))


def _number(handle: Handle, name: str) -> int:
    value = handle.get(name)
    return value if isinstance(value, int) else 0


def _is_helper_running(handle: Handle) -> bool:
    pid, started = _number(handle, "helper_pid"), _number(handle, "helper_started")
    return pid > 0 and handle.get("boot") == boot_id() and _may_run(pid, started)


def _may_run(pid: int, started: int) -> bool:
    """Tell whether this very process runs, or whether there is one that cannot be looked at without a descriptor."""
    process = look(pid)
    if process is not None or pid <= 0:
        return process is not None and process.started == started and not process.zombie
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # a helper is our own user's
        return False
    return True


def _open_process(pid: int) -> int | None:
    """Return a descriptor that is readable once the process ended; None where there is no such thing, or no process."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None  # gone, or no descriptor left for us: then we look from time to time


def _task_exit(record: Mapping[str, Any]) -> TaskExit:
    dropped = int(record.get("dropped_bytes", 0))
    return TaskExit(
        code=record["code"],
        signal=record["signal"],
        out_of_memory=bool(record["out_of_memory"]),
        finished_at=float(record["finished_at"]),
        lease_expired=bool(record["lease_expired"]),
        message=f"{dropped} bytes of its output were dropped, since they could not be written" if dropped else "",
    )


def _signal_number(name: str) -> int:
    try:
        return int(signals.Signals[name])
    except KeyError:
        raise DriverError(f"there is no signal {name!r}") from None


def _remove_unclaimed(directory: str) -> bool:
    """Remove a directory that no helper has claimed; False if one has."""
    try:
        lock = os.open(f"{directory}/{records.LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        # Held until all is gone: a start that was asked for before and comes late finds it taken, or nothing at all.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    try:
        record = records.read_record(directory, records.STARTED)
        if record is not None and records.read_record(directory, records.ENDED) is None:
            for _ in range(_LEFTOVER_LOOKS):
                if not kill_leftovers(record):
                    break
        with suppress(OSError):
            remove_tree(Path(directory))
    finally:
        os.close(lock)
    return True
