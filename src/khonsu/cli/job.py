"""`khonsu job`: what is said of jobs, and what is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from khonsu.cli.running import Desk, asking
from khonsu.cli.times import ago, moment

if TYPE_CHECKING:
    from khonsu.core.records import Allocation
    from khonsu.core.results import Explanation, GroupExplanation, JobInfo, Submission

EVENTS_SHOWN: Final = 15
ALLOCATIONS_SHOWN: Final = 30
NODES_SHOWN: Final = 10


async def show_list(desk: Desk) -> None:
    """Write the jobs of the namespace."""
    from khonsu.cli.shapes import shapes

    jobs = await desk.client.jobs()
    if desk.out.as_json:
        desk.out.json(shapes(jobs))
    elif not jobs:
        desk.out.note("There are no jobs here. `khonsu job init` writes a file to start from.")
    else:
        now = desk.env.now()
        rows = [
            (job.name, job.type, job.status, job.version, _counts(job), ago(job.submitted_at, now), job.message)
            for job in jobs
        ]
        desk.out.table(("NAME", "TYPE", "STATUS", "VERSION", "COPIES", "SUBMITTED", "WHY"), rows)


def _counts(job: JobInfo) -> str:
    """Return how many copies do what they should, of how many."""
    good = sum(group.complete + (group.healthy if job.type.keeps_running else group.running) for group in job.groups)
    return f"{good}/{sum(group.count for group in job.groups)}"


@click.command("list")
@asking()
async def list_(desk: Desk) -> None:
    """List jobs."""
    await show_list(desk)


@click.command()
@click.argument("name", required=False)
@asking()
async def status(desk: Desk, name: str | None) -> None:
    """Show a job: what runs, what happened, and why. Without a NAME, list jobs."""
    from khonsu.cli.shapes import shape

    if name is None:
        await show_list(desk)
        return
    job = await desk.client.job(name)
    if desk.out.as_json:
        desk.out.json(shape(job))
        return
    _heading(desk, job)
    _groups(desk, job)
    allocations(desk, job.allocations[:ALLOCATIONS_SHOWN])
    if len(job.allocations) > ALLOCATIONS_SHOWN:
        desk.out.line(desk.out.faint(f"  and {len(job.allocations) - ALLOCATIONS_SHOWN} more"))
    if job.events:
        desk.out.title("What happened")
        rows = [
            (moment(event.at), event.type, _place(event.group, event.slot), event.node, event.message)
            for event in job.events[-EVENTS_SHOWN:]
        ]
        desk.out.table(("TIME", "WHAT", "COPY", "NODE", "WHY"), rows)
    from khonsu.cli.failures import show_failures

    await show_failures(desk, job.allocations)


def _heading(desk: Desk, job: JobInfo) -> None:
    now = desk.env.now()
    rollout = job.rollout
    desk.out.facts(
        (
            ("job", job.name),
            ("namespace", job.namespace),
            ("type", job.type),
            ("status", job.status),
            ("why", job.message),
            ("version", f"{job.version}{'' if job.stable_version is None else f' (stable: {job.stable_version})'}"),
            ("submitted", ago(job.submitted_at, now)),
            ("rollout", None if rollout is None else f"{rollout.status} {rollout.message}".strip()),
        )
    )


def _groups(desk: Desk, job: JobInfo) -> None:
    names = ("pending", "starting", "running", "healthy", "complete", "failed", "unknown")
    desk.out.title("Groups")
    rows = [(group.name, group.count, *(getattr(group, name) for name in names)) for group in job.groups]
    desk.out.table(("GROUP", "WANTED", *(name.upper() for name in names)), rows)
    for failure in job.blocked:
        why = ", ".join(f"{reason} ({count})" for reason, count in failure.reasons.items()) or "there are no nodes"
        missing = failure.wanted - failure.placed
        desk.out.line(f"  {failure.group}: {missing} have no place on {failure.nodes} nodes: {why}")


def allocations(desk: Desk, found: tuple[Allocation, ...], *, job: bool = False) -> None:
    """Write allocations as a table, if there are any; of several jobs with their names."""
    if not found:
        return
    if not job:
        desk.out.title("Allocations")
    now = desk.env.now()
    rows = [
        (
            one.id,
            *((one.job,) if job else ()),
            _place(one.group, one.slot),
            one.version,
            one.node,
            one.status,
            one.desired,
            "-" if one.health is None else "healthy" if one.health else "unhealthy",
            one.exit_code,
            " ".join(f"{port.name}={port.host}" for port in one.ports) or "-",
            ago(one.changed_at, now),
            one.message or "",
        )
        for one in found
    ]
    heads = ("COPY", "VERSION", "NODE", "STATUS", "WANTED", "HEALTH", "EXIT", "PORTS", "SINCE", "WHY")
    desk.out.table(("ID", *(("JOB",) if job else ()), *heads), rows)


def _place(group: str | None, slot: int | None) -> str:
    return "-" if group is None else group if slot is None else f"{group}/{slot}"


@click.command()
@click.argument("name")
@click.option("--purge", is_flag=True, help="Forget it as soon as its copies have ended.")
@asking()
async def stop(desk: Desk, name: str, *, purge: bool) -> None:
    """Stop a job."""
    from khonsu.cli.shapes import shape

    job = await desk.client.stop(name, purge=purge)
    if desk.out.as_json:
        desk.out.json(shape(job))
    else:
        desk.out.line(f"Job {job.name} is stopped{' and will be forgotten' if purge else ''}.")


@click.command()
@click.argument("name")
@asking()
async def history(desk: Desk, name: str) -> None:
    """List the versions of a job, the newest first."""
    from khonsu.cli.shapes import shapes

    versions = await desk.client.history(name)
    if desk.out.as_json:
        desk.out.json(shapes(versions))
        return
    now = desk.env.now()
    rows = [
        (one.version, one.origin, "yes" if one.stable else "-", ago(one.created_at, now), one.message)
        for one in versions
    ]
    desk.out.table(("VERSION", "BY", "STABLE", "MADE", "WHY"), rows)


@click.command()
@click.argument("name")
@click.option("--version", type=click.IntRange(1), required=True, help="The version whose spec is wanted again.")
@asking()
async def revert(desk: Desk, name: str, version: int) -> None:
    """Go back to an earlier version of a job, as a new version."""
    _submitted(desk, await desk.client.revert(name, version=version))


@click.command()
@click.argument("name")
@click.argument("count", type=click.IntRange(0))
@click.option("--group", help="The group; need not be named where there is only one.")
@asking()
async def scale(desk: Desk, name: str, count: int, group: str | None) -> None:
    """Change how many copies of a group run, as a new version."""
    _submitted(desk, await desk.client.scale(name, count, group=group))


def _submitted(desk: Desk, submission: Submission) -> None:
    from khonsu.cli.shapes import shape

    if desk.out.as_json:
        desk.out.json(shape(submission))
        return
    desk.out.line(f"Job {submission.job} is {submission.outcome}: version {submission.version}.")
    for warning in submission.warnings:
        desk.out.note(f"warning: {warning}")
    if submission.outcome != "unchanged":
        desk.out.note(f"`khonsu job wait {submission.job}` shows how it goes.")


@click.command()
@click.argument("name")
@click.option("--all", "whole", is_flag=True, help="Show every node.")
@asking()
async def explain(desk: Desk, name: str, *, whole: bool) -> None:
    """Say where copies are, and why others are nowhere, node by node."""
    from khonsu.cli.shapes import shape

    explanation = await desk.client.explain(name)
    if desk.out.as_json:
        desk.out.json(shape(explanation))
    else:
        explained(desk, explanation, None if whole else NODES_SHOWN)


def explained(desk: Desk, explanation: Explanation, most: int | None = NODES_SHOWN) -> None:
    """Write an explanation, of at most some nodes for each group."""
    if explanation.message:
        desk.out.line(explanation.message)
    for group in explanation.groups:
        placed = f"{group.placed} of {group.wanted} copies have a place" if group.wanted else "no copy needs a place"
        desk.out.title(f"{group.group}: {placed} ({explanation.scheduler})")
        desk.out.table(("NODE", "PLACED", "SCORE", "WHY"), _reasons(group, most), indent=2)
        if most is not None and len(group.nodes) > most:
            desk.out.line(desk.out.faint(f"  and {len(group.nodes) - most} more nodes (--all)"))


def _reasons(group: GroupExplanation, most: int | None) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for node in group.nodes[:most]:
        why = "; ".join(map(str, node.refusals)) or ", ".join(f"{term.name} {term.value:z.3f}" for term in node.terms)
        score = None if node.score is None else f"{node.score:z.3f}"
        rows.append((node.node, node.placed or "-", score, why))
    return rows
