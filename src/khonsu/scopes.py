"""Lifetimes: what runs in the background for as long as a block, and ends with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Protocol, Self

import anyio
from anyio.abc import TaskGroup, TaskStatus

from khonsu.errors import ensure


class Lifetime(ABC):
    """Something that runs: by `run` in somebody's task group, or as an async context manager, which is built on it.

    The block is entered when `run` has said that it started. What the block raises leaves it as it is, and so does
    what kept `run` from starting, and what ended it later; only two or more failures in the background make a group of
    exceptions. A failure in the background while the block fails, too, is noted on the block's exception.
    """

    def __init__(self) -> None:
        """Start nothing."""
        self.__group: TaskGroup | None = None

    @abstractmethod
    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; `task_status` is told when it has started."""

    async def __aenter__(self) -> Self:
        ensure(self.__group is None, f"a {type(self).__name__} runs once at a time")
        group = anyio.create_task_group()
        await group.__aenter__()
        self.__group = group
        try:
            await group.start(self._run_named)
        except BaseException as error:
            self.__group = None
            await _leave(group, error)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        group, self.__group = self.__group, None
        ensure(group is not None, f"a {type(self).__name__} is left after it was entered")
        if group is None:
            return None
        if exc is not None and _is_cancellation(exc):
            return await _pass(group, exc)
        try:
            await _leave(group, exc)
        except BaseException as error:
            if exc is None or _is_cancellation(error):
                raise
            exc.add_note(f"meanwhile, in the background of {type(self).__name__}: {type(error).__name__}: {error}")
        return None

    async def _run_named(self, *, task_status: TaskStatus[None]) -> None:
        try:
            await self.run(task_status=task_status)
        except BaseExceptionGroup as failed:
            raise bare(failed) from None


async def _leave(group: TaskGroup, error: BaseException | None) -> None:
    """Leave a task group whose block ended by itself, or with an error that is not the group's business.

    Raises what failed in the background.
    """
    group.cancel_scope.cancel()
    try:
        await group.__aexit__(None, None, None)
    except BaseExceptionGroup as failed:
        found = bare(failed)
        if found is not error:
            raise found from found.__cause__


async def _pass(group: TaskGroup, cancellation: BaseException) -> bool | None:
    """Leave a task group whose block was cancelled: by a failure in the background, or from outside."""
    try:
        return await group.__aexit__(type(cancellation), cancellation, cancellation.__traceback__)
    except BaseExceptionGroup as failed:
        found = bare(failed)
        raise found from found.__cause__


def bare(failed: BaseException) -> BaseException:
    """Return the one exception of a group of one (of one ...), and any other exception as it is."""
    while isinstance(failed, BaseExceptionGroup) and len(failed.exceptions) == 1:
        failed = failed.exceptions[0]
    return failed


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, anyio.get_cancelled_exc_class())


@asynccontextmanager
async def bare_task_group() -> AsyncGenerator[TaskGroup, None]:
    """Open a task group; one failure leaves it as it is, only two or more make a group of exceptions."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as failed:
        found = bare(failed)
        raise found from found.__cause__


async def first(event: anyio.Event, sleep: Callable[[float], Awaitable[None]], seconds: float) -> bool:
    """Wait for an event, but no longer than some seconds; return whether it came.

    Args:
        event: What is waited for.
        sleep: `Env.sleep`, whose clock may not be that of the event loop.
        seconds: The longest wait.

    """
    async with bare_task_group() as group:

        async def rest() -> None:
            await sleep(seconds)
            group.cancel_scope.cancel()

        group.start_soon(rest)
        await event.wait()
        group.cancel_scope.cancel()
    return event.is_set()


class Serve(Protocol):
    """What `run_in_order` runs: it calls `started` once, and ends in its own time when `stopping` is set."""

    def __call__(self, started: Callable[[], None], stopping: anyio.Event, /) -> Awaitable[None]:
        """Serve."""


async def run_in_order(serve: Serve, task_status: TaskStatus[None]) -> None:
    """Run something that ends in order: being cancelled is told to it, and it takes the time that it needs.

    Until it has started it is cancelled as usual.
    """
    begun = False
    stopping = anyio.Event()
    shield = anyio.CancelScope(shield=True)

    def started() -> None:
        nonlocal begun
        begun = True
        task_status.started()

    async def work() -> None:
        with shield:
            await serve(started, stopping)
        group.cancel_scope.cancel()

    async with bare_task_group() as group:
        group.start_soon(work)
        try:
            await anyio.sleep_forever()
        finally:
            stopping.set()
            if not begun:
                shield.cancel()
