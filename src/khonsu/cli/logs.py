"""`khonsu job logs` and `khonsu alloc logs`: the output of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from khonsu.cli.running import Desk, asking
from khonsu.cli.times import moment
from khonsu.cli.words import DURATION

if TYPE_CHECKING:
    from khonsu.client.client import LogStream
    from khonsu.core.protocol import LogLine
    from khonsu.core.records import Allocation


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of logs."""
    for option in (
        click.option("--times", is_flag=True, help="Show when each line was written."),
        click.option("--since", type=DURATION, help="Only what was written within this time, such as 10m."),
        click.option("-n", "--tail", type=click.IntRange(0), help="Only so many lines of each task at first."),
        click.option("--stderr", "stream", flag_value="stderr", help="Only what was written to stderr."),
        click.option("--stdout", "stream", flag_value="stdout", help="Only what was written to stdout."),
        click.option("--task", help="Only this task."),
        click.option("-f", "--follow", is_flag=True, help="Go on as output comes, until the tasks have ended."),
    ):
        function = option(function)
    return function


@click.command("logs")
@click.argument("name")
@_options
@asking()
async def job_logs(desk: Desk, name: str, **options: Any) -> None:
    """Show the output of a job's copies, each line with its copy where there are several. NAME is a job."""
    copies = {one.id: one for one in await desk.client.allocations(job=name)}
    several = len({(one.group, one.slot) for one in copies.values()}) > 1
    await _show(desk, name, copies if several else {}, **options)


@click.command("logs")
@click.argument("id")
@_options
@asking()
async def alloc_logs(desk: Desk, id: str, **options: Any) -> None:
    """Show the output of an allocation, by a prefix of its ID."""
    await _show(desk, await desk.client.allocation(id), {}, **options)


async def _show(
    desk: Desk,
    target: str | Allocation,
    copies: dict[Any, Allocation],
    *,
    times: bool,
    stream: LogStream | None,
    **options: Any,
) -> None:
    from khonsu.cli.shapes import shape

    async with desk.client.logs(target, stream=stream or "both", **options) as lines:
        async for line in lines:
            if desk.out.as_json:
                desk.out.json(shape(line))
            else:
                desk.out.line(_head(desk, line, copies, times=times) + line.text)


def _head(desk: Desk, line: LogLine, copies: dict[Any, Allocation], *, times: bool) -> str:
    """Return what stands before a line: when it was written, and by which copy."""
    parts = [moment(line.at)] if times else []
    if copies:
        copy = copies.get(line.allocation)
        parts.append(line.allocation if copy is None else f"{copy.group}/{copy.slot}")
    return desk.out.faint(f"[{' '.join(parts)}] ") if parts else ""
