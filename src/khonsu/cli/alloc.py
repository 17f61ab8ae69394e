"""`khonsu alloc`: the copies of groups on nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from khonsu.cli.running import Desk, asking
from khonsu.cli.times import ago, moment

if TYPE_CHECKING:
    from khonsu.core.records import Allocation


async def show_list(desk: Desk, job: str | None, node: str | None) -> None:
    """Write allocations."""
    from khonsu.cli.job import allocations
    from khonsu.cli.shapes import shapes

    found = await desk.client.allocations(job=job, node=node)
    if desk.out.as_json:
        desk.out.json(shapes(found))
    elif not found:
        desk.out.note("There are no allocations.")
    else:
        allocations(desk, found, job=True)


@click.command("list")
@click.option("--job", help="Only those of this job.")
@click.option("--node", help="Only those on this node.")
@asking()
async def list_(desk: Desk, job: str | None, node: str | None) -> None:
    """List allocations, live and ended."""
    await show_list(desk, job, node)


@click.command()
@click.argument("id", required=False)
@asking()
async def status(desk: Desk, id: str | None) -> None:
    """Show an allocation and its tasks, by a prefix of its ID. Without one, list allocations."""
    from khonsu.cli.failures import show_failures
    from khonsu.cli.shapes import shape

    if id is None:
        await show_list(desk, None, None)
        return
    allocation = await desk.client.allocation(id)
    if desk.out.as_json:
        desk.out.json(shape(allocation))
        return
    _show(desk, allocation)
    await show_failures(desk, (allocation,))


def _show(desk: Desk, one: Allocation) -> None:
    now = desk.env.now()
    desk.out.facts(
        (
            ("allocation", one.id),
            ("job", f"{one.job} (namespace {one.namespace}, version {one.version})"),
            ("copy", f"{one.group}/{one.slot}"),
            ("node", one.node),
            ("status", one.status),
            ("since", ago(one.changed_at, now)),
            ("wanted", one.desired),
            ("health", None if one.health is None else "healthy" if one.health else "unhealthy"),
            ("why", one.message),
            ("exit code", one.exit_code),
            ("made", moment(one.created_at)),
            ("replaces", one.previous),
            ("ports", ", ".join(f"{port.name}={port.host}" for port in one.ports)),
        )
    )
    desk.out.title("Tasks")
    rows = [
        (
            task.name,
            task.status,
            task.attempt,
            task.code,
            task.pid,
            "-" if task.started_at is None else ago(task.started_at, now),
            "-" if task.finished_at is None else ago(task.finished_at, now),
            "out of memory" if task.out_of_memory else task.message,
        )
        for task in one.tasks
    ]
    desk.out.table(("TASK", "STATUS", "ATTEMPT", "EXIT", "PID", "STARTED", "ENDED", "WHY"), rows)


@click.command()
@click.argument("id")
@asking()
async def stop(desk: Desk, id: str) -> None:
    """Stop one copy, by a prefix of its ID; its slot is placed again."""
    from khonsu.cli.shapes import shape

    allocation = await desk.client.stop_allocation(id)
    if desk.out.as_json:
        desk.out.json(shape(allocation))
    else:
        slot = f"{allocation.job} {allocation.group}/{allocation.slot}"
        desk.out.line(f"Allocation {allocation.id} is to stop; {slot} is placed again.")
