"""From tables, as they come from a file or over the wire, to jobs: every mistake at once.

The paths of mistakes are those of the model (`groups[0].tasks[0].resources.memory`), whichever form the table has, so
that one mistake is told in the same words by the file's reader and by the control plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs

from khonsu.core.job import (
    OPERATORS,
    PORT_EXPECTED,
    Constraint,
    Group,
    Job,
    Port,
    Reschedule,
    Restart,
    Task,
    as_port,
)
from khonsu.core.mistakes import MISTAKES_MAX, join, show
from khonsu.core.names import nearest
from khonsu.core.reader import Reader, Special, keys_of, known_keys
from khonsu.core.states import JobType
from khonsu.core.validate import check_job
from khonsu.errors import InvalidJob, Problem

CONSTRAINT_EXPECTED: Final = '"ATTRIBUTE OPERATOR VALUE", such as "os = linux"'
SHORT_GROUP: Final = "main"
"""The group of a job whose file has none."""

_JOB_KEYS: Final = frozenset(keys_of(Job))
_GROUP_KEYS: Final = frozenset(keys_of(Group)) - {"name", "tasks"}
_TASK_KEYS: Final = frozenset(keys_of(Task)) - {"name"}
_TASK_REQUIRED: Final[tuple[tuple[str, str, Any], ...]] = (
    ("name", "text", ""),
    ("config", "a table: what the driver is to run", {}),
    ("driver", "the name of a driver, such as binary", ""),
)
_SHORT_KEYS: Final = (_GROUP_KEYS | _TASK_KEYS) - _JOB_KEYS
_SHORT_FORM_KEYS: Final = tuple({*known_keys(Job), *known_keys(Group), *known_keys(Task)} - {"groups", "tasks"})


def parse_job(table: Mapping[str, Any], /, *, base_path: str = "", passed_over: list[Problem] | None = None) -> Job:
    """Return the job that a table describes, checked.

    Args:
        table: One job, in the short or the long form, with short keys or the attributes' own names.
        base_path: Where the table is, for the paths of mistakes.
        passed_over: Takes the unknown keys, which are no mistakes then: a sender may be a version ahead.

    Raises:
        InvalidJob: The table is wrong; has every mistake.

    """
    job, problems = read_job(table, base_path=base_path, passed_over=passed_over)
    if problems:
        raise InvalidJob(problems)
    return job


def parse_jobs(table: Mapping[str, Any], /) -> tuple[Job, ...]:
    """Return the jobs of a file: one, or those of its `[[jobs]]`, checked.

    Raises:
        InvalidJob: A job is wrong; has every mistake of all of them.

    """
    if "jobs" not in table:
        return (parse_job(table),)
    problems: list[Problem] = []
    others = sorted(set(table) - {"jobs"})
    if others:
        problems.append(Problem("jobs", f"jobs and {', '.join(others)}", "either [[jobs]] or one job, not both"))
    tables = table["jobs"]
    if not isinstance(tables, list) or not tables:
        problems.append(Problem("jobs", show(tables), "a list of jobs, written as [[jobs]]"))
        raise InvalidJob(problems)
    jobs = []
    for index, each in enumerate(tables):
        job, mistakes = read_job(each, base_path=f"jobs[{index}]")
        jobs.append(job)
        problems.extend(mistakes)
        if len(problems) > MISTAKES_MAX:
            raise InvalidJob(problems)
    problems.extend(_repeated(jobs))
    if problems:
        raise InvalidJob(problems)
    return tuple(jobs)


def read_job(
    table: object, *, base_path: str = "", passed_over: list[Problem] | None = None
) -> tuple[Job, tuple[Problem, ...]]:
    """Return the job of a table and every mistake; where there are any, the job has stand-ins."""
    given = table.get("type") if isinstance(table, Mapping) else None
    job_type = JobType(given) if given in list(JobType) else JobType.SERVICE
    reader = Reader(_special(job_type), passed_over=passed_over)
    if not isinstance(table, Mapping):
        reader.wrong(base_path or "job", show(table), "a table")
        return Job("", groups=()), tuple(reader.problems)
    job = _read(reader, table, base_path)
    found = [attrs.evolve(problem, path=join(base_path, problem.path)) for problem in check_job(job)]
    return job, _first((*reader.problems, *(problem for problem in found if not reader.hides(problem.path))))


def _first(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the first mistakes, and a last one where there are more."""
    if len(problems) < MISTAKES_MAX:
        return tuple(problems)
    more = Problem("job", f"{MISTAKES_MAX} mistakes or more", "fewer; these are the first")
    return (*problems[:MISTAKES_MAX], more)


def _repeated(jobs: list[Job]) -> list[Problem]:
    seen: dict[tuple[str, str], int] = {}
    problems = []
    for index, job in enumerate(jobs):
        first = seen.setdefault((job.namespace, job.name), index)
        if first != index and job.name:
            path = f"jobs[{index}].name"
            problems.append(Problem(path, f"{show(job.name)} again, as in jobs[{first}]", "a name of its own"))
    return problems


def _read(reader: Reader, table: Mapping[str, Any], path: str) -> Job:
    short = [str(name) for name in table if name in _SHORT_KEYS]
    long = "groups" in table
    if short and not long:
        return _short_form(reader, table, path)
    if short:
        expected = "either [[groups]], or driver and config at the top"
        reader.problems.append(Problem(join(path, "groups"), f"groups and {', '.join(short)}", expected))
    if not long:
        reader.wrong(join(path, "groups"), "nothing", "driver and [config] at the top for a single task, or [[groups]]")
    own = _own_keys(reader, table, path, known=known_keys(Job) if long else _SHORT_FORM_KEYS)
    made: Job = reader.build(Job, {"groups": (), **reader.table(Job, own, path)}, path)
    return made


def _own_keys(reader: Reader, table: Mapping[str, Any], path: str, *, known: Sequence[str]) -> dict[str, Any]:
    """Return what belongs to the job itself, and note the keys that belong to nothing."""
    for name in table:
        if name not in _JOB_KEYS and name not in _SHORT_KEYS:
            reader.unknown(str(name), path, known)
    return {name: item for name, item in table.items() if name in _JOB_KEYS}


def _short_form(reader: Reader, table: Mapping[str, Any], path: str) -> Job:
    """Read a job whose group and task are written into it."""
    group_path = join(path, "groups[0]")
    task_path = f"{group_path}.tasks[0]"
    job = reader.table(Job, _own_keys(reader, table, path, known=_SHORT_FORM_KEYS), path)
    group = {name: item for name, item in table.items() if name in _GROUP_KEYS - _JOB_KEYS}
    task = {name: item for name, item in table.items() if name in _TASK_KEYS - _GROUP_KEYS - _JOB_KEYS}
    # The task is named after the job, so that a wrong name is one mistake.
    reader.hide(f"{task_path}.name")
    made = _task(reader, {**task, "name": job.get("name", "")}, task_path)
    arguments = {**reader.table(Group, group, group_path), "name": SHORT_GROUP, "tasks": (made,)}
    single: Job = reader.build(Job, {**job, "groups": (reader.build(Group, arguments, group_path),)}, path)
    return single


# ------------------------------------------------------------------------- what people may write in more than one way


def _special(job_type: JobType) -> Mapping[Any, Special]:
    some = Group(SHORT_GROUP, tasks=())
    return {
        Constraint: _constraint,
        Task: _task,
        tuple[Port, ...]: _ports,
        Restart: partial(_policy, some.restart_policy(job_type)),
        Reschedule: partial(_policy, some.reschedule_policy(job_type)),
    }


def _policy(default: Restart | Reschedule, reader: Reader, data: Any, path: str) -> Restart | Reschedule:
    """Read a policy: what a table leaves out is as the job's type has it."""
    return attrs.evolve(default, **reader.table(type(default), data, path))


def _constraint(reader: Reader, data: Any, path: str) -> Constraint:
    if isinstance(data, str):
        try:
            return Constraint.parse(data)
        except ValueError:
            words = data.split()
            near = nearest(words[1], OPERATORS) if len(words) > 1 and not reader.full else None
            reader.wrong(path, show(data), CONSTRAINT_EXPECTED, near=near)
    elif isinstance(data, Mapping):
        made: Constraint = reader.build(Constraint, reader.table(Constraint, data, path), path)
        return made
    else:
        reader.wrong(path, show(data), CONSTRAINT_EXPECTED)
    return Constraint("os", "is_set")


def _ports(reader: Reader, data: Any, path: str) -> tuple[Port, ...]:
    if isinstance(data, (list, tuple)):
        return tuple([_listed_port(reader, item, path, index) for index, item in enumerate(data)])
    if not isinstance(data, Mapping):
        reader.wrong(path, show(data), "a table of ports by name")
        return ()
    return tuple([_port(reader, str(name), item, join(path, str(name))) for name, item in data.items()])


def _listed_port(reader: Reader, data: Any, path: str, index: int) -> Port:
    """Read a port as the wire has it; its path is by name all the same."""
    name = data.get("name") if isinstance(data, Mapping) else None
    if not isinstance(name, str):
        reader.hide(join(path, ""))  # where a port without a name would be
    made: Port = reader.value(Port, data, join(path, name) if isinstance(name, str) else f"{path}[{index}]")
    return made


def _port(reader: Reader, name: str, data: Any, path: str) -> Port:
    if isinstance(data, Mapping):
        if "name" in data:
            reader.wrong(path, "name in the table", "host and task; the name stands before it")
        return Port(**{**reader.table(Port, data, path), "name": name})
    try:
        return as_port(name, data)
    except ValueError:
        near = nearest(data, ["dynamic"]) if isinstance(data, str) and not reader.full else None
        reader.wrong(path, show(data), PORT_EXPECTED, near=near)
        return Port(name)


def _task(reader: Reader, data: Any, path: str) -> Task:
    taken = reader.table(Task, data, path)
    for alias, expected, stand_in in _TASK_REQUIRED:
        if alias not in taken:
            if not reader.hides(path):
                reader.wrong(join(path, alias), "nothing", expected)
            taken[alias] = stand_in
    return Task(taken.pop("name"), taken.pop("config"), **taken)
