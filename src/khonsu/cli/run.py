"""`khonsu job run` and `khonsu job wait`: submit jobs, and wait for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from khonsu.cli.adhoc import Wishes, job_of
from khonsu.cli.running import OK, Desk, Dial, asking, attempt, execute, json_option, namespace_option, server_options
from khonsu.cli.words import DURATION
from khonsu.core.states import JobType

if TYPE_CHECKING:
    from khonsu.cli.output import Out
    from khonsu.cli.waits import How
    from khonsu.client.waiting import Until
    from khonsu.core.job import Job
    from khonsu.core.results import Submission

_ARGV = "khonsu.argv"


class RunCommand(click.Command):
    """A command that takes what stands behind `--` as it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the words behind `--` aside."""
        if "--" in args:
            end = args.index("--")
            ctx.meta[_ARGV] = tuple(args[end + 1 :])
            args = args[:end]
        return super().parse_args(ctx, args)


def _waiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of waiting."""
    for option in (
        click.option("--exit-code", is_flag=True, help="End with the task's own code; 125 for all of Khonsu's own."),
        click.option(
            "--placement-timeout",
            type=DURATION,
            default="10s",
            show_default=True,
            help="How long copies may have no place before that is told (exit code 3).",
        ),
        click.option("--timeout", type=DURATION, help="How long to wait (exit code 7). Without one, to the end."),
    ):
        function = option(function)
    return function


def _wishing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a job that is made of a command."""
    for option in (
        click.option("--constraint", "constraints", multiple=True, help='For a COMMAND: such as "os = linux".'),
        click.option("--env", multiple=True, metavar="KEY=VALUE", help="For a COMMAND: a variable."),
        click.option("--port", "ports", multiple=True, metavar="NAME[=NUMBER]", help="For a COMMAND: a port."),
        click.option("--memory", default=Wishes().memory, help="For a COMMAND: what it reserves, such as 64MiB."),
        click.option("--cpu", default=Wishes().cpu, help="For a COMMAND: the cores that it reserves, such as 0.5."),
        click.option("--count", type=click.IntRange(0), default=1, help="For a COMMAND: how many copies."),
        click.option(
            "--type",
            type=click.Choice([each.value for each in JobType]),
            default="batch",
            help="For a COMMAND: its type.",
        ),
        click.option("--name", help="For a COMMAND: the job's name; without one, the program's."),
    ):
        function = option(function)
    return function


@click.command(cls=RunCommand, options_metavar="[OPTIONS]")
@click.argument("files", nargs=-1, metavar="FILE... | -- COMMAND...")
@click.option("--detach", "-d", is_flag=True, help="Do not wait.")
@click.option("--print", "print_only", is_flag=True, help="Show the job that would be submitted, and submit nothing.")
@click.option("--expect-version", type=click.IntRange(0), help="Submit only if this is the present version.")
@_waiting
@_wishing
@server_options
@namespace_option
@json_option
def run(  # click passes the options by name
    out: Out,
    *,
    dial: Dial,
    files: tuple[str, ...],
    detach: bool,
    print_only: bool,
    expect_version: int | None,
    timeout: str | float | None,
    placement_timeout: str | float,
    exit_code: bool,
    **wishes: Any,
) -> None:
    """Submit the jobs of FILE..., or one that runs COMMAND; show how they go, and wait.

    A service is waited for until it is healthy, a batch job until it is done. Ctrl-C ends the waiting, not the job. A
    finished batch job runs again.
    """
    argv = click.get_current_context().meta.get(_ARGV)
    asked = Wishes(**wishes)
    _check(files, argv, asked)
    if print_only:
        attempt(lambda: _print(out, _jobs(files, argv, asked, dial.namespace)), out)
    submitted: list[Submission] = []

    async def work() -> int:
        from khonsu.cli.waits import How

        jobs = _jobs(files, argv, asked, dial.namespace)
        client, server = dial.client()
        async with client:
            desk = Desk(client, server, out)
            for job in jobs:
                submitted.append(await client.submit(job, rerun=True, expect_version=expect_version))
                _say(desk, submitted[-1], detach=detach)
            follow = out.on_terminal and not out.as_json and any(not job.type.keeps_running for job in jobs)
            how = How(timeout=timeout, placement_timeout=placement_timeout, exit_code=exit_code, follow=follow)
            return OK if detach else await _wait(desk, submitted, how)

    execute(work, out, own_code=125 if exit_code else None, interrupted=lambda: _detached(submitted, out, told=detach))


def _check(files: tuple[str, ...], argv: tuple[str, ...] | None, wishes: Wishes) -> None:
    if files and argv is not None:
        raise click.UsageError("give either FILE... or -- COMMAND...")
    if not files and not argv:
        raise click.UsageError("give FILE..., or -- COMMAND...")
    if files and wishes.given:
        raise click.UsageError(
            "options such as --name, --count and --port are for -- COMMAND...; a FILE says it itself"
        )


def _jobs(files: tuple[str, ...], argv: tuple[str, ...] | None, wishes: Wishes, namespace: str) -> tuple[Job, ...]:
    from khonsu.cli.files import in_namespace, read_jobs

    return (in_namespace(job_of(argv, wishes), namespace),) if argv else read_jobs(files, namespace)


def _print(out: Out, jobs: tuple[Job, ...]) -> None:
    from khonsu.cli.shapes import shape
    from khonsu.core.toml import dumps_job

    for job in jobs:
        if out.as_json:
            out.json(shape(job))
        else:
            out.line(dumps_job(job).rstrip())


def _say(desk: Desk, submission: Submission, *, detach: bool) -> None:
    for warning in submission.warnings:
        desk.out.note(f"warning: {warning}")
    if detach and desk.out.as_json:
        from khonsu.cli.shapes import shape

        desk.out.json(shape(submission))
    elif detach:
        desk.out.line(f"Job {submission.job} is {submission.outcome}: version {submission.version}.")


async def _wait(desk: Desk, submitted: list[Submission], how: How) -> int:
    from khonsu.cli.waits import wait_all

    return await wait_all(desk, submitted, how)


def _detached(submitted: list[Submission], out: Out, *, told: bool) -> str:
    """Return what is said when the waiting was interrupted; a program is told what runs on, if it was not already."""
    if out.as_json and not told:
        from khonsu.cli.shapes import shape

        for submission in submitted:
            out.json(shape(submission))
    if not submitted:
        return "Interrupted."
    names = " ".join(submission.job for submission in submitted)
    runs = "run" if len(submitted) > 1 else "runs"
    return f"\nDetached: {names} {runs} on. `khonsu job wait` waits again, `khonsu job stop` stops."


@click.command()
@click.argument("name")
@click.option(
    "--until",
    type=click.Choice(["placed", "done"]),
    default="done",
    show_default=True,
    help="For what: a place for each copy, or the end (of a service: all copies are healthy).",
)
@_waiting
@asking(interrupted="\nInterrupted: the waiting ends, the job goes on.")
async def wait(  # click passes the options by name
    desk: Desk,
    *,
    name: str,
    until: Until,
    timeout: str | float | None,
    placement_timeout: str | float,
    exit_code: bool,
) -> int:
    """Wait for the present run of a job, and show how it goes."""
    from khonsu.cli.waits import How, wait_all

    how = How(timeout=timeout, placement_timeout=placement_timeout, until=until, exit_code=exit_code)
    return await wait_all(desk, [name], how)
