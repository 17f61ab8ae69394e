"""`khonsu event`: what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from khonsu.cli.running import Desk, asking
from khonsu.cli.times import moment
from khonsu.errors import NotFound

if TYPE_CHECKING:
    from khonsu.core.records import Event


@click.command()
@click.option("--job", help="Only what is about this job.")
@click.option("--node", help="Only what is about this node.")
@click.option("--type", "types", multiple=True, help="Only events of this type, such as allocation-failed.")
@click.option("--after", metavar="REVISION|ID", help="Only what came after this revision or event, or from `now` on.")
@click.option("--no-follow", is_flag=True, help="End when all that has happened is shown.")
@asking()
async def watch(
    desk: Desk, *, job: str | None, node: str | None, types: tuple[str, ...], after: str | None, no_follow: bool
) -> None:
    """Show what happened and what happens, until interrupted."""
    from khonsu.cli.shapes import shape
    from khonsu.core.revision import Revision

    if after == "now":
        seen: Revision | str | None = (await desk.client.status()).revision
    else:
        try:
            seen = Revision.parse(after) if after is not None and "." in after else after
        except ValueError as error:
            raise click.UsageError(f"--after: {error}") from None
    if job is not None:
        await _check_name(desk, job)
    stream = desk.client.events(after=seen, job=job, node=node, types=types, follow=not no_follow)
    async with stream as events:
        async for event in events:
            if desk.out.as_json:
                desk.out.json(shape(event))
            else:
                desk.out.line(_line(desk, event))


async def _check_name(desk: Desk, job: str) -> None:
    """Refuse the name of a job that nothing is remembered of: it was mistyped. Nobody would hear of it."""
    try:
        await desk.client.job(job)
    except NotFound:
        async with desk.client.events(job=job, follow=False) as past:
            async for _ in past:
                return  # it was there
        raise


def _line(desk: Desk, event: Event) -> str:
    copy = None if event.group is None else event.group if event.slot is None else f"{event.group}/{event.slot}"
    subject = " ".join(part for part in (event.job, copy, event.task) if part)
    where = f" on {event.node}" if event.node and event.job else f" {event.node}" if event.node else ""
    why = f": {event.message}" if event.message else ""
    kind = event.type.rpartition("-")[2]
    coloured = event.type.removesuffix(kind) + desk.out.status(kind)
    return f"{desk.out.faint(moment(event.at))}  {coloured}  {subject}{where}{why}"
