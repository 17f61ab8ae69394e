"""Jobs as people write them: short keys, units, and nothing that has its default. `parse_job` reads it back."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import attrs

from khonsu.core.codec import plain_json
from khonsu.core.conditions import Constraint
from khonsu.core.job import Group, Job, Port
from khonsu.core.parse import SHORT_GROUP
from khonsu.core.policies import Reschedule, Restart
from khonsu.core.reader import attributes_of, default_of, keys_of
from khonsu.core.states import JobType
from khonsu.core.units import format_duration, format_size, seconds, size_bytes

_JOB_KEYS: Final = frozenset(keys_of(Job)) - {"name"}


def brief_job(job: Job) -> dict[str, Any]:
    """Return a job as a table of JSON values, in the short form where it has one."""
    table = _table(job)
    table["groups"] = groups = [_group(group, job.type) for group in job.groups]
    if len(groups) == 1 and job.groups[0].name == SHORT_GROUP and len(job.groups[0].tasks) == 1:
        group = {key: value for key, value in groups[0].items() if key not in ("name", "tasks")}
        task = dict(groups[0]["tasks"][0])
        # What group and task share with the job would be taken for the job's.
        if task.pop("name") == job.name and not _JOB_KEYS & {*group, *task}:
            config = task.pop("config")
            del table["groups"]
            return {**table, **group, **task, "config": config}
    return table


def _group(group: Group, job_type: JobType) -> dict[str, Any]:
    table = _table(group)
    table["tasks"] = [_table(task) for task in group.tasks]
    bare = Group("", tasks=())
    if group.restart is not None:
        table["restart"] = _policy(group.restart, bare.restart_policy(job_type))
    if group.reschedule is not None:
        table["reschedule"] = _policy(group.reschedule, bare.reschedule_policy(job_type))
    return table


def _policy(policy: Restart | Reschedule, default: Restart | Reschedule) -> dict[str, Any]:
    """Return what a policy has other than the job's type has it."""
    table = {}
    for attribute in attributes_of(type(policy)):
        value = getattr(policy, attribute.name)
        if value != getattr(default, attribute.name):
            table[str(attribute.alias)] = "unlimited" if value is None else form(attribute.name, value)
    return table


def _table(value: object) -> dict[str, Any]:
    """Return the fields of a value that differ from their defaults."""
    table = {}
    for attribute in attributes_of(type(value)):
        part = getattr(value, attribute.name)
        if attribute.default is attrs.NOTHING or part != default_of(attribute):
            table[str(attribute.alias)] = form(attribute.name, part)
    return table


def form(name: str, value: Any) -> Any:
    """Return the value of an attribute as people write it; the end of the name tells the unit."""
    if name.endswith("_seconds"):
        text = format_duration(value)
        return text if seconds(text) == value else value
    if name.endswith("_bytes"):
        text = format_size(value)
        return text if "." not in text and size_bytes(text) == value else value
    if name.endswith("_millis"):
        return value // 1000 if value % 1000 == 0 else value / 1000
    if name == "ports":
        return {port.name: _port(port) for port in value}
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Constraint):
        return _constraint(value)
    if attrs.has(type(value)):
        return _table(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return plain_json(value)


def _constraint(constraint: Constraint) -> str | dict[str, Any]:
    try:
        if Constraint.parse(str(constraint)) == constraint:
            return str(constraint)
    except ValueError:
        pass  # a value that begins with a blank, say
    return _table(constraint)


def _port(port: Port) -> str | int | dict[str, int]:
    if port.task is None:
        return "dynamic" if port.host is None else port.host
    return {"task": port.task} if port.host is None else {"host": port.host, "task": port.task}
