"""Waiting for runs: live progress, the logs of batch jobs, what became of them, and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from attrs import frozen

from khonsu.cli.failures import show_failures
from khonsu.cli.lazy import OWN
from khonsu.cli.progress import Progress, showing
from khonsu.cli.running import FAILED, NOT_PLACED, OK, TIMED_OUT, Desk
from khonsu.core.results import JobResult
from khonsu.errors import KhonsuError, WaitTimeout
from khonsu.scopes import bare_task_group

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from khonsu.client.targets import JobLike
    from khonsu.client.waiting import Until
    from khonsu.core.ids import AllocationId
    from khonsu.core.records import Allocation

COPIES_FOLLOWED: Final = 20
LAST_LINES_SECONDS_MAX: Final = 5.0
GOOD: Final = ("healthy", "complete")


@frozen(kw_only=True)
class How:
    """How is waited, and what the exit code is."""

    timeout: str | float | None = None
    placement_timeout: str | float = "10s"
    until: Until = "done"
    exit_code: bool = False
    follow: bool = False
    """Whether the output of the tasks is shown."""


async def wait_all(desk: Desk, targets: Sequence[JobLike], how: How) -> int:
    """Wait for runs at once, show how they go, tell what became of each, and return the exit code."""
    ends: dict[int, JobResult | WaitTimeout] = {}
    with showing(desk.out, desk.env, live=not how.follow) as progress:
        async with bare_task_group() as group:
            follower = Follower(desk, group) if how.follow else None

            async def wait_one(number: int, target: JobLike) -> None:
                ends[number] = await _wait(desk, target, how, partial(_told, progress, follower))

            async with bare_task_group() as waiting:
                for number, target in enumerate(targets):
                    waiting.start_soon(wait_one, number, target)
            if follower is not None:
                await follower.last_lines()
            group.cancel_scope.cancel()
    codes = [await _tell(desk, ends[number], how, several=len(targets) > 1) for number in range(len(targets))]
    return next((code for code in codes if code), OK)


def _told(progress: Progress, follower: Follower | None, result: JobResult) -> None:
    progress.update(result)
    if follower is not None:
        follower.update(result)


async def _wait(desk: Desk, target: JobLike, how: How, update: Any) -> JobResult | WaitTimeout:
    try:
        return await desk.client.wait(
            target,
            timeout=how.timeout,
            placement_timeout=how.placement_timeout,
            until=how.until,
            progress=update,
        )
    except WaitTimeout as error:
        return error


async def _tell(desk: Desk, end: JobResult | WaitTimeout, how: How, *, several: bool) -> int:
    """Tell what became of a run, and return its exit code."""
    result = end.result if isinstance(end, WaitTimeout) else end
    if desk.out.as_json and isinstance(result, JobResult):
        from khonsu.cli.shapes import shape

        desk.out.json(shape(result))
    if isinstance(end, WaitTimeout):
        desk.out.error(end)
        desk.out.note("  It goes on; `khonsu job status` shows how.")
        return OWN if how.exit_code else TIMED_OUT
    if not desk.out.as_json:
        await _say(desk, end, how, several=several)
    if how.exit_code:
        return end.exit_code if end.exit_code is not None else OK if end.status in GOOD else OWN
    return OK if end.status in (*GOOD, "pending") else NOT_PLACED if end.status == "blocked" else FAILED


async def _say(desk: Desk, result: JobResult, how: How, *, several: bool) -> None:
    """Say what became of a run."""
    if result.status == "blocked":
        from khonsu.cli.job import explained

        desk.out.line(f"Job {result.job} has no place: {result.message}")
        if result.explanation is not None:
            explained(desk, result.explanation)
        desk.out.note(
            f"\nIt stays submitted and starts as soon as there is room. `khonsu job stop {result.job}` takes it back."
        )
        return
    copies = f"{len(result.allocations)} {'copy' if len(result.allocations) == 1 else 'copies'}"
    code = "" if result.exit_code is None else f", exit code {result.exit_code}"
    why = f": {result.message}" if result.message and result.status not in GOOD else ""
    status = "placed" if result.status == "pending" else result.status
    sentence = f"Job {result.job} is {desk.out.status(status)} (version {result.version}, {copies}{code}){why}"
    if how.follow and not several and result.status == "complete":
        desk.out.note(sentence)
    else:
        desk.out.line(sentence)
    if result.status not in (*GOOD, "pending") and not how.follow:
        await show_failures(desk, result.allocations)


class Follower:
    """Shows the output of copies, as they start."""

    def __init__(self, desk: Desk, group: TaskGroup) -> None:
        """Follow nothing yet; streams are read in the task group."""
        self._desk = desk
        self._group = group
        self._ended: dict[AllocationId, anyio.Event] = {}

    def update(self, result: JobResult) -> None:
        """Follow the copies that have started since."""
        if result.type.keeps_running:
            return
        several = len(result.allocations) > 1
        for one in result.allocations:
            started = any(task.started_at is not None for task in one.tasks)
            if started and one.id not in self._ended and len(self._ended) < COPIES_FOLLOWED:
                self._ended[one.id] = anyio.Event()
                self._group.start_soon(self._follow, one, f"[{one.group}/{one.slot}] " if several else "")

    async def last_lines(self) -> None:
        """Wait for what is still on its way, but not for long."""
        with anyio.move_on_after(LAST_LINES_SECONDS_MAX):
            for event in self._ended.values():
                await event.wait()

    async def _follow(self, allocation: Allocation, head: str) -> None:
        try:
            async with self._desk.client.logs(allocation, follow=True) as lines:
                async for line in lines:
                    self._desk.out.line(self._desk.out.faint(head) + line.text if head else line.text)
        except KhonsuError as error:
            self._desk.out.note(f"the output of {allocation.id} cannot be had: {error.message}")
        finally:
            self._ended[allocation.id].set()
