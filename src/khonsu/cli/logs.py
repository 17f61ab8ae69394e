"""`khonsu job logs` and `khonsu alloc logs`: the output of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from khonsu.cli.running import Desk, asking
from khonsu.cli.times import moment
from khonsu.cli.words import DURATION
from khonsu.core.retention import latest
from khonsu.errors import NotFound

if TYPE_CHECKING:
    from khonsu.client.watching import LogStream
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
        click.option("-f", "--follow", is_flag=True, help="Go on as output comes, until all has ended."),
    ):
        function = option(function)
    return function


@click.command("logs")
@click.argument("name")
@_options
@asking()
async def job_logs(desk: Desk, name: str, **options: Any) -> None:
    """Show the output of a job's copies, each line with its copy where there are several.

    NAME is a job; where there is none of that name, the prefix of an allocation's ID.
    """
    try:
        copies = await Copies.of(desk, name)
    except NotFound:
        copies = None  # the client looks for an allocation, and says what there is not
    await _show(desk, name, copies, **options)


@click.command("logs")
@click.argument("id")
@_options
@asking()
async def alloc_logs(desk: Desk, id: str, **options: Any) -> None:
    """Show the output of an allocation, by a prefix of its ID."""
    await _show(desk, await desk.client.allocation(id), None, **options)


async def _show(
    desk: Desk,
    target: str | Allocation,
    copies: Copies | None,
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
                parts = [moment(line.at)] if times else []
                if copies is not None and copies.several:
                    parts.append(await copies.name(line))
                head = desk.out.faint(f"[{' '.join(parts)}] ") if parts else ""
                desk.out.line(head + line.text)


class Copies:
    """The copies of a job by what they are called, also of those that come while its output is followed."""

    def __init__(self, desk: Desk, known: Iterable[Allocation]) -> None:
        """Know some."""
        self._desk = desk
        self._names = {one.id: f"{one.group}/{one.slot}" for one in known}
        self.several = len(set(self._names.values())) > 1
        """Whether lines say whose they are."""

    async def say_missing(self, copies: Iterable[Allocation]) -> None:
        """Say of which current copies the output cannot be had."""
        ready = {one.id for one in await self._desk.client.nodes() if one.status == "ready"}
        for one in latest(copies).values():
            if one.node_id not in ready:
                name = self._names[one.id]
                self._desk.out.note(f"the output of {name} is on node {one.node}, which cannot be asked")

    @classmethod
    async def of(cls, desk: Desk, job: str) -> Copies:
        """Return those of a job that there are now."""
        known = await desk.client.allocations(job=job)
        made = cls(desk, known)
        if made.several:
            await made.say_missing(known)
        return made

    async def name(self, line: LogLine) -> str:
        """Return what the copy that wrote a line is called."""
        if line.allocation not in self._names:
            one = await self._desk.client.allocation(line.allocation)
            self._names[one.id] = f"{one.group}/{one.slot}"
        return self._names[line.allocation]
