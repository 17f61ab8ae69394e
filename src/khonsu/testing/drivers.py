"""What every driver must do, as one check for whoever writes one. No test framework is needed."""

from __future__ import annotations

import json
import signal as signals
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import anyio
from attrs import frozen

from khonsu.abc.driver import Driver, DriverHost, Handle, TaskContext, TaskExit
from khonsu.core.codec import from_json, to_json
from khonsu.core.job import Task
from khonsu.core.schema import config_schema
from khonsu.drivers.supervisor import Supervisor
from khonsu.env import Env, SystemEnv
from khonsu.scopes import bare_task_group

ConfigT = TypeVar("ConfigT")

TIME_SECONDS_MAX: Final = 60.0
GRACE_SECONDS: Final = 5.0
STUBBORN_SECONDS: Final = 0.5
"""The grace of a task that does not obey."""
STUBBORN_TRIES: Final = 5
PAUSE_SECONDS: Final = 0.1
TOGETHER: Final = 5


class DriverCheckFailed(AssertionError):
    """A driver does not keep a promise of the interface."""


def _expect(promise: str, expected: object, found: object) -> None:
    if expected != found:
        raise DriverCheckFailed(f"{promise}: expected {expected!r:.200}, found {found!r:.200}")


@frozen
class _World(Generic[ConfigT]):
    """Drivers on one node, and contexts for their tasks."""

    make: Callable[[], Driver[ConfigT]]
    driver: Driver[ConfigT]
    host: DriverHost
    directory: Path
    config: ConfigT
    supervisor: Supervisor

    def task(self, name: str, attempt: int = 1, config: ConfigT | None = None) -> TaskContext[ConfigT]:
        """Return one attempt of a task, with its folders."""
        home = self.directory / name
        work, logs = home / "task", home / "logs"
        for folder in (work, logs):
            folder.mkdir(parents=True, exist_ok=True)
        chosen = config if config is not None else self.config
        return TaskContext(
            allocation=name,
            task="check",
            attempt=attempt,
            config=chosen,
            spec=Task("check", to_json(chosen), driver=self.driver.name),
            env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
            directory=work,
            log_directory=logs,
            run_directory=home / f"run{attempt}",
            supervisor=self.supervisor,
        )

    async def begin(self, task: TaskContext[ConfigT]) -> Handle:
        """Prepare and start an attempt."""
        await self.driver.prepare(task)
        return await self.driver.start(task)

    async def stop(self, handle: Handle) -> TaskExit:
        """Stop a task and return how it ended."""
        await self.driver.stop(handle, signal="SIGTERM", grace_seconds=GRACE_SECONDS)
        return await self.driver.wait(handle)

    @asynccontextmanager
    async def another(self) -> AsyncGenerator[Driver[ConfigT], None]:
        """Yield a driver that knows nothing of what the first one did."""
        other = self.make()
        async with other.opened(self.host):
            yield other


async def check_driver(
    make: Callable[[], Driver[ConfigT]],
    /,
    *,
    config: ConfigT,
    exits: Mapping[int, ConfigT] | None = None,
    stubborn: ConfigT | None = None,
    env: Env | None = None,
) -> None:
    """Check that a driver keeps the promises of `khonsu.abc.Driver`.

    Args:
        make: Makes a driver. Each that it makes must find the tasks that another one started, as after a restart of the
            agent.
        config: Of a task that runs until it is stopped, and obeys SIGTERM.
        exits: By exit code, configs of tasks that end by themselves.
        stubborn: Of a task that runs until it is stopped, and does not obey SIGTERM once it has begun.
        env: Time and threads; the system's by default.

    Raises:
        DriverCheckFailed: It does not; says which promise.

    """
    env = env if env is not None else SystemEnv()
    folder = await env.run_blocking(tempfile.TemporaryDirectory, prefix="khonsu-check-", ignore_cleanup_errors=True)
    try:
        async with _world(make, config, Path(folder.name), env) as world:
            _check_declaration(world)
            for check in _CHECKS:
                await _run(check, world)
            for code, ending in (exits or {}).items():
                await _run(_check_exit, world, code, ending)
            if stubborn is not None:
                await _run(_check_stubborn, world, stubborn)
    finally:
        with anyio.CancelScope(shield=True):
            await env.run_blocking(folder.cleanup)


async def _run(check: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run one check; name what it is about when the driver does not answer, or raises what it should not."""
    promise = str(check.__doc__).removeprefix("Check that ")
    with anyio.move_on_after(TIME_SECONDS_MAX) as scope:
        try:
            await check(*arguments)
        except Exception as error:
            error.add_note(f"while it was checked: {promise}")
            raise
    if scope.cancelled_caught:
        raise DriverCheckFailed(f"{promise} It waits for something that does not happen")


@asynccontextmanager
async def _world(
    make: Callable[[], Driver[ConfigT]], config: ConfigT, directory: Path, env: Env
) -> AsyncGenerator[_World[ConfigT], None]:
    async with Supervisor(directory / "supervisor", env=env, idle_seconds=1.0) as supervisor:
        host = DriverHost(supervisor=supervisor, env=env, directory=directory / "driver")
        driver = make()
        async with driver.opened(host):
            yield _World(make, driver, host, directory / "tasks", config, supervisor)


def _check_declaration(world: _World[Any]) -> None:
    driver = world.driver
    _expect("a driver has a name", True, bool(driver.name))
    _expect("the config is of the driver's type", driver.config_type, type(world.config))
    written = json.loads(json.dumps(to_json(world.config)))
    _expect("a config survives JSON", world.config, from_json(driver.config_type, written))
    _expect("a config has a schema", "object", config_schema(driver.config_type)["type"])
    _expect("a task takes the config", driver.name, Task("check", world.config, driver=driver.name).driver)


async def _check_fingerprint(world: _World[Any]) -> None:
    """Check that the driver says what it can do."""
    found = await world.driver.fingerprint()
    _expect(f"the driver can run here ({found.message})", expected=True, found=found.healthy)


async def _check_start_twice(world: _World[Any]) -> None:
    """Check that what was started already is not started again."""
    task = world.task("twice")
    await world.driver.prepare(task)
    handle = await world.begin(task)
    try:
        _expect("a handle is JSON", handle, json.loads(json.dumps(handle)))
    except TypeError as error:
        raise DriverCheckFailed(f"a handle is JSON: {error}") from error
    _expect("the same attempt has the same handle", handle, await world.driver.start(task))
    async with world.another() as other:
        await other.prepare(task)
        _expect("the same attempt has the same handle for another driver", handle, await other.start(task))
    end = await world.stop(handle)
    _expect("an attempt that ended is not started again", handle, await world.driver.start(task))
    _expect("an end does not change", end, await world.driver.wait(handle))
    second = world.task("twice", attempt=2)
    again = await world.begin(second)
    _expect("another attempt has another handle", expected=True, found=again != handle)
    await world.stop(again)
    for one in (task, second):
        await world.driver.remove(one)


async def _check_stop(world: _World[Any]) -> None:
    """Check that a task runs until it is stopped, and whoever waits is told how it ended."""
    task = world.task("stop")
    handle = await world.begin(task)
    ended: list[TaskExit] = []

    async def wait() -> None:
        ended.append(await world.driver.wait(handle))

    for seconds in (0.0, PAUSE_SECONDS):
        with anyio.move_on_after(seconds) as scope:
            await world.driver.wait(handle)
        _expect("a task runs on, and a cancelled wait changes nothing", expected=True, found=scope.cancelled_caught)
    async with bare_task_group() as group:
        group.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        end = await world.stop(handle)
    _expect("a task ends by a code or a signal", expected=True, found=(end.code is None) != (end.signal is None))
    by_force = end.signal == signals.SIGKILL
    _expect("a task that obeys within its grace ends by the signal, not by force", expected=False, found=by_force)
    _expect("an end has a time", expected=True, found=end.finished_at > 0)
    _expect("who waited is told the same", [end], ended)
    await world.driver.stop(handle, signal="SIGTERM", grace_seconds=GRACE_SECONDS)
    _expect("stopping again changes nothing", end, await world.driver.wait(handle))
    await world.driver.remove(task)


async def _check_reattach(world: _World[Any]) -> None:
    """Check that what runs, and the record of what has ended, is found again by another driver."""
    task = world.task("reattach")
    handle = await world.begin(task)
    async with world.another() as other:
        _expect("a running task is found again", expected=True, found=await other.reattach(handle))
        await other.stop(handle, signal="SIGTERM", grace_seconds=GRACE_SECONDS)
        end = await other.wait(handle)
    _expect("the first driver sees the end", end, await world.driver.wait(handle))
    async with world.another() as other:
        _expect("the record of an end is found again", expected=True, found=await other.reattach(handle))
        _expect("and tells the same", end, await other.wait(handle))
    await world.driver.remove(task)
    _expect("what was removed is not found", expected=False, found=await world.driver.reattach(handle))


async def _check_remove(world: _World[Any]) -> None:
    """Check that what is removed is gone, and whoever waits for it is told; what is not there is passed over."""
    await world.driver.remove(world.task("never"))
    task = world.task("remove")
    handle = await world.begin(task)
    async with bare_task_group() as group:
        group.start_soon(world.driver.wait, handle)
        await anyio.lowlevel.checkpoint()
        await world.driver.remove(task)
    _expect("a running task that was removed is gone", expected=False, found=await world.driver.reattach(handle))
    await world.driver.remove(task)
    prepared = world.task("prepared")
    await world.driver.prepare(prepared)
    await world.driver.remove(prepared)


async def _check_together(world: _World[Any]) -> None:
    """Check that several tasks can be started, stopped and removed at once."""
    tasks = [world.task(f"together{number}") for number in range(TOGETHER)]
    handles: dict[int, Handle] = {}

    async def run(number: int) -> None:
        handles[number] = await world.begin(tasks[number])
        await world.stop(handles[number])
        await world.driver.remove(tasks[number])

    async with bare_task_group() as group:
        for number in range(TOGETHER):
            group.start_soon(run, number)
    distinct = {json.dumps(handle, sort_keys=True) for handle in handles.values()}
    _expect("tasks that start together have handles of their own", TOGETHER, len(distinct))


async def _check_exit(world: _World[ConfigT], code: int, config: ConfigT) -> None:
    """Check that a task that ends by itself tells its code."""
    task = world.task(f"exit{code}", config=config)
    end = await world.driver.wait(await world.begin(task))
    _expect("a task that ends by itself tells its code", (code, None), (end.code, end.signal))
    _expect("only the code 0 is a good end", code == 0, end.ok)
    await world.driver.remove(task)


async def _check_stubborn(world: _World[ConfigT], config: ConfigT) -> None:
    """Check that a task that does not obey is stopped by force after the grace, and has then ended."""
    for attempt in range(1, STUBBORN_TRIES + 1):
        task = world.task("stubborn", attempt=attempt, config=config)
        handle = await world.begin(task)
        await world.host.env.sleep(PAUSE_SECONDS * (attempt - 1))
        began = world.host.env.monotonic()
        await world.driver.stop(handle, signal="SIGTERM", grace_seconds=STUBBORN_SECONDS)
        whole = world.host.env.monotonic() - began >= STUBBORN_SECONDS
        end = await world.driver.wait(handle)
        await world.driver.remove(task)
        if end.signal != signals.SIGTERM:
            _expect("a task that does not obey has its whole grace, and has ended when a stop returns", True, whole)
            return
    raise DriverCheckFailed("`stubborn` is of a task that does not obey SIGTERM: it did")


_CHECKS: Final[tuple[Callable[[_World[Any]], Awaitable[None]], ...]] = (
    _check_fingerprint,
    _check_start_twice,
    _check_stop,
    _check_reattach,
    _check_remove,
    _check_together,
)
