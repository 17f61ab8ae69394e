"""The last words of what failed: log lines, fetched from the agent when they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from khonsu.errors import KhonsuError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from khonsu.cli.running import Desk
    from khonsu.core.records import Allocation, TaskStatus

LINES_SHOWN: Final = 10
ALLOCATIONS_SHOWN: Final = 3
FETCH_SECONDS_MAX: Final = 10.0


async def show_failures(desk: Desk, allocations: Iterable[Allocation]) -> None:
    """Write why tasks failed, and what they said last: of the first few allocations that have failed."""
    failed = [(one, task) for one in allocations for task in one.tasks if task.failed]
    for allocation, task in failed[:ALLOCATIONS_SHOWN]:
        where = f"{allocation.group}/{allocation.slot} ({allocation.id}) on {allocation.node}"
        desk.out.title(f"Task {task.name} of {where}: {how_it_ended(task)}")
        for line in await last_lines(desk, allocation, task.name):
            desk.out.line(f"  {line}")


async def last_lines(desk: Desk, allocation: Allocation, task: str) -> list[str]:
    """Return the last lines of a task, or why they cannot be had."""
    lines: list[str] = []
    try:
        with anyio.fail_after(FETCH_SECONDS_MAX):
            async with desk.client.logs(allocation, task=task, tail=LINES_SHOWN) as found:
                async for line in found:
                    lines.append(line.text)  # noqa: PERF401 - what came before a failure is kept
    except TimeoutError:
        lines.append(desk.out.faint(f"(its output cannot be had: no answer within {FETCH_SECONDS_MAX:.0f} s)"))
    except KhonsuError as error:
        lines.append(desk.out.faint(f"(its output cannot be had: {error.message})"))
    return lines[-LINES_SHOWN:] or [desk.out.faint("(no output)")]


def how_it_ended(task: TaskStatus) -> str:
    """Return in words how a task ended."""
    if task.out_of_memory:
        ended = "out of memory"
    elif task.signal is not None:
        ended = f"signal {task.signal}"
    elif task.exit_code is not None:
        ended = f"exit code {task.exit_code}"
    else:
        return task.message or "it did not start"
    return f"{ended} ({task.message})" if task.message and task.message not in ended else ended
