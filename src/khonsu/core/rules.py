"""The rules of a job that need more than one field: what goes together, what must differ, what is one of a kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

from khonsu.core import constraints
from khonsu.core.conditions import OPERATORS, UNARY_OPERATORS, Affinity, Constraint, Spread
from khonsu.core.interpolation import Names, check_task, is_own_variable, known_names, variable_part
from khonsu.core.job import Group, Job
from khonsu.core.leases import EXCLUSIVE_KILL_SECONDS_MAX
from khonsu.core.mistakes import join, show
from khonsu.core.names import nearest
from khonsu.core.policies import Update
from khonsu.core.task import Artifact, Resources, Task
from khonsu.core.units import format_cpu, format_duration, format_size
from khonsu.errors import Problem

GROUPS_MAX: Final = 10_000
TASKS_MAX: Final = 100
PORTS_MAX: Final = 1000
PLATFORMS: Final = (
    "linux/amd64", "linux/arm64", "linux/arm", "linux/386", "linux/riscv64", "linux/ppc64le", "linux/s390x",
    "darwin/amd64", "darwin/arm64",
)  # fmt: skip

_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_UNSET: Final = ("is_set", "is_not_set")
_SOURCE_EXPECTED: Final = "an https URL, or one with http or file and a sha256"


def check_rules(job: Job) -> Iterator[Problem]:
    """Yield every mistake of a job that needs more than one field to be seen."""
    if not 0 < len(job.groups) <= GROUPS_MAX:
        yield Problem("groups", f"{len(job.groups)} groups", f"1 to {GROUPS_MAX} groups")
    yield from _repeated((group.name for group in job.groups), lambda index: f"groups[{index}].name")
    yield from _wishes(job, "")
    for index, group in enumerate(job.groups):
        yield from _group(job, group, f"groups[{index}]")


def _repeated(keys: Iterable[Hashable], path: Callable[[int], str]) -> Iterator[Problem]:
    """Yield a problem for each key that was there before."""
    seen: dict[Hashable, int] = {}
    for index, key in enumerate(keys):
        first = seen.setdefault(key, index)
        if first != index and key != "":
            yield Problem(path(index), f"{key}, as at {path(first)}", "one that is not taken")


def _group(job: Job, group: Group, path: str) -> Iterator[Problem]:
    if not 0 < len(group.tasks) <= TASKS_MAX:
        yield Problem(f"{path}.tasks", f"{len(group.tasks)} tasks", f"1 to {TASKS_MAX} tasks")
    yield from _repeated((task.name for task in group.tasks), lambda index: f"{path}.tasks[{index}].name")
    yield from _wishes(group, f"{path}.")
    yield from _ports(group, path)
    yield from _everywhere(job, group, path)
    for name, policy in (("restart", group.restart), ("reschedule", group.reschedule)):
        if policy is not None and policy.delay_seconds > policy.delay_max_seconds:
            expected = f"at most delay_max ({format_duration(policy.delay_max_seconds)})"
            yield Problem(f"{path}.{name}.delay", format_duration(policy.delay_seconds), expected)
    yield from _update(group.update, exclusive=group.exclusive, path=f"{path}.update")
    ports = frozenset(port.name for port in group.ports)
    for index, task in enumerate(group.tasks):
        names = known_names(ports, job.meta, task.meta)
        yield from _task(task, names, exclusive=group.exclusive, path=f"{path}.tasks[{index}]")


def _everywhere(job: Job, group: Group, path: str) -> Iterator[Problem]:
    """Check a group of a job that runs one copy on every feasible node."""
    if job.type.everywhere:
        if group.count != 1:
            yield Problem(f"{path}.count", show(group.count), f"no count: a {job.type} job has one copy on every node")
        if group.gang:
            yield Problem(f"{path}.gang", "true", f"false: a {job.type} job is placed node by node")
        if group.max_per_node is not None:
            expected = f"nothing: a {job.type} job has one copy on every node"
            yield Problem(f"{path}.max_per_node", show(group.max_per_node), expected)


def _ports(group: Group, path: str) -> Iterator[Problem]:
    def place(index: int) -> str:
        return join(f"{path}.ports", group.ports[index].name)

    if len(group.ports) > PORTS_MAX:
        yield Problem(f"{path}.ports", f"{len(group.ports)} ports", f"at most {PORTS_MAX} ports")
    variables = [variable_part(port.name) for port in group.ports]
    yield from _repeated((f"KHONSU_PORT_{variable}" for variable in variables), place)
    static = [(port.host, index) for index, port in enumerate(group.ports) if port.host]
    yield from _repeated((host for host, _ in static), lambda index: place(static[index][1]))


def _update(update: Update, *, exclusive: bool, path: str) -> Iterator[Problem]:
    if update.healthy_for_seconds >= update.healthy_within_seconds:
        expected = f"less than healthy_within ({format_duration(update.healthy_within_seconds)})"
        yield Problem(f"{path}.healthy_for", format_duration(update.healthy_for_seconds), expected)
    if update.progress_within_seconds < update.healthy_within_seconds:
        expected = f"at least healthy_within ({format_duration(update.healthy_within_seconds)})"
        yield Problem(f"{path}.progress_within", format_duration(update.progress_within_seconds), expected)
    if exclusive and update.start_first is True:
        yield Problem(f"{path}.start_first", "true", 'false or "auto": the group is exclusive')


# ------------------------------------------------------------------------------------------------- where copies may run


def _wishes(owner: Job | Group, path: str) -> Iterator[Problem]:
    for index, constraint in enumerate(owner.constraints):
        yield from _constraint(constraint, f"{path}constraints[{index}]")
    for index, affinity in enumerate(owner.affinities):
        yield from _affinity(affinity, f"{path}affinities[{index}]")
    for index, spread in enumerate(owner.spreads):
        yield from _spread(spread, f"{path}spreads[{index}]")


def _attribute(attribute: str, path: str) -> Iterator[Problem]:
    if not attribute or len(attribute.split()) != 1 or attribute != attribute.strip():
        yield Problem(path, show(attribute), "the name of an attribute, such as os or label.disk")


def _constraint(constraint: Constraint, path: str) -> Iterator[Problem]:
    yield from _attribute(constraint.attribute, f"{path}.attribute")
    if constraint.operator not in OPERATORS:
        return
    if constraint.operator in UNARY_OPERATORS:
        if constraint.value:
            yield Problem(f"{path}.value", show(constraint.value), f"no value: {constraint.operator} takes none")
        return
    if not constraint.value:
        yield Problem(f"{path}.value", "nothing", f"a value for {constraint.operator}")
        return
    wrong = constraints.problem(constraint.operator, constraint.value)
    if wrong is not None:
        yield Problem(f"{path}.value", show(constraint.value), f"a value for {constraint.operator}: {wrong}")
    if constraint.operator in ("in", "not_in") and "" in constraint.values:
        yield Problem(f"{path}.value", show(constraint.value), "values separated by commas, none of them empty")


def _affinity(affinity: Affinity, path: str) -> Iterator[Problem]:
    yield from _constraint(affinity.where, f"{path}.where")
    if affinity.where.operator == "distinct":
        yield Problem(
            f"{path}.where.operator", "distinct", "an operator that looks at one node; distinct is a constraint"
        )


def _spread(spread: Spread, path: str) -> Iterator[Problem]:
    yield from _attribute(spread.attribute, f"{path}.attribute")
    total = sum(spread.targets.values())
    if total > 100:
        yield Problem(f"{path}.targets", f"{total} percent", "at most 100 percent in all")


# --------------------------------------------------------------------------------------------------------------- tasks


def _task(task: Task, names: Names, *, exclusive: bool, path: str) -> Iterator[Problem]:
    yield from _resources(task.resources, f"{path}.resources")
    for name in task.env:
        if not name or "=" in name:
            yield Problem(join(f"{path}.env", name), f"the variable {show(name)}", "a name without an equals sign")
        elif is_own_variable(name):
            yield Problem(join(f"{path}.env", name), f"the variable {name}", "another name: Khonsu sets this one")
    if task.user is not None and (not task.user or len(task.user.split()) != 1 or ":" in task.user):
        yield Problem(f"{path}.user", show(task.user), "the name of a user")
    if exclusive and task.kill_timeout_seconds > EXCLUSIVE_KILL_SECONDS_MAX:
        expected = f"at most {format_duration(EXCLUSIVE_KILL_SECONDS_MAX)}: the group is exclusive"
        yield Problem(f"{path}.kill_timeout", format_duration(task.kill_timeout_seconds), expected)
    for index, artifact in enumerate(task.artifacts):
        yield from _artifact(artifact, f"{path}.artifacts[{index}]")
    yield from check_task(task, names, path)


def _resources(resources: Resources, path: str) -> Iterator[Problem]:
    cpu, cpu_max = resources.cpu_millis, resources.cpu_max_millis
    if cpu_max is not None and cpu_max < cpu:
        yield Problem(f"{path}.cpu_max", format_cpu(cpu_max), f"at least cpu ({format_cpu(cpu)})")
    memory, memory_max = resources.memory_bytes, resources.memory_max_bytes
    if memory_max is not None and memory_max < memory:
        yield Problem(f"{path}.memory_max", format_size(memory_max), f"at least memory ({format_size(memory)})")


def _artifact(artifact: Artifact, path: str) -> Iterator[Problem]:
    if artifact.source is None:
        if not artifact.platforms:
            yield Problem(f"{path}.source", "nothing", f"{_SOURCE_EXPECTED}, or platforms")
        if artifact.sha256 is not None:
            yield Problem(f"{path}.sha256", show(artifact.sha256), "nothing, since there is no source beside it")
    else:
        yield from _source(artifact.source, artifact.sha256, path)
    for platform, each in artifact.platforms.items():
        if platform not in PLATFORMS:
            near = nearest(platform, PLATFORMS)
            expected = f"one of {', '.join(PLATFORMS)}"
            yield Problem(join(f"{path}.platforms", platform), f"the platform {show(platform)}", expected, near)
        yield from _source(each.source, each.sha256, join(f"{path}.platforms", platform))
    if artifact.destination is not None and not _stays_below(artifact.destination):
        expected = "a path below the task's directory, such as bin/tool"
        yield Problem(f"{path}.destination", show(artifact.destination), expected)


def _source(source: str, sha256: str | None, path: str) -> Iterator[Problem]:
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        yield Problem(f"{path}.sha256", show(sha256), "64 hexadecimal digits")
    before = source.partition("://")[0]
    if "${" in before:
        return  # what the scheme is, is known on the node
    try:
        parts = urlsplit(source)
        host = parts.hostname
    except ValueError:
        yield Problem(f"{path}.source", show(source), _SOURCE_EXPECTED)
        return
    safe = parts.scheme == "https" or (parts.scheme in ("http", "file") and sha256 is not None)
    if not safe or (not host if parts.scheme != "file" else not parts.path):
        yield Problem(f"{path}.source", show(source), _SOURCE_EXPECTED)


def _stays_below(destination: str) -> bool:
    parts = destination.split("/")
    return bool(destination) and not destination.startswith("/") and ".." not in parts and destination != "."
