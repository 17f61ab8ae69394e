"""`khonsu job plan|validate|init|schema`: what is done with job files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import evolve

from khonsu.cli.running import NOT_PLACED, OK, Desk, asking, attempt, json_option
from khonsu.errors import InvalidJob, InvalidRequest, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khonsu.cli.output import Out
    from khonsu.core.job import Job
    from khonsu.core.results import FieldChange, JobPlan

DEFAULT: Final = "default"
FILES = click.argument("files", nargs=-1, required=True, metavar="FILE...")


def read_jobs(files: Sequence[str], namespace: str = DEFAULT) -> tuple[Job, ...]:
    """Return the jobs of some files, `-` being the standard input.

    Args:
        files: Their names.
        namespace: Of the jobs that name none.

    Raises:
        InvalidJob: Has every mistake of every file.
        InvalidRequest: A job names another namespace than the one that is asked for.
        NotFound: There is no such file.

    """
    from khonsu.core.toml import load_jobs, loads_jobs

    jobs: list[Job] = []
    problems: list[Problem] = []
    for file in files:
        try:
            found = loads_jobs(sys.stdin.buffer.read()) if file == "-" else load_jobs(file)
        except InvalidJob as error:
            problems += error.problems if len(files) == 1 else [_in(file, problem) for problem in error.problems]
        else:
            jobs += found
    names = [(job.namespace, job.name) for job in jobs]
    twice = sorted({f"{namespace}/{name}" for namespace, name in names if names.count((namespace, name)) > 1})
    problems += [Problem("name", f"two jobs {name}", "each job once") for name in twice]
    if problems:
        raise InvalidJob(problems)
    return tuple(in_namespace(job, namespace) for job in jobs)


def in_namespace(job: Job, namespace: str) -> Job:
    """Return a job in the namespace that is asked for.

    Raises:
        InvalidRequest: It names another one.

    """
    if namespace in (DEFAULT, job.namespace):
        return job
    if job.namespace != DEFAULT:
        raise InvalidRequest(
            f"job {job.name} says that its namespace is {job.namespace}, but {namespace} is asked for",
            hint="Leave out --namespace (or KHONSU_NAMESPACE), or the namespace in the file",
        )
    return evolve(job, namespace=namespace)


def _in(file: str, problem: Problem) -> Problem:
    path = problem.path if problem.path.startswith(file) else f"{file}: {problem.path}"
    return Problem(path, problem.found, problem.expected, problem.nearest)


@click.command()
@FILES
@asking()
async def plan(desk: Desk, files: tuple[str, ...]) -> int:
    """Show what submitting the jobs of FILE... would change; nothing is. Ends with 3 if copies would have no place."""
    from khonsu.cli.shapes import shape

    plans = [await desk.client.plan(job) for job in read_jobs(files, desk.client.namespace)]
    for one in plans:
        if desk.out.as_json:
            desk.out.json(shape(one))
        else:
            _show_plan(desk, one)
    return OK if all(one.placeable for one in plans) else NOT_PLACED


def _show_plan(desk: Desk, one: JobPlan) -> None:
    from khonsu.cli.job import explained

    desk.out.title(f"Job {one.job} would be {one.outcome}")
    for change in one.diff:
        desk.out.line(f"  {_change(change)}")
    if one.groups:
        rows = [(each.group, each.place, each.stop, each.update, each.keep, each.unplaced) for each in one.groups]
        desk.out.table(("GROUP", "PLACE", "STOP", "UPDATE", "KEEP", "NO PLACE"), rows, indent=2)
    if not one.placeable:
        explained(desk, one.explanation)


def _change(change: FieldChange) -> str:
    if change.before is None:
        return f"+ {change.path}: {_value(change.after)}"
    if change.after is None:
        return f"- {change.path}: {_value(change.before)}"
    return f"~ {change.path}: {_value(change.before)} -> {_value(change.after)}"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@click.command()
@FILES
@json_option
def validate(out: Out, files: tuple[str, ...]) -> None:
    """Check the jobs of FILE..., without a server. What only nodes know, such as drivers, is checked by `job plan`."""

    def work() -> None:
        jobs = read_jobs(files)
        if out.as_json:
            for job in jobs:
                out.json({"name": job.name, "namespace": job.namespace, "valid": True})
        else:
            names = ", ".join(job.name for job in jobs)
            out.line(f"{len(jobs)} {'jobs are' if len(jobs) > 1 else 'job is'} right: {names}")

    attempt(work, out)


@click.command()
@click.argument("file", default="job.toml", metavar="[FILE|-]")
@click.option("--name", default="web", show_default=True, help="The name of the job.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def init(out: Out, file: str, name: str, *, force: bool) -> None:
    """Write a job file to start from, which runs as it stands and shows in comments what else there is."""

    def work() -> None:
        from khonsu.core.template import job_template

        text = job_template(name)
        if file == "-":
            if out.as_json:
                out.json({"file": None, "name": name, "text": text})
            else:
                out.line(text.rstrip())
            return
        try:
            with Path(file).open("w" if force else "x", encoding="utf-8") as opened:
                opened.write(text)
        except FileExistsError:
            raise InvalidRequest(f"{file} is there already", hint="Name another file, or use --force") from None
        except OSError as error:
            raise InvalidRequest(f"{file} cannot be written: {error.strerror}") from None
        if out.as_json:
            out.json({"file": file, "name": name, "text": None})
        else:
            out.line(f"Wrote {file}. `khonsu job run {file}` runs it.")

    attempt(work, out)


@click.command()
@json_option
def schema(out: Out) -> None:
    """Print the JSON Schema of job files, for editors."""

    def work() -> None:
        from khonsu.cli.wiring import driver_schemas
        from khonsu.core.jobschema import job_schema

        made = job_schema(driver_schemas())
        if out.as_json:
            out.json(made)
        else:
            out.line(json.dumps(made, indent=2))

    attempt(work, out)
